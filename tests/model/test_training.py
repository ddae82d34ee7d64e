"""A meta-training learns, stops in time, repeats itself, and survives being killed.

B = streams in batch, S = support pairs, Q = query pairs, D = source dim, E = target dim, N = pairs
of a stream
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.losses import MSE
from model.meta.checkpoint import write_checkpoint
from model.meta.episodes import EpisodeBatch
from model.meta.progress import Progress, Saving
from model.meta.recipe import Recipe, Term
from model.meta.training import Data, MetaTrained, facts_of, train_theta
from model.values.errors import BadCheckpoint, BadData, Diverged

D, E = 3, 2
RECIPE = Recipe(
    hidden_dim=8,
    inner_steps=2,
    inner_rate=0.2,
    outer_losses=(Term(MSE),),
    max_support=6,
    query=6,
    streams=4,
    steps=60,
    rate=2e-2,
    validate_every=10,
    validation_streams=6,
    learner="meta-sgd",
)


class LinearStreams:
    """Every stream is a random linear map; they have the mean map in common."""

    source_dim, target_dim = D, E

    def __init__(self, spread: float = 0.3, poisoned_from: int | None = None) -> None:
        self.spread = spread
        self.poisoned_from = poisoned_from
        self.drawn = 0

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        a_BDE = 1.0 + self.spread * torch.randn(streams, D, E, generator=generator)
        x_BND = torch.randn(streams, 12, D, generator=generator)
        y_BNE = x_BND @ a_BDE
        if self.poisoned_from is not None and self.drawn >= self.poisoned_from:
            y_BNE = y_BNE * torch.inf
        self.drawn += 1
        real_BS = torch.arange(6) < torch.randint(3, 7, (streams, 1), generator=generator)
        real_BQ = torch.ones(streams, 6, dtype=torch.bool)
        x, y = x_BND, y_BNE
        return EpisodeBatch(x[:, :6], y[:, :6], real_BS, x[:, 6:], y[:, 6:], real_BQ)


def trained(recipe: Recipe = RECIPE, saving: Saving | None = None) -> MetaTrained:
    return train_theta(Data(LinearStreams(), LinearStreams()), recipe, saving=saving)


def content(result: MetaTrained) -> str:
    return result.parameters.meta_init("theta").content_hash


def test_it_learns_and_repeats_itself() -> None:
    first, again = trained(), trained()
    history = first.progress.history
    assert content(first) == content(again)
    assert history == again.progress.history
    assert history[-1]["validation_loss"] < 0.5 * history[0]["validation_loss"]
    assert [row["step"] for row in history] == [10.0 * i for i in range(7)]
    assert first.progress.ended == "steps"
    assert content(trained(replace(RECIPE, seed=1))) != content(first)
    facts = facts_of(first)
    assert Recipe.from_config(json.loads(facts["recipe"])) == RECIPE
    assert json.loads(facts["training"])["best_step"] == first.progress.best_step
    assert json.loads(facts["training"])["form"] == "full"  # of dims this small


@pytest.mark.parametrize(
    "change",
    [
        {"learner": "reptile", "epsilon": 0.5},
        {"learner": "fomaml"},
        {"learner": "anil"},
        {"learner": "r2d2", "inner_rate": 1.0},
        {"learner": "adam", "inner_rate": 0.02},
        {"generator": "adversarial"},
        {
            "generator": "attention",
            "generator_config": {"width": 16, "heads": 1, "blocks": 1},
            "rate": 1e-2,
            "inner_rate": 0.05,
        },
    ],
)
def test_every_learner_and_generator_lowers_the_validation_loss(change: dict[str, object]) -> None:
    recipe = Recipe.from_config(RECIPE.to_config() | change | {"validate_every": 5})
    history = trained(recipe).progress.history
    assert min(r["validation_loss"] for r in history) < 0.75 * history[0]["validation_loss"]


def test_the_best_average_is_kept_and_patience_ends_it() -> None:
    recipe = replace(RECIPE, steps=400, rate=0.5, patience=3, validate_every=5, averaging=1.0)
    result = trained(recipe)
    progress = result.progress
    losses = [row["validation_loss"] for row in progress.history]
    assert progress.ended == "patience"
    assert progress.step < 400
    assert progress.best_loss == min(losses)
    assert losses.index(min(losses)) == len(losses) - 4
    assert progress.best_step == progress.history[-4]["step"]


def test_without_validation_all_steps_are_done() -> None:
    result = train_theta(Data(LinearStreams()), RECIPE)
    assert result.progress.step == 60
    assert result.progress.best_loss is None


def test_steps_that_are_not_finite_are_skipped_counted_and_end_it_when_they_go_on() -> None:
    class OncePoisoned(LinearStreams):
        def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
            self.poisoned_from = self.drawn if self.drawn in (3, 4) else None
            return super().draw(generator, streams)

    result = train_theta(Data(OncePoisoned(), LinearStreams()), replace(RECIPE, max_skipped=3))
    assert result.progress.skipped == 2
    assert result.progress.skipped_in_a_row == 0
    assert result.progress.history[-1]["validation_loss"] < 1.5
    with pytest.raises(Diverged, match="3 outer steps in a row, up to step 23 of 60"):
        train_theta(Data(LinearStreams(poisoned_from=20)), replace(RECIPE, max_skipped=3))


@pytest.mark.parametrize("generator", ["mlp", "adversarial"])
def test_interrupted_anywhere_and_continued_it_ends_in_the_same_bytes(
    tmp_path: Path, generator: str
) -> None:
    recipe = Recipe.from_config(RECIPE.to_config() | {"generator": generator, "steps": 30})
    whole = trained(recipe, Saving(tmp_path / "whole", every=4))

    saving = Saving(tmp_path / "parts", every=4)
    data = Data(LinearStreams(), LinearStreams())
    for stop in (3, 9, 18, 29):
        with pytest.raises(Interrupted):
            train_theta(data, recipe, saving=saving, on_step=_interrupting(stop))
    result = train_theta(data, recipe, saving=saving)
    assert content(result) == content(whole)
    assert result.progress == whole.progress
    done = train_theta(data, recipe, saving=saving)  # it is over: nothing is done again
    assert content(done) == content(whole)


class Interrupted(Exception):
    """Stands for anything that ends a process."""


def _interrupting(stop: int) -> Callable[[Progress], None]:
    def interrupt(progress: Progress) -> None:
        if progress.step == stop:
            raise Interrupted

    return interrupt


def test_a_checkpoint_of_another_training_is_refused_by_the_fields_that_differ(
    tmp_path: Path,
) -> None:
    path = tmp_path / "checkpoint"
    data = Data(LinearStreams(), identity={"train": "abc"})
    train_theta(data, replace(RECIPE, steps=2), saving=Saving(path))
    with pytest.raises(BadCheckpoint, match=r"recipe\.rate is 0\.02 there and 0\.5 here") as caught:
        train_theta(data, replace(RECIPE, steps=2, rate=0.5, seed=3), saving=Saving(path))
    assert "recipe.seed is 0 there and 3 here" in str(caught.value)
    assert "recipe.hidden_dim" not in str(caught.value)
    other = replace(data, identity={"train": "def"})
    with pytest.raises(BadCheckpoint, match=r"data\.train is 'abc' there and 'def' here"):
        train_theta(other, replace(RECIPE, steps=2), saving=Saving(path))
    parent = trained().parameters.meta_init("parent")
    with pytest.raises(BadCheckpoint, match="parent is None there"):
        train_theta(data, replace(RECIPE, steps=2), parent, saving=Saving(path))
    with pytest.raises(BadCheckpoint, match="form is 'full' there and 'hidden' here"):
        train_theta(data, replace(RECIPE, steps=2), saving=Saving(path), form="hidden")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadCheckpoint, match="not a readable checkpoint"):
        train_theta(data, replace(RECIPE, steps=2), saving=Saving(path))


def test_a_file_is_replaced_at_once_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    write_checkpoint(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(path, b"new and longer")
    assert path.read_bytes() == b"old"


def test_it_goes_on_from_a_parent() -> None:
    parent = trained().parameters.meta_init("parent")
    further = train_theta(Data(LinearStreams(), LinearStreams()), RECIPE, parent)
    first = trained().progress.history[0]["validation_loss"]
    assert further.progress.history[0]["validation_loss"] < 0.5 * first
    with pytest.raises(BadData, match=r"validation has source and target dims \(3, 5\)"):
        train_theta(Data(LinearStreams(), _Wider()), RECIPE)


class _Wider(LinearStreams):
    target_dim = 5


KILLED_RECIPE = replace(RECIPE, steps=90, generator="adversarial", validate_every=7, patience=100)
KILLED = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from test_training import *
saving = Saving(Path(sys.argv[2]), every=3)
data = Data(LinearStreams(), LinearStreams())
say = lambda progress: print(progress.step, flush=True)
print("content", content(train_theta(data, KILLED_RECIPE, saving=saving, on_step=say)), flush=True)
"""


def _started(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_at_random_steps_and_continued_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    rng = random.Random(time.time_ns())  # another place every time
    for _ in range(2):
        with _started(tmp_path / "killed") as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(rng.randrange(5, 40))]
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert int(lines[-1]) < KILLED_RECIPE.steps
    with _started(tmp_path / "killed") as process:
        output = process.communicate(timeout=60)[0].split()
    assert int(output[0]) > 1, "it began anew"
    assert output[-1] == content(trained(KILLED_RECIPE))
