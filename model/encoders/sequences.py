"""What encoders share: chunks in which a content's features never depend on its neighbours.

R = rows (contents, of a call or of one chunk), T = time steps (padded), C = channels,
X = source or target dim

Kernels choose the order in which they sum by the shapes that they are given, and another order
gives other last bits. So a content is padded to a length that its own length alone decides (the
next power of two times `base`), and computed in a chunk of a fixed number of rows, filled up with
zeros. The shapes that kernels see for a content are then the same in every call.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Forward = Callable[[Tensor, Tensor], Tensor]
"""A network: takes padded contents (R, T, ...) and their lengths (R), returns features (R, X)."""


def padded_length(length: int, base: int) -> int:
    """Returns the smallest base · 2^k that is at least `length`."""
    padded = base
    while padded < length:
        padded *= 2
    return padded


def valid_RT(length_R: Tensor, longest: int) -> Tensor:
    """Returns a mask (R, T) that is True on a content's own steps, False on its padding."""
    return torch.arange(longest, device=length_R.device) < length_R[:, None]


def reversed_RT(h_RTC: Tensor, length_R: Tensor) -> Tensor:
    """Returns each content with its own steps in reverse order; what follows them is undefined.

    A recurrence over the result is one backwards in time that never reads padding.
    """
    longest = h_RTC.shape[1]
    from_RT = (length_R[:, None] - 1 - torch.arange(longest, device=length_R.device)).clamp(min=0)
    return h_RTC.gather(1, from_RT[:, :, None].expand_as(h_RTC))


def scaled(features_RX: Tensor) -> Tensor:
    """Returns each row scaled to norm √X; a row of zeros stays zero, with a finite gradient."""
    # held above 0 before the root, whose derivative at 0 is infinite
    norm_R1 = features_RX.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()
    return features_RX / norm_R1 * float(np.sqrt(features_RX.shape[1]))


@torch.inference_mode()
def in_chunks(
    forward: Forward,
    prepared: Sequence[NDArray[Any]],
    dim: int,
    rows: int,
    base: int,
    device: torch.device,
) -> Tensor:
    """Returns the features (R, X), float32, of prepared contents (T, ...) of any lengths.

    Each row depends on its own content alone, to the bit. `rows` is the chunks' number of rows,
    `base` the shortest padded length.
    """
    features_RX = torch.zeros((len(prepared), dim), device=device)
    # the same kernel every time, in full float32: cudnn's choice would vary, and take TF32
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        for places, padded in _chunks(prepared, rows, base):
            chunk, length_R = padded_batch([prepared[i] for i in places], rows, padded)
            computed_RX = forward(chunk.to(device), length_R.to(device))
            features_RX[torch.tensor(places, device=device)] = computed_RX[: len(places)]
    return features_RX


def padded_batch(arrays: Sequence[NDArray[Any]], rows: int, padded: int) -> tuple[Tensor, Tensor]:
    """Returns arrays (T, ...) as one (rows, padded, ...), zeros behind each, and lengths (rows).

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
