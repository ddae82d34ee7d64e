"""A mapping of any depth as a pure function of its parameters.

B = streams in batch, N = pairs, D = source dim, E = target dim, I, O = a layer's inputs, outputs

    h_0 = x,  z_l = W_l·h_{l−1} + b_l,  h_l = σ(z_l),  f(x) = z_L  (no σ after the last layer)

Parameters are always `Layers`, a tuple of (w, b): w (O, I), b (O) for one mapping, the same with
a leading B for a batch of streams that each have their own. With two layers it is
`model.mappings.mlp`.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.mappings.mlp import Activation, sigma


class Layer(NamedTuple):
    """One affine layer, or those of B streams stacked along a leading axis."""

    w: Tensor
    b: Tensor


Layers = tuple[Layer, ...]


def apply(layers: Layers, x_ND: Tensor, activation: Activation) -> Tensor:
    """One mapping on inputs (..., D), so also one θ on every stream's inputs: (..., E)."""
    h_NI = x_ND
    for layer in layers[:-1]:
        h_NI = sigma(activation)(h_NI @ layer.w.T + layer.b)
    return h_NI @ layers[-1].w.T + layers[-1].b


def apply_batched(layers: Layers, x_BND: Tensor, activation: Activation) -> Tensor:
    """B mappings, each on its own N inputs: (B, N, E)."""
    h_BNI = x_BND
    for layer in layers[:-1]:
        h_BNI = sigma(activation)(affine_batched(layer, h_BNI))
    return affine_batched(layers[-1], h_BNI)


def affine_batched(layer: Layer, h_BNI: Tensor) -> Tensor:
    """z = W·h + b of B streams, each with its own layer: (B, N, O)."""
    return torch.baddbmm(layer.b.unsqueeze(1), h_BNI, layer.w.transpose(1, 2))


def expand(layers: Layers, streams: int) -> Layers:
    """The same mapping for every one of `streams` streams, without copying."""
    return layered([tensor.expand(streams, *tensor.shape) for tensor in flat(layers)])


def flat(layers: Layers) -> tuple[Tensor, ...]:
    """w_1, b_1, w_2, b_2, ...: what optimisers and `model.inner.deep` take."""
    return tuple(tensor for layer in layers for tensor in layer)


def layered(tensors: Sequence[Tensor]) -> Layers:
    """The inverse of `flat`. Raises ValueError when a tensor is missing or left over."""
    return tuple(Layer(w, b) for w, b in zip(tensors[0::2], tensors[1::2], strict=True))


def fresh(dims: Sequence[int], generator: torch.Generator, deviation: float = 0.01) -> Layers:
    """Weights normal with this standard deviation, cut off at two of them, and no biases: as the
    code of Finn et al. (2017) starts its regressor. `dims` are D, the hidden sizes, E."""
    bound = 2.0 * deviation
    layers = tuple(
        Layer(torch.empty(outputs, inputs), torch.zeros(outputs))
        for inputs, outputs in itertools.pairwise(dims)
    )
    for layer in layers:
        torch.nn.init.trunc_normal_(layer.w, 0.0, deviation, -bound, bound, generator=generator)
    return layers
