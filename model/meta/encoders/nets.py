"""What a training of encoders learns: the nets and the heads' penalty, and their optimiser."""

from math import log

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from model.meta.encoders.trainable import Trainable, trainable
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


def optimiser_of(
    nets: Nets, rate: float, weight_decay: float, log_penalty_rate: float
) -> Optimizer:
    """Return AdamW with these peak rates, without decay for biases, gains and λ."""
    own = [p for n, p in nets.named_parameters() if n != "log_penalty"]
    # biases and gains have one axis
    weights, others = [p for p in own if p.ndim > 1], [p for p in own if p.ndim <= 1]
    return AdamW(
        [
            {"params": weights, "lr": rate, "weight_decay": weight_decay},
            {"params": others, "lr": rate, "weight_decay": 0.0},
            {"params": [nets.log_penalty], "lr": log_penalty_rate, "weight_decay": 0.0},
        ]
    )


def _rounded(net: Trainable | None) -> PartSpec | None:
    return None if net is None else net.spec().rounded()
