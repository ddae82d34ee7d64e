"""Meta-training of θ: outer steps over a source of episodes, until they no longer help.

B = streams in batch, S = support pairs, Q = query pairs, D = source dim, E = target dim

    draw -> share -> outer gradient -> sum over processes -> clip -> step -> average
    every so often: validate the average, keep the best, write a checkpoint

The result is a function of recipe, data, parent and the inner loop's form: a training that was
killed at any moment and continued from its checkpoint gives the same bytes as one that was not, on
the same machine with as many threads and processes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.inner.cost_rule import Form
from model.meta import adversary, distributed, outer
from model.meta.checkpoint import (
    Checkpoint,
    check_identity,
    read_checkpoint,
    write_checkpoint,
)
from model.meta.episodes import EpisodeBatch, EpisodeSource
from model.meta.parameters import MetaParameters
from model.meta.progress import Progress, Saving, cosine, seeded
from model.meta.recipe import Recipe
from model.meta.state import TrainingState
from model.theta.meta_init import MetaInit, canonical_json
from model.values.errors import BadData, Diverged


@dataclass(frozen=True, slots=True)
class Data:
    """Episodes to train on, and to validate on."""

    train: EpisodeSource
    validation: EpisodeSource | None = None
    """None: no validation; all steps are done, and the last average is the result."""
    identity: Mapping[str, str] | None = None
    """What tells this data from other data in a checkpoint: content hashes, for example."""


@dataclass(frozen=True, slots=True)
class MetaTrained:
    """The result of a meta-training."""

    parameters: MetaParameters
    """The averaged parameters that validated best; without validation the last ones."""
    progress: Progress


def train_theta(
    data: Data,
    recipe: Recipe,
    parent: MetaInit | None = None,
    saving: Saving | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    form: Form = "auto",
) -> MetaTrained:
    """Meta-train from scratch or from `parent`; continue from the checkpoint `saving.path` where
    there is one.

    `on_step` is called after every step. `form` is the form of the inner loop: the two agree to
    rounding, so a training gives about the same in either, though not the same bytes. Raises
    BadData when dims of the sources (or the parent) differ, BadCheckpoint when the checkpoint
    cannot be read or is of another recipe, data, parent or form, Diverged when too many steps in a
    row are not finite.
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
        if saving is not None and state.progress.is_due(saving):
            _save(state, saving.path, identity)
        on_step(state.progress)
    return MetaTrained(state.average if validation is None else state.best, state.progress)


def facts_of(trained: MetaTrained) -> dict[str, str]:
    """Return how θ was trained as facts for its file: the recipe with its seed, and the outcome."""
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
    here = read_checkpoint(path) if distributed.rank() == 0 else None
    found = distributed.from_rank_0(here)
    if found is not None:
        checkpoint = Checkpoint.from_bytes(found, str(path))
        check_identity(checkpoint.identity, identity, str(path))
        state.restore(checkpoint, str(path))


def _save(state: TrainingState, path: Path, identity: Mapping[str, object]) -> None:
    if distributed.rank() == 0:
        write_checkpoint(path, state.checkpoint(identity).to_bytes())


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
        progress.count(figures)
        return
    progress.skip()
    if progress.skipped_in_a_row >= recipe.max_skipped:
        raise Diverged(
            f"{progress.skipped_in_a_row} outer steps in a row, up to step {progress.step} of "
            f"{recipe.steps}, gave no finite loss and gradient ({figures}): "
            "lower the rates, or take fewer inner steps"
        )


def _update(state: TrainingState, batch: EpisodeBatch) -> dict[str, float]:
    """Make one step of everything that learns, unless its loss or gradient is not finite. Return
    the step's figures."""
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
    """Make the discriminator's step on the outputs as they are, then add the outer gradient against
    it. Return the losses, scalars."""
    recipe, discriminator = state.recipe, state.discriminator
    assert discriminator is not None
    assert state.discriminator_optimiser is not None
    here = len(batch.x_support_BSD) > 0
    zero = torch.zeros(())
    o_BQE = outer.adapted_outputs(state.parameters, batch) if here else zero
    state.discriminator_optimiser.zero_grad()
    loss = zero
    if here:
        loss = outer.accumulate_discriminator(
            discriminator, batch, o_BQE, recipe.streams, recipe.adversary.penalty
        )
    loss = distributed.sum_gradients(discriminator.parameters(), loss.view(1))[0]
    if bool(torch.isfinite(loss)):
        state.discriminator_optimiser.step()
    weight = adversary.weight_at(state.progress.step / recipe.steps, recipe)
    paired = adversarial = zero
    if here:
        paired, adversarial = outer.accumulate_against(
            state.parameters, discriminator, batch, o_BQE, recipe.streams, weight
        )
    # every process knows the whole discriminator loss: its share of it adds up to it again
    share = loss / distributed.world()
    return {"outer_loss": paired, "adversarial_loss": adversarial, "discriminator_loss": share}


def _move_average(state: TrainingState) -> None:
    """Move the average towards the parameters: as a plain mean at first, so that short trainings
    do not stick to where they began."""
    weight = max(state.recipe.averaging, 1.0 / (state.progress.step - state.progress.skipped + 1))
    pairs = zip(state.average.parameters(), state.parameters.parameters(), strict=True)
    for slow, fast in pairs:
        slow.lerp_(fast.detach(), weight)


def _close_row(state: TrainingState, validation: EpisodeBatch | None) -> None:
    """Close the row of history, validate the average, keep it if it is the best, and end the
    training where it is over."""
    progress, recipe = state.progress, state.recipe
    row = progress.close_row()
    row["rate"] = float(state.optimiser.param_groups[0]["lr"])
    if validation is not None:
        row["validation_loss"] = validation_loss(state.average, validation)
        if progress.judge(row["validation_loss"], recipe.patience):
            state.best.load_state_dict(state.average.state_dict())
    if progress.ended is None and progress.step >= recipe.steps:
        progress.ended = "steps"


def validation_loss(parameters: MetaParameters, batch: EpisodeBatch) -> float:
    """Return the mean paired loss over the batch's streams, those of all processes."""
    shares, streams = distributed.share(batch), parameters.recipe.streams
    total = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for first in range(0, len(shares.x_support_BSD), streams):
            part = EpisodeBatch(*(tensor[first : first + streams] for tensor in shares))
            o_BQE = outer.adapted_outputs(parameters, part)
            total += outer.paired_loss(parameters, part, o_BQE).sum()
    return float(distributed.total(total)) / len(batch.x_support_BSD)


def _validation_batch(data: Data, recipe: Recipe) -> EpisodeBatch | None:
    if data.validation is None:
        return None
    generator = seeded(recipe.seed, "validation")
    return data.validation.draw(generator, recipe.validation_streams)
