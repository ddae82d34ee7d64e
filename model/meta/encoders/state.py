"""The whole state of a training of encoders: nets, the best so far, optimiser and progress."""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from model.meta.checkpoint import Checkpoint, copy_into, optimiser_tensors, restore_optimiser
from model.meta.encoders.trainable import Trainable, trainable
from model.meta.progress import Progress
from model.theta.part import PartSpec


class Nets(nn.Module):
    """The encoders in training, and the logarithm of the heads' penalty λ."""

    def __init__(self, source: PartSpec | None, target: PartSpec | None, penalty: float) -> None:
        """Build nets with the weights of these specs; a side with None has no net. Raises
        BadMetaInit for a spec that cannot be trained."""
        super().__init__()
        self.source: Trainable | None = None if source is None else trainable(source)
        self.target: Trainable | None = None if target is None else trainable(target)
        self.log_penalty = nn.Parameter(torch.tensor(log(penalty)))

    def specs(self) -> tuple[PartSpec | None, PartSpec | None]:
        """Return the specs of source and target, rounded to float16; None for a side without a
        net."""
        return _rounded(self.source), _rounded(self.target)


class EncodersState:
    """Everything that the next step starts from; random numbers come from the seed and the step
    alone."""

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
        """Keep the nets if their validation loss is the lowest so far; end the training after
        `patience` validations without a new best."""
        if self.progress.judge(loss, patience):
            self.best.load_state_dict(self.nets.state_dict())

    def checkpoint(self, identity: Mapping[str, Any]) -> Checkpoint:
        """Return the whole state as a checkpoint of the training with this identity."""
        tensors = self._tensors() | optimiser_tensors("moment", self.optimiser)
        return Checkpoint(identity, asdict(self.progress), tensors)

    def restore(self, found: Checkpoint, where: str) -> None:
        """Take over the state that a checkpoint of the same identity holds. Raises
        BadCheckpoint."""
        copy_into(self._tensors(), found.tensors, where)
        restore_optimiser("moment", self.optimiser, found.tensors)
        self.progress = found.progress_at(where)

    def _tensors(self) -> dict[str, Tensor]:
        nets = {"nets": self.nets, "best": self.best}
        return {f"{n}.{name}": t for n, net in nets.items() for name, t in net.state_dict().items()}


def _rounded(net: Trainable | None) -> PartSpec | None:
    return None if net is None else net.spec().rounded()
