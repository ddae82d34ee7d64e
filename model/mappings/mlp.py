"""The two-layer mapping f(x) = σo(W2·σ(W1·x + b1) + b2) as a pure function of its parameters.

B = streams in batch, N = pairs of a stream, D = source dim, H = hidden units, E = target dim

Parameters are always a `Mlp` of tensors: w1 (H, D), b1 (H), w2 (E, H), b2 (E) for one stream, the
same with a leading B for a batch of streams that each have their own. σ and σo are given by name;
"none" is the identity (as σ it makes a linear mapping, which θ itself never is).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Activation = Literal["relu", "gelu", "tanh", "sigmoid"]
AnyActivation = Literal["none", "relu", "gelu", "tanh", "sigmoid"]

_INV_SQRT_2 = 0.7071067811865476
_INV_SQRT_2PI = 0.3989422804014327


class Mlp(NamedTuple):
    """The parameters of one mapping, or of B mappings stacked along a leading axis."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor


def apply(
    mlp: Mlp, x_ND: Tensor, activation: AnyActivation, output_activation: AnyActivation = "none"
) -> Tensor:
    """Returns one mapping's outputs on N inputs (N, E)."""
    h_NH = sigma(activation)(x_ND @ mlp.w1.T + mlp.b1)
    return sigma(output_activation)(h_NH @ mlp.w2.T + mlp.b2)


def hidden_batched(mlp: Mlp, x_BND: Tensor) -> Tensor:
    """Returns z = W1·x + b1 of B mappings, each on its own N inputs (B, N, H)."""
    return torch.bmm(x_BND, mlp.w1.transpose(1, 2)) + mlp.b1.unsqueeze(1)


def output_batched(mlp: Mlp, h_BNH: Tensor) -> Tensor:
    """Returns a = W2·h + b2 of B mappings, before σo (B, N, E)."""
    return torch.bmm(h_BNH, mlp.w2.transpose(1, 2)) + mlp.b2.unsqueeze(1)


def apply_batched(
    mlp: Mlp, x_BND: Tensor, activation: AnyActivation, output_activation: AnyActivation = "none"
) -> Tensor:
    """Returns the outputs of B mappings, each on its own N inputs (B, N, E)."""
    h_BNH = sigma(activation)(hidden_batched(mlp, x_BND))
    return sigma(output_activation)(output_batched(mlp, h_BNH))


def expand(mlp: Mlp, streams: int) -> Mlp:
    """Returns the mapping once for each of `streams` streams, without copying."""
    return Mlp(*(tensor.expand(streams, *tensor.shape) for tensor in mlp))


def sigma(activation: AnyActivation) -> Callable[[Tensor], Tensor]:
    """Returns σ by its name."""
    return _SIGMA[activation]


def sigma_prime(activation: AnyActivation) -> Callable[[Tensor], Tensor]:
    """Returns σ′ by σ's name, as a differentiable function of z (second-order meta-training)."""
    return _SIGMA_PRIME[activation]


def _identity(z: Tensor) -> Tensor:
    return z


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


_SIGMA: dict[AnyActivation, Callable[[Tensor], Tensor]] = {
    "none": _identity,
    "relu": torch.relu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
_SIGMA_PRIME: dict[AnyActivation, Callable[[Tensor], Tensor]] = {
    "none": torch.ones_like,
    "relu": _relu_prime,
    "gelu": _gelu_prime,
    "tanh": _tanh_prime,
    "sigmoid": _sigmoid_prime,
}
