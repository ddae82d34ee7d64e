"""Which pairs may judge: query pairs whose source is not one of the support's, and of the support
those whose source no other pair has.

R = rows, S = support pairs, Q = query pairs, D = source dim, X = source or target dim
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from model.values.arrays import FloatArray

Digests = NDArray[np.uint64]


def digests(x_RD: FloatArray) -> Digests:
    """Returns 8 bytes for each row: the same for equal numbers, and hardly ever for others."""
    bits_RD = (x_RD + np.float32(0.0)).view(np.uint32)  # −0 + 0 is 0
    return bits_RD @ _multipliers(x_RD.shape[1])


def new_to(support_S: Digests, query_Q: Digests) -> NDArray[np.bool_]:
    """Returns which query rows are none of the support's (Q)."""
    return np.isin(query_Q, support_S, invert=True)


def single(support_S: Digests) -> NDArray[np.bool_]:
    """Returns which rows are no other row's too (S)."""
    _, row_S, count = np.unique(support_S, return_inverse=True, return_counts=True)
    alone_S: NDArray[np.bool_] = count[row_S] == 1
    return alone_S


@cache
def _multipliers(dim: int) -> Digests:
    return np.random.default_rng(dim).integers(1, 2**64, dim, np.uint64) | np.uint64(1)
