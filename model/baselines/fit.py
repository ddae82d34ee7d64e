"""What every baseline comes down to.

S = support pairs, N = inputs, D = source dim, E = target dim
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

MapTo = Callable[[FloatArray], FloatArray]
"""Inputs (N, D) to outputs (N, E)."""
Fit = Callable[[FloatArray, FloatArray], MapTo]
"""A support's inputs (S, D) and targets (S, E), S >= 1, to the mapping fitted on it."""
