"""In what form a mapping is published: whole, or as what was added to θ; float32 or float16. Pure.

H = hidden, D = source dim, E = target dim
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from daemon.wire.adapted_mapping import Dtype, Encoding, StoredArray, content_hash, format_of
from model.values.arrays import FloatArray
from model.values.half import LARGEST, SMALLEST_NORMAL, largest, to_half


@dataclass(frozen=True, slots=True)
class MappingForm:
    """The form that the mappings topic is to have, where a mapping can take it."""

    encoding: Encoding = "full"
    dtype: Dtype = "float32"


@dataclass(frozen=True, slots=True)
class MappingBody:
    """A mapping's tensors as they are published, and the form that they came to have."""

    encoding: Encoding
    dtype: Dtype
    tensors: Mapping[str, StoredArray]
    content_hash: str

    @property
    def format(self) -> str:
        """See `adapted_mapping`."""
        return format_of(self.encoding, self.dtype)


def full_body(tensors: Mapping[str, FloatArray], dtype: Dtype) -> MappingBody:
    """All of the mapping; float32 whatever `dtype` says where float16 would not hold it."""
    if dtype == "float16" and fits_half(tensors):
        halved = {name: to_half(tensor) for name, tensor in tensors.items()}
        return MappingBody("full", "float16", halved, content_hash(halved, "full", "float16"))
    return MappingBody("full", "float32", tensors, content_hash(tensors))


def fits_half(tensors: Mapping[str, FloatArray]) -> bool:
    """Whether float16 keeps every tensor to 2**-11 of its largest number, biases to 2**-11 of
    theirs or to 2**-25: w1 and w2 not too small, none too large."""
    sizes = {name: largest(tensor) for name, tensor in tensors.items()}
    weights = [size for name, size in sizes.items() if name.startswith("w") and size]
    return max(sizes.values()) <= LARGEST and min(weights, default=1.0) >= SMALLEST_NORMAL


def lowrank_body(
    tensors: Mapping[str, StoredArray], dtype: Dtype, meta_init_hash: str
) -> MappingBody:
    """Factors, of `LowRank.factors` or `LowRank.in_half`; none: θ itself."""
    digest = content_hash(tensors, "lowrank", dtype, meta_init_hash)
    return MappingBody("lowrank", dtype, tensors, digest)


def full_nbytes(source_dim: int, hidden_dim: int, target_dim: int, dtype: Dtype) -> int:
    """Of a whole mapping's tensors."""
    numbers = hidden_dim * (source_dim + 1) + target_dim * (hidden_dim + 1)
    return numbers * np.dtype(dtype).itemsize
