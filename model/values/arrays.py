"""Float32 arrays, and the alignment at which a matrix product keeps its bits. No torch here."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

ALIGNMENT = 16
"""Float32 numbers in a cache line of 64 bytes."""


def aligned(size: int, to: int = ALIGNMENT) -> int:
    """Returns the smallest multiple of `to` that is at least `size`."""
    return size + -size % to
