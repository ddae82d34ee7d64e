"""What every contender is given: the same θ, rates and pairs; and what is right.

B = streams in batch, S = support pairs, Q = query pairs, D = source dim, H = hidden units,
E = target dim, K = inner steps

Everyone lowers the MSE (mean over S·E) of f(x) = W2·tanh(W1·x + b1) + b2 by K plain gradient steps
with a rate per step and tensor. Right is what autograd makes of one stream after another in
float64.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.inner import reference
from model.mappings.mlp import Mlp, apply
from model.theta.meta_init import fresh_meta_init

Tensors = tuple[Tensor, ...]

BIAS_SCALE = 0.1
"""θ's biases are normal with this deviation: with zeros a forgotten bias would not show."""
HEAD_RATE = 8.0
"""Times the rate of w2 and b2 that suits a fresh θ: enough to move them by some per cent."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts and dims of one problem; the defaults are about those of the emoji tenants."""

    streams: int = 16
    support: int = 32
    query: int = 32
    source_dim: int = 64
    hidden_dim: int = 128
    target_dim: int = 32
    inner_steps: int = 5


class Given(NamedTuple):
    """One problem. All pairs are real: windows are full."""

    theta: Mlp
    rates_K4: Tensor
    """Columns w1, b1, w2, b2; no two are equal, so that a rate in the wrong place shows."""
    x_BSD: Tensor
    y_BSE: Tensor
    x_BQD: Tensor
    y_BQE: Tensor

    @property
    def streams(self) -> int:
        """How many streams it has."""
        return len(self.x_BSD)

    def some(self, index: slice | list[int]) -> "Given":
        """Returns the problem of these streams alone."""
        return Given(self.theta, self.rates_K4, *(pairs[index] for pairs in self[2:]))

    def to(self, where: torch.dtype | torch.device) -> "Given":
        """Returns the same numbers as another type, or on another device."""
        return Given(Mlp(*(t.to(where) for t in self.theta)), *(t.to(where) for t in self[1:]))


def given(sizes: Sizes) -> Given:
    """Makes a problem by seed, float32, on the CPU: x and y standard normal, θ fresh, rates that
    shrink step by step and are stable."""
    g = np.random.Generator(np.random.SFC64(0))
    d, h, e = sizes.source_dim, sizes.hidden_dim, sizes.target_dim
    fresh = fresh_meta_init(d, e, h, sizes.inner_steps)
    theta = Mlp(*(torch.from_numpy(fresh.mapping[name]).clone() for name in Mlp._fields))
    for bias in (theta.b1, theta.b2):
        bias += BIAS_SCALE * _normal(g, len(bias))
    uneven_4 = torch.tensor([1.0, 0.9, HEAD_RATE, 0.9 * HEAD_RATE])
    shrinking_K1 = torch.linspace(1.0, 0.6, sizes.inner_steps).unsqueeze(1)
    rates_K4 = torch.from_numpy(fresh.learner.tensors["rates"]) * uneven_4 * shrinking_K1
    counts = (sizes.support, sizes.query)
    pairs = (_normal(g, sizes.streams, count, dim) for count in counts for dim in (d, e))
    return Given(theta, rates_K4, *pairs)


def _normal(g: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(g.standard_normal(shape, np.float32))  # thrice as fast as torch's


def right_weights(given: Given) -> Mlp:
    """Returns θ′ of every stream, float64, by `model.inner.reference`."""
    exact = given.to(torch.float64)
    streams = [
        reference.adapt_one_stream(exact.theta, exact.rates_K4, x_SD, y_SE, "tanh")
        for x_SD, y_SE in zip(exact.x_BSD, exact.y_BSE, strict=True)
    ]
    return Mlp(*(torch.stack(tensors) for tensors in zip(*streams, strict=True)))


def right_gradient(given: Given) -> Tensors:
    """Returns ∂/∂θ and ∂/∂rates of the mean over streams of the query MSE at θ′, float64, exact
    second order."""
    exact = given.to(torch.float64)
    leaves = [t.clone().requires_grad_() for t in (*exact.theta, exact.rates_K4)]
    total = [torch.zeros_like(t) for t in leaves]
    for x_SD, y_SE, x_QD, y_QE in zip(*exact[2:], strict=True):
        moved = reference.adapt_one_stream(Mlp(*leaves[:4]), leaves[4], x_SD, y_SE, "tanh")
        loss = (apply(moved, x_QD, "tanh") - y_QE).square().mean() / len(exact.x_BSD)
        total = [t + g for t, g in zip(total, torch.autograd.grad(loss, leaves), strict=True)]
    return tuple(total)


def disagreement(found: Tensors, right: Tensors) -> float:
    """Returns the largest difference, tensor by tensor, over the right tensor's largest number;
    NaN if any number is."""
    apart = [
        (a.detach().cpu().double() - b).abs().max() / b.abs().max()
        for a, b in zip(found, right, strict=True)
    ]
    return float(torch.stack(apart).max())
