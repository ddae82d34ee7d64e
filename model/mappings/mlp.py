"""The two-layer mapping f(x) = W2·σ(W1·x + b1) + b2 as a pure function of its parameters.

B = streams in batch, N = pairs, D = source dim, H = hidden, E = target dim

Parameters are always a `Mlp` of tensors: w1 (H, D), b1 (H), w2 (E, H), b2 (E) for one stream, the
same with a leading B for a batch of streams that each have their own.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Activation = Literal["relu", "gelu", "tanh", "sigmoid"]

_INV_SQRT_2 = 0.7071067811865476
_INV_SQRT_2PI = 0.3989422804014327


class Mlp(NamedTuple):
    """The parameters of one mapping, or of B mappings stacked along a leading axis."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor


def apply(mlp: Mlp, x_ND: Tensor, activation: Activation) -> Tensor:
    """One mapping on N inputs: (N, E)."""
    return sigma(activation)(x_ND @ mlp.w1.T + mlp.b1) @ mlp.w2.T + mlp.b2


def hidden_batched(mlp: Mlp, x_BND: Tensor) -> Tensor:
    """z = W1·x + b1 of B mappings, each on its own N inputs: (B, N, H)."""
    return torch.bmm(x_BND, mlp.w1.transpose(1, 2)) + mlp.b1.unsqueeze(1)


def output_batched(mlp: Mlp, h_BNH: Tensor) -> Tensor:
    """o = W2·h + b2 of B mappings: (B, N, E)."""
    return torch.bmm(h_BNH, mlp.w2.transpose(1, 2)) + mlp.b2.unsqueeze(1)


def apply_batched(mlp: Mlp, x_BND: Tensor, activation: Activation) -> Tensor:
    """B mappings, each on its own N inputs: (B, N, E)."""
    return output_batched(mlp, sigma(activation)(hidden_batched(mlp, x_BND)))


def expand(mlp: Mlp, streams: int) -> Mlp:
    """The same mapping for every one of `streams` streams, without copying."""
    return Mlp(*(tensor.expand(streams, *tensor.shape) for tensor in mlp))


def sigma(activation: Activation) -> Callable[[Tensor], Tensor]:
    """σ by name."""
    return _SIGMA[activation]


def sigma_prime(activation: Activation) -> Callable[[Tensor], Tensor]:
    """σ′ by name, as a function of z; itself differentiable, for second-order meta-training."""
    return _SIGMA_PRIME[activation]


def _relu_prime(z: Tensor) -> Tensor:
    return (z > 0).to(z.dtype)


def _gelu_prime(z: Tensor) -> Tensor:
    cdf = 0.5 * (1.0 + torch.erf(z * _INV_SQRT_2))
    return cdf + z * _INV_SQRT_2PI * torch.exp(-0.5 * z.square())


def _tanh_prime(z: Tensor) -> Tensor:
    return 1.0 - torch.tanh(z).square()


def _sigmoid_prime(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1.0 - s)


_SIGMA: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
_SIGMA_PRIME: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": _relu_prime,
    "gelu": _gelu_prime,
    "tanh": _tanh_prime,
    "sigmoid": _sigmoid_prime,
}
