"""The tensors of a published mapping: whole or as what was added to θ, float32 or float16. Pure.

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


def full_body(tensors: Mapping[str, FloatArray], dtype: Dtype) -> MappingBody:
    """Returns the whole mapping, in float32 if float16 is asked for and would not hold it."""
    if dtype == "float16" and fits_half(tensors):
        halved = {name: to_half(tensor) for name, tensor in tensors.items()}
        return MappingBody("full", "float16", halved, content_hash(halved, "full", "float16"))
    return MappingBody("full", "float32", tensors, content_hash(tensors))


def fits_half(tensors: Mapping[str, FloatArray]) -> bool:
    """Returns whether float16 is precise enough: an error of at most 2**-11 of each tensor's
    largest number, or of 2**-25 in a bias. Weights must not be too small, and nothing too large."""
    sizes = {name: largest(tensor) for name, tensor in tensors.items()}
    weights = [size for name, size in sizes.items() if name.startswith("w") and size]
    return max(sizes.values()) <= LARGEST and min(weights, default=1.0) >= SMALLEST_NORMAL


def lowrank_body(
    tensors: Mapping[str, StoredArray], dtype: Dtype, meta_init_hash: str
) -> MappingBody:
    """Returns a mapping as factors, which `LowRank.factors` or `LowRank.in_half` makes; no factors
    at all are θ itself."""
    digest = content_hash(tensors, "lowrank", dtype, meta_init_hash)
    return MappingBody("lowrank", dtype, tensors, digest)


def full_nbytes(source_dim: int, hidden_dim: int, target_dim: int, dtype: Dtype) -> int:
    """Returns how many bytes the tensors of a whole mapping have."""
    numbers = hidden_dim * (source_dim + 1) + target_dim * (hidden_dim + 1)
    return numbers * np.dtype(dtype).itemsize
