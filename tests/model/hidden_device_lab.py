"""What the tests of hidden space's device forms share: ragged chunks of streams, and how far apart.

B = streams in batch, S = support pairs, N = pairs of a stream (S + Q), D = source dim, H = hidden
units, E = target dim, K = inner steps
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.hidden.descent import Descent
from model.inner.hidden.projected import Projected, Terms, project, terms
from model.losses import MSE, Loss
from model.mappings.mlp import AnyActivation, Mlp

D, E, Q = 20, 12, 3
ACTIVATIONS: tuple[AnyActivation, ...] = ("relu", "gelu", "tanh", "sigmoid")


class Shape(NamedTuple):
    streams: int = 3
    support: int = 16
    units: int = 32
    steps: int = 3


class Problem(NamedTuple):
    """The arguments of `descend`."""

    terms: Terms
    projected: Projected
    rates_K4: Tensor
    objective: Objective


def problem(
    shape: Shape,
    activation: AnyActivation = "tanh",
    loss: Loss = MSE,
    seed: int = 0,
    device: str = "cpu",
) -> Problem:
    """Real pairs anywhere, few in some streams; every rate another. θ and rates depend on `seed`
    alone, given H and K."""
    g = torch.Generator().manual_seed(seed)

    def numbers(*size: int) -> Tensor:
        return torch.randn(size, generator=g).to(device)

    h, pairs = shape.units, shape.support + Q
    theta = Mlp(numbers(h, D) / D**0.5, numbers(h) / 3, numbers(E, h) / h**0.5, numbers(E) / 3)
    made = terms(theta)
    rates_K4 = 0.05 + 0.3 * torch.rand(shape.steps, 4, generator=g).to(device)
    share_B1 = torch.rand(shape.streams, 1, generator=g)
    real_BN = (torch.rand(shape.streams, pairs, generator=g) < share_B1).to(device)
    x_BND, y_BNE = (numbers(shape.streams, pairs, dim) for dim in (D, E))
    projected = project(made, x_BND, y_BNE, real_BN, shape.support)
    return Problem(made, projected, rates_K4, Objective(loss, activation, "none"))


def parts_of(descent: Descent) -> list[Tensor]:
    return [descent.a_BSH, descent.beta_BH, *descent.head[:3]]


def farthest(got: Descent, wanted: Descent) -> float:
    """The largest difference, over the largest number of its tensor."""
    assert torch.equal(got.healthy_B, wanted.healthy_B)
    return max(
        ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-3)).item()
        for ours, theirs in zip(parts_of(got), parts_of(wanted), strict=True)
    )
