"""The tensors of a published mapping: whole or as what was added to θ, float32 or float16. Pure.

H = hidden units, D = source dim, E = target dim
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from daemon.wire.adapted_mapping import Dtype, Encoding, StoredArray, content_hash, format_of
from model.values.arrays import FloatArray, HalfArray

LARGEST_HALF = 65504.0
SMALLEST_NORMAL_HALF = 2.0**-14


@dataclass(frozen=True, slots=True)
class MappingForm:
    """The form in which mappings are to be published, as far as each mapping can take it."""

    encoding: Encoding = "full"
    dtype: Dtype = "float32"


@dataclass(frozen=True, slots=True)
class MappingBody:
    """A mapping's tensors as they are published, and the form that they have."""

    encoding: Encoding
    dtype: Dtype
    tensors: Mapping[str, StoredArray]
    content_hash: str

    @property
    def format(self) -> str:
        """The format of the record, see `daemon.wire.adapted_mapping`."""
        return format_of(self.encoding, self.dtype)


def full_body(
    tensors: Mapping[str, FloatArray], dtype: Dtype, to_half: Callable[[FloatArray], HalfArray]
) -> MappingBody:
    """Returns the whole mapping as a body, float32 where float16 would not hold it.

    `to_half` rounds an array to the nearest float16 (`model.serving.engine.Engine.to_half`).
    """
    if dtype == "float16" and fits_half(tensors):
        halved = {name: to_half(tensor) for name, tensor in tensors.items()}
        return MappingBody("full", "float16", halved, content_hash(halved, "full", "float16"))
    return MappingBody("full", "float32", tensors, content_hash(tensors))


def fits_half(tensors: Mapping[str, FloatArray]) -> bool:
    """Returns whether float16 keeps the mapping well enough to publish it.

    It does when no number is above its largest and no weight matrix lies wholly below its normal
    range: weights are then off by at most 2**-11 of their tensor's largest number, biases by that
    or by 2**-25.
    """
    sizes = {name: _largest(tensor) for name, tensor in tensors.items()}
    weights = [size for name, size in sizes.items() if name.startswith("w") and size]
    return max(sizes.values()) <= LARGEST_HALF and min(weights, default=1.0) >= SMALLEST_NORMAL_HALF


def _largest(tensor: FloatArray) -> float:
    """The largest magnitude; 0 of none."""
    return max(float(tensor.max()), -float(tensor.min())) if tensor.size else 0.0


def lowrank_body(
    tensors: Mapping[str, StoredArray], dtype: Dtype, meta_init_hash: str
) -> MappingBody:
    """Returns the body of factors (`LowRank.factors`, or `in_half`); none stand for θ itself."""
    digest = content_hash(tensors, "lowrank", dtype, meta_init_hash)
    return MappingBody("lowrank", dtype, tensors, digest)


def full_nbytes(source_dim: int, hidden_dim: int, target_dim: int, dtype: Dtype) -> int:
    """Returns how many bytes the tensors of a whole mapping have."""
    numbers = hidden_dim * (source_dim + 1) + target_dim * (hidden_dim + 1)
    return numbers * np.dtype(dtype).itemsize
