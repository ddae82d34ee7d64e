"""The outer loop of every training: of θ, of generators and of encoders.

    rates -> gradients -> clip -> step -> average
    every so often: validate the average, keep the best, write a checkpoint

What is learned, and where its gradients come from, is the caller's: `accumulate` draws a batch and
adds gradients, `validate` judges. A training that was killed at any moment and continued from its
checkpoint gives the same bytes as one that was not, on the same machine with as many threads and
processes, where `accumulate` is a function of the step alone.
"""

import math
import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from model.meta.progress import Progress, Saving, TrainingSchedule, cosine
from model.meta.state import M, TrainingState
from model.values.errors import Diverged

Accumulate = Callable[[int], Mapping[str, float]]
"""Takes the number of steps done, adds the next step's gradients to the parameters' and returns the
step's figures; the step has no effect unless all of them are finite."""
Validate = Callable[[M], Mapping[str, float]]


def run(
    state: TrainingState[M],
    schedule: TrainingSchedule,
    accumulate: Accumulate,
    validate: Validate[M] | None = None,
    saving: Saving | None = None,
    identity: Mapping[str, object] | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Train until the steps are done, the time is over, or validation no longer gets better.

    Continues from the checkpoint `saving.path` where there is one of the same `identity`.
    `validate` returns figures of the module that it is given, "validation_loss" among them.
    `on_step` is called after every step, and before the first one where there is validation. Raises
    BadCheckpoint when the checkpoint cannot be read or is of another identity, Diverged when too
    many steps in a row are not finite.
    """
    if saving is not None:
        state.take_over(saving.path, identity or {})
    begun = time.monotonic()
    state.progress.steps = schedule.steps
    if validate is not None and not state.progress.history:
        _close_row(state, schedule, validate)
        on_step(state.progress)
    while state.progress.ended is None:
        passed = 0.0 if schedule.minutes is None else _share(begun, schedule.minutes)
        _one_step(state, schedule, accumulate, passed)
        if passed >= 1.0:
            state.progress.ended = "time"
        elif state.progress.step == schedule.steps:
            state.progress.ended = "steps"
        if state.progress.step % schedule.validate_every == 0 or state.progress.ended is not None:
            _close_row(state, schedule, validate)
        if saving is not None and state.progress.is_due(saving):
            state.save(saving.path, identity or {})
        on_step(state.progress)


def _one_step(
    state: TrainingState[M], schedule: TrainingSchedule, accumulate: Accumulate, passed: float
) -> None:
    """Make one step, unless a figure or the gradient is not finite. `passed` is the share of the
    time that is over."""
    progress = state.progress
    state.set_rates(cosine(min(1.0, max(progress.step / schedule.steps, passed)), schedule.warm_up))
    state.optimiser.zero_grad()
    figures = dict(accumulate(progress.step))
    norm = nn.utils.clip_grad_norm_(state.learned, schedule.max_gradient_norm)
    figures["gradient_norm"] = norm.item()
    finite = all(map(math.isfinite, figures.values()))
    if finite:
        state.optimiser.step()
        if schedule.averaging is not None:
            _move_average(state, schedule.averaging)
    progress.step += 1
    if finite:
        progress.count(figures)
        return
    progress.skip()
    if progress.skipped_in_a_row >= schedule.max_skipped:
        raise Diverged(
            f"{progress.skipped_in_a_row} outer steps in a row, up to step {progress.step} of "
            f"{schedule.steps}, gave no finite loss and gradient ({figures}): "
            "lower the rates, or take fewer inner steps"
        )


def _move_average(state: TrainingState[M], averaging: float) -> None:
    """Move the average towards the parameters: as a plain mean at first, so that short trainings
    do not stick to where they began."""
    weight = max(averaging, 1.0 / (state.progress.step - state.progress.skipped + 1))
    with torch.no_grad():
        pairs = zip(state.average.parameters(), state.module.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast.detach(), weight)


def _close_row(
    state: TrainingState[M], schedule: TrainingSchedule, validate: Validate[M] | None
) -> None:
    """Close the row of history, validate the average, keep it if it is the best, and end the
    training where it no longer gets better."""
    progress = state.progress
    row = progress.close_row()
    row["rate"] = float(state.optimiser.param_groups[0]["lr"])
    if validate is not None:
        row |= validate(state.average)
        state.judge(row["validation_loss"], schedule.patience)


def _share(begun: float, minutes: float) -> float:
    return (time.monotonic() - begun) / (60.0 * minutes)
