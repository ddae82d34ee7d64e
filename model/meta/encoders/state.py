"""An encoder training's whole state: nets, the best so far, the optimiser's moments, progress."""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite, log
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from model.meta.checkpoint import Checkpoint, copy_into
from model.meta.encoders.trainable import Trainable, trainable
from model.meta.state import Progress, moments, restore_moments
from model.theta.part import PartSpec
from model.values.errors import BadCheckpoint


class Nets(nn.Module):
    """The encoders in training, and the heads' penalty."""

    def __init__(self, source: PartSpec | None, target: PartSpec | None, penalty: float) -> None:
        """A side with None has no net. Raises BadMetaInit."""
        super().__init__()
        self.source: Trainable | None = None if source is None else trainable(source)
        self.target: Trainable | None = None if target is None else trainable(target)
        self.log_penalty = nn.Parameter(torch.tensor(log(penalty)))

    def specs(self) -> tuple[PartSpec | None, PartSpec | None]:
        """Source's and target's, rounded to float16."""
        return _rounded(self.source), _rounded(self.target)


class EncodersState:
    """All that the next step starts from; random numbers come from the seed and the step alone."""

    def __init__(
        self, nets: Nets, rate: float, weight_decay: float, log_penalty_rate: float
    ) -> None:
        self.nets = nets
        self.best = copy.deepcopy(nets)
        own = [p for n, p in nets.named_parameters() if n != "log_penalty"]
        penalty = {"params": [nets.log_penalty], "peak": log_penalty_rate, "weight_decay": 0.0}
        # biases and gains have one axis
        weights, others = [p for p in own if p.ndim > 1], [p for p in own if p.ndim <= 1]
        self.optimiser = AdamW(
            [
                {"params": weights, "peak": rate, "weight_decay": weight_decay},
                {"params": others, "peak": rate, "weight_decay": 0.0},
                penalty,
            ],
            lr=rate,
        )
        self.progress = Progress()

    def judge(self, loss: float, patience: int) -> None:
        """Keep the nets if none had a lower validation loss; end after `patience` that had not."""
        progress = self.progress
        if isfinite(loss) and (progress.best_loss is None or loss < progress.best_loss):
            progress.best_loss, progress.best_step, progress.since_best = loss, progress.step, 0
            self.best.load_state_dict(self.nets.state_dict())
            return
        progress.since_best += 1
        if progress.since_best >= patience:
            progress.ended = "patience"

    def checkpoint(self, identity: Mapping[str, Any]) -> Checkpoint:
        """All of it."""
        tensors = self._tensors() | moments("moment", self.optimiser)
        return Checkpoint(identity, asdict(self.progress), tensors)

    def restore(self, found: Checkpoint, where: str) -> None:
        """Take over what a checkpoint of the same identity holds. Raises BadCheckpoint."""
        copy_into(self._tensors(), found.tensors, where)
        restore_moments("moment", self.optimiser, found.tensors)
        try:
            self.progress = Progress(**found.progress)
        except TypeError as error:
            raise BadCheckpoint(f"{where}: progress is malformed: {error}") from error

    def _tensors(self) -> dict[str, Tensor]:
        nets = {"nets": self.nets, "best": self.best}
        return {f"{n}.{name}": t for n, net in nets.items() for name, t in net.state_dict().items()}


def _rounded(net: Trainable | None) -> PartSpec | None:
    return None if net is None else net.spec().rounded()
