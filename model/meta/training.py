"""Meta-training: outer steps over a source of episodes, until they no longer help.

T = streams in batch

    draw -> share -> outer gradient -> sum over processes -> clip -> step -> average
    every so often: validate the average, keep the best, write a checkpoint

The result is a function of recipe, data, parent and the inner loop's form: a training that was
killed at any moment and continued from its checkpoint gives the same bytes as one that was not (on
the same machine, with as many threads and processes).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.inner.cost_rule import Form
from model.meta import adversary, checkpoint, distributed, outer
from model.meta.episodes import EpisodeBatch, EpisodeSource
from model.meta.parameters import MetaParameters
from model.meta.recipe import Recipe
from model.meta.schedule import cosine
from model.meta.state import Progress, TrainingState, seeded
from model.theta.meta_init import MetaInit, canonical_json
from model.values.errors import BadData, Diverged


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on, and judged on to stop in time."""

    train: EpisodeSource
    validation: EpisodeSource | None = None
    """None: all steps are done, and the last average is the result."""
    identity: Mapping[str, str] | None = None
    """What tells this data from other, for checkpoints: hashes, splits, paths."""


@dataclass(frozen=True, slots=True)
class Saving:
    """Where and how often the training's state is written."""

    path: Path
    every: int = 250
    """Outer steps; what a crash costs at most."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome."""

    parameters: MetaParameters
    """The averaged parameters that validated best; without validation the last."""
    progress: Progress


def train(
    data: Data,
    recipe: Recipe,
    parent: MetaInit | None = None,
    saving: Saving | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    form: Form = "auto",
) -> Trained:
    """Meta-train from scratch or from `parent`; continue where `saving.path` left off, if it
    exists.

    `on_step` is told after every step. `form` is the inner loop's: both agree to rounding, so a
    training gives about the same in either, though not the same bytes. Raises BadData when dims of
    the sources (or the parent) differ, BadCheckpoint when the checkpoint cannot be read or is of
    another recipe, data, parent or form, Diverged when too many steps in a row are not finite.
    """
    state = _begin(data, recipe, parent, form)
    identity = _identity(data, recipe, parent, state.parameters.form)
    if saving is not None:
        _continue(state, saving.path, identity)
    validation = _validation_batch(data, recipe)
    while state.progress.ended is None:
        _one_step(state, data.train)
        if state.progress.step % recipe.validate_every == 0 or state.progress.step == recipe.steps:
            _close_row(state, validation)
        if saving is not None and _is_due(state.progress, saving):
            _save(state, saving.path, identity)
        on_step(state.progress)
    return Trained(state.average if validation is None else state.best, state.progress)


def facts_of(trained: Trained) -> dict[str, str]:
    """How it was trained, as a θ's facts: the recipe with its seed, and how it went."""
    progress = trained.progress
    outcome: dict[str, int | float | str | None] = {
        "form": trained.parameters.form,
        "steps": progress.step,
        "skipped": progress.skipped,
        "ended": progress.ended,
    }
    if progress.best_loss is not None:
        outcome |= {"best_step": progress.best_step, "validation_loss": progress.best_loss}
    recipe = trained.parameters.recipe.to_config()
    return {"recipe": canonical_json(recipe), "training": canonical_json(outcome)}


def _begin(data: Data, recipe: Recipe, parent: MetaInit | None, form: Form) -> TrainingState:
    dims = (data.train.source_dim, data.train.target_dim)
    others = {} if parent is None else {parent.version: (parent.source_dim, parent.target_dim)}
    if data.validation is not None:
        others["validation"] = (data.validation.source_dim, data.validation.target_dim)
    for name, other in others.items():
        if other != dims:
            raise BadData(f"{name} has source and target dims {other}, training data {dims}")
    if parent is None:
        parameters = MetaParameters.fresh(*dims, recipe, form)
    else:
        parameters = MetaParameters.from_meta_init(parent, recipe, form)
    return TrainingState(parameters, dims[1])


def _identity(data: Data, recipe: Recipe, parent: MetaInit | None, form: Form) -> dict[str, object]:
    return {
        "recipe": recipe.to_config(),
        "data": dict(data.identity or {}),
        "dims": [data.train.source_dim, data.train.target_dim],
        "validated": data.validation is not None,
        "parent": None if parent is None else parent.content_hash,
        "form": form,
    }


def _continue(state: TrainingState, path: Path, identity: Mapping[str, object]) -> None:
    here = checkpoint.read(path) if distributed.rank() == 0 else None
    found = distributed.from_rank_0(here)
    if found is not None:
        read = checkpoint.from_bytes(found, str(path))
        checkpoint.check_identity(read.identity, identity, str(path))
        state.restore(read, str(path))


def _is_due(progress: Progress, saving: Saving) -> bool:
    return progress.step % saving.every == 0 or progress.ended is not None


def _save(state: TrainingState, path: Path, identity: Mapping[str, object]) -> None:
    if distributed.rank() == 0:
        checkpoint.write(path, checkpoint.to_bytes(state.checkpoint(identity)))


def _one_step(state: TrainingState, source: EpisodeSource) -> None:
    recipe, progress = state.recipe, state.progress
    generator = seeded(recipe.seed, "episodes", progress.step)
    batch = distributed.share(source.draw(generator, recipe.streams))
    factor = cosine(progress.step / recipe.steps, recipe.warm_up)
    for group in state.optimiser.param_groups:
        group["lr"] = group["peak"] * factor
    figures = _update(state, batch)
    progress.step += 1
    if all(map(math.isfinite, figures.values())):
        progress.skipped_in_a_row = 0
        for name, figure in (figures | {"count": 1.0}).items():
            progress.recent[name] = progress.recent.get(name, 0.0) + figure
        return
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    if progress.skipped_in_a_row >= recipe.max_skipped:
        raise Diverged(
            f"{progress.skipped_in_a_row} outer steps in a row, up to step {progress.step} of "
            f"{recipe.steps}, gave no finite loss and gradient ({figures}): "
            "lower the rates, or take fewer inner steps"
        )


def _update(state: TrainingState, batch: EpisodeBatch) -> dict[str, float]:
    """One step of everything that learns; figures that are not finite mean it did not happen."""
    state.optimiser.zero_grad()
    if state.discriminator is None:
        loss = outer.accumulate(state.parameters, batch, state.recipe.streams)
        figures = {"outer_loss": loss}
    else:
        figures = _against_discriminator(state, batch)
    summed = distributed.sum_gradients(state.learned, torch.stack(list(figures.values())))
    found = dict(zip(figures, summed.tolist(), strict=True))
    limit = math.inf if state.recipe.learner == "reptile" else state.recipe.max_gradient_norm
    found["gradient_norm"] = torch.nn.utils.clip_grad_norm_(state.learned, limit).item()
    if all(map(math.isfinite, found.values())):
        state.optimiser.step()
        _move_average(state)
    return found


def _against_discriminator(state: TrainingState, batch: EpisodeBatch) -> dict[str, Tensor]:
    """The discriminator's step on outputs as they are, then the outputs' gradient against it."""
    recipe, discriminator = state.recipe, state.discriminator
    assert discriminator is not None
    assert state.discriminator_optimiser is not None
    here = len(batch.x_support_TSD) > 0
    zero = torch.zeros(())
    o_TQE = outer.query_outputs(state.parameters, batch) if here else zero
    state.discriminator_optimiser.zero_grad()
    loss = zero
    if here:
        loss = outer.accumulate_discriminator(
            discriminator, batch, o_TQE, recipe.streams, recipe.adversary.penalty
        )
    loss = distributed.sum_gradients(discriminator.parameters(), loss.view(1))[0]
    if bool(torch.isfinite(loss)):
        state.discriminator_optimiser.step()
    weight = adversary.weight_at(state.progress.step / recipe.steps, recipe)
    paired = adversarial = zero
    if here:
        paired, adversarial = outer.accumulate_against(
            state.parameters, discriminator, batch, o_TQE, recipe.streams, weight
        )
    # every process knows the whole discriminator loss: its share of it adds up to it again
    share = loss / distributed.world()
    return {"outer_loss": paired, "adversarial_loss": adversarial, "discriminator_loss": share}


def _move_average(state: TrainingState) -> None:
    """A plain mean at first, so that short trainings do not stick to where they began."""
    weight = max(state.recipe.averaging, 1.0 / (state.progress.step - state.progress.skipped + 1))
    pairs = zip(state.average.parameters(), state.parameters.parameters(), strict=True)
    for slow, fast in pairs:
        slow.lerp_(fast.detach(), weight)


def _close_row(state: TrainingState, validation: EpisodeBatch | None) -> None:
    """Write the row of history, judge the average, and see whether this is the end."""
    progress, recipe = state.progress, state.recipe
    sums, progress.recent = progress.recent, {}
    count = sums.pop("count", 0.0)
    row = {"step": float(progress.step), "skipped": float(progress.skipped)}
    row |= {name: total / count for name, total in sums.items()}
    row["rate"] = float(state.optimiser.param_groups[0]["lr"])
    if validation is not None:
        row["validation_loss"] = validation_loss(state.average, validation)
        _judge(state, row["validation_loss"])
    progress.history.append(row)
    if progress.ended is None and progress.step >= recipe.steps:
        progress.ended = "steps"


def _judge(state: TrainingState, loss: float) -> None:
    progress = state.progress
    if math.isfinite(loss) and (progress.best_loss is None or loss < progress.best_loss):
        progress.best_loss, progress.best_step, progress.since_best = loss, progress.step, 0
        state.best.load_state_dict(state.average.state_dict())
        return
    progress.since_best += 1
    if progress.since_best >= state.recipe.patience:
        progress.ended = "patience"


def validation_loss(parameters: MetaParameters, batch: EpisodeBatch) -> float:
    """The mean paired loss over all processes' streams of the batch."""
    shares, streams = distributed.share(batch), parameters.recipe.streams
    total = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for first in range(0, len(shares.x_support_TSD), streams):
            part = EpisodeBatch(*(tensor[first : first + streams] for tensor in shares))
            o_TQE = outer.query_outputs(parameters, part)
            total += outer.paired_loss(parameters, part, o_TQE).sum()
    return float(distributed.total(total)) / len(batch.x_support_TSD)


def _validation_batch(data: Data, recipe: Recipe) -> EpisodeBatch | None:
    if data.validation is None:
        return None
    generator = seeded(recipe.seed, "validation")
    return data.validation.draw(generator, recipe.validation_streams)
