"""Trains encoders on recorded streams, end to end through every stream's own head.

B = streams in batch, S = support pairs, Q = query pairs

    draw episodes of contents -> features -> heads on the support -> loss on the query -> gradients
    every so often: validate on streams of their own, keep the best, write a checkpoint

Source, target, or both; a side without a net keeps the features it has. The result is a function of
recipe, data and the specs that it starts from: a training that was killed and continued gives the
same bytes, on the same machine with as many threads. Under torchrun every process does all of it.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from model.meta import distributed
from model.meta.checkpoint import (
    Checkpoint,
    check_identity,
    read_checkpoint,
    write_checkpoint,
)
from model.meta.encoders.content_episodes import ContentBatch, Contents, episodes_of_features
from model.meta.encoders.state import EncodersState, Nets
from model.meta.encoders.stream_heads import HeadLoss
from model.meta.encoders.trainable import Pass
from model.meta.episodes import EpisodeBatch, EpisodeSizes
from model.meta.progress import Progress, Saving, cosine, seeded
from model.theta.part import PartSpec
from model.values.errors import BadData, Diverged


@dataclass(frozen=True, slots=True)
class EncodersRecipe:
    """How encoders are trained; with the data and the specs to start from it decides the result."""

    steps: int = 1_000
    """The most steps; validation may stop the training earlier."""
    streams: int = 8
    min_support: int = 3
    max_support: int = 16
    query: int = 16
    temperature: float = 0.1
    mse: float = 1.0
    """The weight of the mse beside infonce, where targets are given."""
    penalty: float = 0.1
    """Initial value of the heads' λ, for features of unit norm."""
    rate: float = 2e-3
    """Peak learning rate (AdamW)."""
    log_penalty_rate: float = 2e-2
    weight_decay: float = 0.02
    warm_up: float = 0.05
    max_gradient_norm: float = 1.0
    validate_every: int = 25
    validation_streams: int = 32
    """Episodes that validation judges on, the same ones every time."""
    patience: int = 12
    """How many validations without a new best end the training."""
    max_skipped: int = 10
    """The number of steps in a row without a finite loss and gradient that ends the training."""
    threads: int = 1
    """Threads of torch while it trains: sums, and so the last bits, depend on them."""
    seed: int = 0

    def episode_sizes(self, temporal: bool = False) -> EpisodeSizes:
        """Return the sizes of an episode. Raises ValueError where they do not fit together."""
        return EpisodeSizes(self.min_support, self.max_support, self.query, temporal)


class TrainedEncoders(NamedTuple):
    """The encoders that validated best, rounded to float16; None for a side that was not
    trained."""

    source: PartSpec | None
    target: PartSpec | None
    progress: Progress


def train_encoders(
    data: Contents,
    source: PartSpec | None,
    target: PartSpec | None,
    recipe: EncodersRecipe,
    saving: Saving | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> TrainedEncoders:
    """Train the encoders that the specs describe, from the specs' weights. A side with None is not
    trained: its contents are feature vectors of one dim.

    Continues from the checkpoint `saving.path` where there is one; `on_step` is called after every
    step. Raises BadData when no side is to be trained, BadMetaInit for an encoder that cannot be,
    BadCheckpoint when the checkpoint cannot be read or is of other data or another recipe, Diverged
    when too many steps in a row are not finite.
    """
    if source is None and target is None:
        raise BadData("neither source nor target has an encoder to train")
    with _threads(recipe.threads):
        training = _Training(data, source, target, recipe)
        if saving is not None:
            training.take_over(read_checkpoint(saving.path), str(saving.path))
        while training.progress.ended is None:
            training.one_step()
            if saving is not None and training.progress.is_due(saving):
                training.save(saving.path)
            on_step(training.progress)
        if distributed.world() > 1:  # to the bit, on whatever machines
            training.take_over(training.checkpoint().to_bytes(), "process 0")
        return TrainedEncoders(*training.result().specs(), training.progress)


class _Training:
    """A training under way: its state, and what does not change."""

    def __init__(
        self,
        data: Contents,
        source: PartSpec | None,
        target: PartSpec | None,
        recipe: EncodersRecipe,
    ) -> None:
        self._data, self._recipe = data, recipe
        nets = Nets(source, target, recipe.penalty)
        self._state = EncodersState(nets, recipe.rate, recipe.weight_decay, recipe.log_penalty_rate)
        self._identity = _identity(data, source, target, recipe)
        self._loss = HeadLoss(target is not None, recipe.temperature, recipe.mse)
        # what is not trained comes to about unit size as well
        self._source_scale = data.source.scale() if source is None else 1.0
        self._target_scale = data.target.scale() if target is None else 1.0
        self._judged = None
        if data.validation is not None:
            generator = seeded(recipe.seed, "encoder validation")
            self._judged = data.validation.draw(generator, recipe.validation_streams)
            self._close_row()

    @property
    def progress(self) -> Progress:
        """Where the training stands."""
        return self._state.progress

    def result(self) -> Nets:
        """Return the nets that validated best; without validation the last ones."""
        return self._state.nets if self._judged is None else self._state.best

    def checkpoint(self) -> Checkpoint:
        """Return the state as a checkpoint."""
        return self._state.checkpoint(self._identity)

    def save(self, path: Path) -> None:
        """Write the checkpoint, in process 0 alone."""
        if distributed.rank() == 0:
            write_checkpoint(path, self.checkpoint().to_bytes())

    def take_over(self, here: bytes | None, where: str) -> None:
        """Restore the checkpoint that process 0 passes, if it passes any. Raises BadCheckpoint."""
        found = distributed.from_rank_0(here)
        if found is not None:
            checkpoint = Checkpoint.from_bytes(found, where)
            check_identity(checkpoint.identity, self._identity, where)
            self._state.restore(checkpoint, where)

    def one_step(self) -> None:
        """Make one step. Raises Diverged when too many in a row were not finite."""
        recipe, progress, nets = self._recipe, self.progress, self._state.nets
        generator = seeded(recipe.seed, "encoder episodes", progress.step)
        numbers = self._data.train.draw(generator, recipe.streams)
        factor = cosine(progress.step / recipe.steps, recipe.warm_up)
        for group in self._state.optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        loss, norm = self._accumulate(nets, numbers)
        progress.step += 1
        if math.isfinite(loss) and math.isfinite(norm):
            self._state.optimiser.step()
            progress.count({"outer_loss": loss})
        else:
            self._skip(loss, norm)
        if progress.step % recipe.validate_every == 0 or progress.step == recipe.steps:
            self._close_row()

    def _accumulate(self, nets: Nets, numbers: ContentBatch) -> tuple[float, float]:
        """Put the loss's gradients into the nets' parameters. Return loss and gradient norm."""
        self._state.optimiser.zero_grad()
        batch, passes = self._episodes(nets, numbers)
        loss = self._loss(batch, numbers.same_target_BQQ, nets.log_penalty).mean()
        torch.autograd.backward(loss)
        for each in passes:
            each.backward()
        norm = torch.nn.utils.clip_grad_norm_(nets.parameters(), self._recipe.max_gradient_norm)
        return loss.item(), norm.item()

    def _episodes(self, nets: Nets, numbers: ContentBatch) -> tuple[EpisodeBatch, list[Pass]]:
        source = nets.source or self._source_scale
        return episodes_of_features(self._data, numbers, source, nets.target or self._target_scale)

    def _skip(self, loss: float, norm: float) -> None:
        progress = self.progress
        progress.skip()
        if progress.skipped_in_a_row >= self._recipe.max_skipped:
            raise Diverged(
                f"{progress.skipped_in_a_row} steps of encoder training in a row, up to step "
                f"{progress.step} of {self._recipe.steps}, were not finite "
                f"(loss {loss}, gradient norm {norm}): lower the rate"
            )

    def _close_row(self) -> None:
        progress = self.progress
        row = progress.close_row()
        if self._judged is not None:
            row["validation_loss"] = self._validation_loss(self._judged)
            self._state.judge(row["validation_loss"], self._recipe.patience)
        if progress.ended is None and progress.step >= self._recipe.steps:
            progress.ended = "steps"

    @torch.no_grad()
    def _validation_loss(self, numbers: ContentBatch) -> float:
        nets = self._state.nets.eval()
        total = 0.0
        for first in range(0, len(numbers.real_support_BS), self._recipe.streams):
            part = ContentBatch(*(t[first : first + self._recipe.streams] for t in numbers))
            batch, _ = self._episodes(nets, part)
            total += float(self._loss(batch, part.same_target_BQQ, nets.log_penalty).sum())
        nets.train()
        return total / len(numbers.real_support_BS)


def _identity(
    data: Contents, source: PartSpec | None, target: PartSpec | None, recipe: EncodersRecipe
) -> dict[str, object]:
    """Return what a checkpoint of this training belongs to, JSON-like."""
    return {
        "recipe": asdict(recipe),
        "source": None if source is None else _begins(source),
        "target": None if target is None else _begins(target),
        "contents": [data.source.content_hash, data.target.content_hash],
        "train": data.train.content_hash,
        "validation": None if data.validation is None else data.validation.content_hash,
    }


def _begins(spec: PartSpec) -> dict[str, object]:
    digest = hashlib.sha256()
    for name in sorted(spec.tensors):
        digest.update(name.encode() + np.ascontiguousarray(spec.tensors[name]).tobytes())
    return {**spec.config, "weights": digest.hexdigest()}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
