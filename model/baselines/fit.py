"""The form that every baseline has.

S = support pairs, R = rows (inputs), D = source dim, E = target dim
"""

from collections.abc import Callable

from model.values.arrays import FloatArray

MapTo = Callable[[FloatArray], FloatArray]
"""Inputs (R, D) to outputs (R, E)."""
Fit = Callable[[FloatArray, FloatArray], MapTo]
"""A support's inputs (S, D) and targets (S, E), S >= 1, to the mapping fitted on it."""
