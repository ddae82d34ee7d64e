"""Ragged episodes to arrays of fixed shape with masks, and θ to a shape that keeps bits.

B = streams in batch (a chunk), N = pairs of a stream (capacity), S = support pairs, Q = query
pairs, D = source dim, H = hidden units, E = target dim

A matrix product may sum in another order when a matrix starts elsewhere in a cache line. With N
and H multiples of `ALIGNMENT`, every stream's matrices (N × anything, H × anything) start at one,
wherever the stream stands in the chunk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.theta.meta_init import Activation
from model.values.arrays import ALIGNMENT, FloatArray, aligned
from model.values.episode import Episode


@dataclass(frozen=True, slots=True)
class PackedPairs:
    """Pairs of B streams, each padded to the same number N; `real_BN` is true on real pairs."""

    x_BND: FloatArray
    y_BNE: FloatArray
    real_BN: NDArray[np.bool_]


def pack_pairs(
    pairs: Sequence[tuple[FloatArray, FloatArray]], rows: int, capacity: int, dims: tuple[int, int]
) -> PackedPairs:
    """Stacks the (x_ND, y_NE) of each stream into `rows` rows; rows left over hold no pairs.

    N is `capacity`, aligned.
    Raises ValueError when a stream has more than `capacity` pairs or other dims.
    """
    source_dim, target_dim = dims
    x_BND = np.zeros((rows, aligned(capacity), source_dim), np.float32)
    y_BNE = np.zeros((rows, aligned(capacity), target_dim), np.float32)
    real_BN = np.zeros((rows, aligned(capacity)), np.bool_)
    for row, (x_ND, y_NE) in enumerate(pairs):
        n = len(x_ND)
        if x_ND.shape != (n, source_dim) or y_NE.shape != (n, target_dim):
            raise ValueError(f"pairs of shapes {x_ND.shape}, {y_NE.shape}, not of dims {dims}")
        if n > capacity:
            raise ValueError(f"{n} pairs, more than the capacity of {capacity}")
        x_BND[row, :n], y_BNE[row, :n], real_BN[row, :n] = x_ND, y_NE, True
    return PackedPairs(x_BND, y_BNE, real_BN)


def with_idle_units(
    mapping: Mapping[str, FloatArray], activation: Activation
) -> dict[str, FloatArray]:
    """Returns the mapping with as many idle hidden units as fill the last cache line.

    Their weights and outputs are 0, hence all their gradients: they never do or learn anything.
    """
    idle = -len(mapping["b1"]) % ALIGNMENT
    # σ(0) is 0 for all but the sigmoid, which underflows to 0 and has slope 0 far to the left
    bias = -1e4 if activation == "sigmoid" else 0.0
    return {
        "w1": np.pad(mapping["w1"], ((0, idle), (0, 0))),
        "b1": np.pad(mapping["b1"], (0, idle), constant_values=bias),
        "w2": np.pad(mapping["w2"], ((0, 0), (0, idle))),
        "b2": mapping["b2"],
    }


def without_idle_units(tensors: Mapping[str, FloatArray], hidden_dim: int) -> dict[str, FloatArray]:
    """Returns the mapping's own hidden units, as copies: a view would keep a whole chunk alive."""
    return {
        "w1": tensors["w1"][:hidden_dim].copy(),
        "b1": tensors["b1"][:hidden_dim].copy(),
        "w2": tensors["w2"][:, :hidden_dim].copy(),
        "b2": tensors["b2"].copy(),
    }


def support_pairs(episode: Episode) -> tuple[FloatArray, FloatArray]:
    """Returns the pairs to adapt on, x (S, D) and y (S, E)."""
    return episode.x_support_SD, episode.y_support_SE


def query_pairs(episode: Episode) -> tuple[FloatArray, FloatArray]:
    """Returns the pairs to judge on, x (Q, D) and y (Q, E)."""
    return episode.x_query_QD, episode.y_query_QE


def every_pair(episode: Episode) -> tuple[FloatArray, FloatArray]:
    """Returns support and query together, x (N, D) and y (N, E)."""
    x_ND = np.concatenate([episode.x_support_SD, episode.x_query_QD])
    return x_ND, np.concatenate([episode.y_support_SE, episode.y_query_QE])
