"""The form that every baseline has.

S = support pairs, N = inputs, D = source dim, E = target dim
"""

from collections.abc import Callable

from model.values.arrays import FloatArray

MapTo = Callable[[FloatArray], FloatArray]
"""Inputs (N, D) to outputs (N, E)."""
Fit = Callable[[FloatArray, FloatArray], MapTo]
"""A support's inputs (S, D) and targets (S, E), S >= 1, to the mapping fitted on it."""
