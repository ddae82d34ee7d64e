"""The one outer loop: rates, time limits, two rates for θ's parts, and lines about progress."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from model.meta.episodes import EpisodeBatch
from model.meta.loop import run
from model.meta.parameters import MetaParameters
from model.meta.progress import Progress, TrainingSchedule
from model.meta.progress_lines import duration, lines_of
from model.meta.recipe import Recipe
from model.meta.state import TrainingState
from model.meta.training import Data, train_theta

ATTENTION = Recipe(
    generator="attention",
    generator_config={"width": 16, "heads": 1, "blocks": 1},
    hidden_dim=8,
    max_support=6,
    query=6,
    streams=4,
    steps=4,
)


class Turned:
    """Streams whose targets are their sources, turned."""

    source_dim = target_dim = 3

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        x_BND = torch.randn(streams, 12, 3, generator=generator)
        turn_BDD = torch.linalg.qr(torch.randn(streams, 3, 3, generator=generator))[0]
        y_BNE = x_BND @ turn_BDD
        real_BS = torch.ones(streams, 6, dtype=torch.bool)
        return EpisodeBatch(
            x_BND[:, :6], y_BNE[:, :6], real_BS, x_BND[:, 6:], y_BNE[:, 6:], real_BS
        )


def rates_of(schedule: TrainingSchedule) -> tuple[list[float], Progress]:
    """The rate of every step of a training of one number, whose peak rate is 1."""
    module = nn.Linear(1, 1)
    state = TrainingState(module, torch.optim.SGD(module.parameters(), lr=1.0))
    rates = []

    def accumulate(step: int) -> dict[str, float]:
        rates.append(state.optimiser.param_groups[0]["lr"])
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        return {"outer_loss": float(step)}

    run(state, schedule, accumulate)
    return rates, state.progress


def test_rates_rise_and_fall_and_steps_or_time_end_it() -> None:
    rates, progress = rates_of(TrainingSchedule(100, validate_every=40))
    assert len(rates) == 100
    assert max(rates) == rates[5] == 1.0
    assert rates[-1] < 0.01
    assert progress.ended == "steps"
    assert [row["step"] for row in progress.history] == [40.0, 80.0, 100.0]
    assert progress.history[0]["outer_loss"] == pytest.approx(19.5)
    short, progress = rates_of(TrainingSchedule(100, minutes=1e-9))
    assert (len(short), progress.ended) == (1, "time")


def test_the_mapping_moves_at_a_rate_of_its_own() -> None:
    def moved(recipe: Recipe) -> tuple[float, float]:
        begin = MetaParameters.fresh(3, 3, recipe)
        end = train_theta(Data(Turned()), replace(recipe, averaging=1.0)).parameters
        assert begin.attention is not None
        assert end.attention is not None
        pairs = ((begin.mapping, end.mapping), (begin.attention, end.attention))
        first, second = (
            max(
                float((a - b).detach().abs().max())
                for a, b in zip(old.parameters(), new.parameters(), strict=True)
            )
            for old, new in pairs
        )
        return first, second

    both, slower = moved(ATTENTION), moved(replace(ATTENTION, mapping_rate=1e-6))
    assert both[0] > 1e-3
    assert slower[0] < 1e-5
    assert slower[1] > 1e-3
    with pytest.raises(ValueError, match="mapping_rate is -1"):
        replace(ATTENTION, mapping_rate=-1.0)


def test_a_generator_is_kept_or_begun_afresh_as_the_recipe_says() -> None:
    parent = MetaParameters.fresh(3, 3, replace(ATTENTION, seed=7)).meta_init("parent")

    def child(settings: dict[str, int]) -> MetaParameters:
        return MetaParameters.from_meta_init(parent, replace(ATTENTION, generator_config=settings))

    for settings in ({}, {"width": 16}):  # what is not named is the parent's
        kept = child(settings).meta_init("child").generator
        assert kept.config == parent.generator.config
        assert all((kept.tensors[n] == t).all() for n, t in parent.generator.tensors.items())
    wider = child({"width": 32}).meta_init("child").generator
    assert wider.config == {**parent.generator.config, "width": 32}


def test_lines_say_step_loss_and_time_now_and_then_and_at_the_end() -> None:
    said: list[str] = []
    now = [0.0]
    on_step = lines_of(said.append, every_s=10.0, clock=lambda: now[0])
    progress = Progress("θ", steps=1_200)
    for progress.step in range(1, 1_201):
        now[0] += 0.5
        progress.history = [{"outer_loss": 1.5}, {"validation_loss": 0.25}]
        progress.ended = "steps" if progress.step == 1_200 else None
        on_step(progress)
    assert len(said) == 60
    assert said[0] == (
        "θ: step 21 of 1,200, loss 1.500, validation loss 0.250, 10 s so far, at most 10 min to go"
    )
    assert said[-1].endswith("ended by steps after 10 min")
    assert duration(4_000.0) == "1 h 7 min"
