"""The two-layer mapping in numpy alone: for readers, scores and tests, where torch is too much.

N = pairs of a stream, D = source dim, H = hidden units, E = target dim
"""

import math
from collections.abc import Mapping

import numpy as np

from model.theta.meta_init import OutputActivation
from model.values.arrays import FloatArray

_erf = np.vectorize(math.erf, otypes=[np.float32])


def apply_numpy(
    tensors: Mapping[str, FloatArray],
    x_ND: FloatArray,
    activation: OutputActivation,
    output_activation: OutputActivation = "none",
) -> FloatArray:
    """Returns f(x) = σo(W2·σ(W1·x + b1) + b2) on N inputs (N, E); equals torch's to rounding.

    With "none" for σ it is a linear mapping.
    """
    h_NH = activated(x_ND @ tensors["w1"].T + tensors["b1"], activation)
    return activated(h_NH @ tensors["w2"].T + tensors["b2"], output_activation)


def activated(z: FloatArray, activation: OutputActivation) -> FloatArray:
    """Returns an activation's values at these numbers, in the same shape."""
    match activation:
        case "none":
            return z
        case "relu":
            return np.maximum(z, 0)
        case "gelu":
            return np.asarray(0.5 * z * (1.0 + _erf(z * math.sqrt(0.5))), np.float32)
        case "tanh":
            return np.tanh(z)
        case "sigmoid":
            return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)), np.float32)
