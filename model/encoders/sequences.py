"""What encoders of variable lengths share: masks, and chunks whose shape depends on no company.

N = contents, L = length, R = rows of a chunk, D = features

A content is padded to a length that its own length alone decides (the next power of two times
`base`), and stands in a chunk of a fixed number of rows: so the shapes that kernels see, and with
them the order of every sum, do not depend on what else is in the call.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Forward = Callable[[Tensor, Tensor], Tensor]
"""Padded contents (R, L, ...) and their lengths (R) -> features (R, D)."""


def padded_length(length: int, base: int) -> int:
    """The smallest base · 2^k that is at least `length`."""
    padded = base
    while padded < length:
        padded *= 2
    return padded


def valid_NL(length_N: Tensor, longest: int) -> Tensor:
    """True where a padded content is real (N, L)."""
    return torch.arange(longest, device=length_N.device) < length_N[:, None]


def reversed_NL(h_NLC: Tensor, length_N: Tensor) -> Tensor:
    """Each content turned round within its own length; what stands behind it is undefined.

    A forward recurrence over it is a backward one that has not seen padding.
    """
    longest = h_NLC.shape[1]
    from_NL = (length_N[:, None] - 1 - torch.arange(longest, device=length_N.device)).clamp(min=0)
    return h_NLC.gather(1, from_NL[:, :, None].expand_as(h_NLC))


def scaled(features_ND: Tensor) -> Tensor:
    """Each row at norm √D; an all-zero row stays zero."""
    norm_N1 = features_ND.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6)
    return features_ND / norm_N1 * float(np.sqrt(features_ND.shape[1]))


@torch.inference_mode()
def in_chunks(
    forward: Forward,
    prepared: Sequence[NDArray[Any]],
    dim: int,
    rows: int,
    base: int,
    device: torch.device,
) -> Tensor:
    """Features (N, D), float32, of arrays (L, ...) of any lengths, each by its own alone."""
    features_ND = torch.zeros((len(prepared), dim), device=device)
    # the same kernel every time, in full float32: cudnn's choice would vary, and take TF32
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        for places, padded in _chunks(prepared, rows, base):
            chunk, length_R = padded_batch([prepared[i] for i in places], rows, padded)
            features_RD = forward(chunk.to(device), length_R.to(device))
            features_ND[torch.tensor(places, device=device)] = features_RD[: len(places)]
    return features_ND


def padded_batch(arrays: Sequence[NDArray[Any]], rows: int, padded: int) -> tuple[Tensor, Tensor]:
    """Arrays (L, ...) as one (rows, padded, ...), zeros behind each, and their lengths (rows).

    Rows without an array get length 1, so that means over them are defined.
    """
    chunk = np.zeros((rows, padded, *arrays[0].shape[1:]), arrays[0].dtype)
    length_R = np.ones(rows, np.int64)
    for row, array in enumerate(arrays):
        chunk[row, : len(array)] = array
        length_R[row] = len(array)
    return torch.from_numpy(chunk), torch.from_numpy(length_R)


def _chunks(
    prepared: Sequence[NDArray[Any]], rows: int, base: int
) -> Iterator[tuple[list[int], int]]:
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, array in enumerate(prepared):
        by_length[padded_length(len(array), base)].append(place)
    for padded, places in by_length.items():
        for start in range(0, len(places), rows):
            yield places[start : start + rows], padded
