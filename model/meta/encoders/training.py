"""Trains encoders on recorded streams, end to end through every stream's own head.

B = streams in batch, S = support pairs, Q = query pairs

    draw episodes of contents -> features -> heads on the support -> loss on the query -> gradients

and `model.meta.loop` does the rest. Source, target, or both; a side without a net keeps the
features it has. The result is a function of recipe, data and the specs that it starts from. Under
torchrun every process does all of it.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch

from model.meta import distributed
from model.meta.encoders.content_episodes import ContentBatch, Contents, episodes_of_features
from model.meta.encoders.nets import Nets, optimiser_of
from model.meta.encoders.stream_heads import HeadLoss
from model.meta.encoders.trainable import Pass
from model.meta.episodes import EpisodeBatch, EpisodeSizes
from model.meta.loop import run
from model.meta.progress import Progress, Saving, TrainingSchedule, seeded
from model.meta.state import TrainingState
from model.theta.part import PartSpec
from model.values.errors import BadData


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

    def schedule(self) -> TrainingSchedule:
        """Return how long the training goes on, and how its steps are taken."""
        return TrainingSchedule(
            self.steps,
            self.warm_up,
            self.max_gradient_norm,
            validate_every=self.validate_every,
            patience=self.patience,
            max_skipped=self.max_skipped,
        )


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
        training = _EncoderTraining(data, source, target, recipe)
        state, identity = training.state, _identity(data, source, target, recipe)
        judge = None if data.validation is None else training.validate
        run(state, recipe.schedule(), training.accumulate, judge, saving, identity, on_step)
        if distributed.world() > 1:  # to the bit, on whatever machines
            state.restore(state.to_bytes(identity), identity, "process 0")
        return TrainedEncoders(*state.result.specs(), state.progress)


class _EncoderTraining:
    """A training of encoders under way: its state, and where its gradients come from."""

    def __init__(
        self,
        data: Contents,
        source: PartSpec | None,
        target: PartSpec | None,
        recipe: EncodersRecipe,
    ) -> None:
        self._data, self._recipe = data, recipe
        nets = Nets(source, target, recipe.penalty)
        rates = (recipe.rate, recipe.weight_decay, recipe.log_penalty_rate)
        self.state = TrainingState(nets, optimiser_of(nets, *rates), name="encoders")
        self._loss = HeadLoss(target is not None, recipe.temperature, recipe.mse)
        # what is not trained comes to about unit size as well
        self._source_scale = data.source.scale() if source is None else 1.0
        self._target_scale = data.target.scale() if target is None else 1.0
        self._judged: ContentBatch | None = None
        if data.validation is not None:
            generator = seeded(recipe.seed, "encoder validation")
            self._judged = data.validation.draw(generator, recipe.validation_streams)

    def accumulate(self, step: int) -> dict[str, float]:
        """See `model.meta.loop.Accumulate`."""
        nets = self.state.module
        generator = seeded(self._recipe.seed, "encoder episodes", step)
        numbers = self._data.train.draw(generator, self._recipe.streams)
        batch, passes = self._episodes(nets, numbers)
        loss = self._loss(batch, numbers.same_target_BQQ, nets.log_penalty).mean()
        torch.autograd.backward(loss)
        for each in passes:
            each.backward()
        return {"outer_loss": loss.item()}

    @torch.no_grad()
    def validate(self, nets: Nets) -> dict[str, float]:
        """Return the mean loss of the validation episodes."""
        numbers, streams = self._judged, self._recipe.streams
        assert numbers is not None
        nets.eval()
        total = 0.0
        for first in range(0, len(numbers.real_support_BS), streams):
            part = ContentBatch(*(t[first : first + streams] for t in numbers))
            batch, _ = self._episodes(nets, part)
            total += float(self._loss(batch, part.same_target_BQQ, nets.log_penalty).sum())
        nets.train()
        return {"validation_loss": total / len(numbers.real_support_BS)}

    def _episodes(self, nets: Nets, numbers: ContentBatch) -> tuple[EpisodeBatch, list[Pass]]:
        source = nets.source or self._source_scale
        return episodes_of_features(self._data, numbers, source, nets.target or self._target_scale)


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
