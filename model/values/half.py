"""float32 to float16 and back, for tensors that travel. No torch here.

A float16 has 11 significant bits, between 6e-5 and 65504; below that, ever fewer. Factors of a
mapping's delta may lie anywhere, so each is divided by a power of two of its own first: its largest
number then lies just below the upper end, and only what is 2**28 times smaller loses bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.values.arrays import FloatArray

HalfArray = NDArray[np.float16]

SCALES = "scales"
"""The name of the divisors among tensors in half precision: float32, in order of names."""
LARGEST = 65504.0
SMALLEST_NORMAL = 2.0**-14
TO_HALF = 2.0**-112


def in_half(tensors: Mapping[str, FloatArray]) -> dict[str, NDArray[Any]]:
    """Finite tensors as float16, and SCALES (float32), what to multiply each with to have it back.

    Each number is off by at most 2**-11 of itself, or 2**-39 of its tensor's largest.
    """
    if not tensors:
        return {}
    names = sorted(tensors)
    scales = np.empty(len(names), np.float32)
    flat = np.empty(sum(tensor.size for tensor in tensors.values()), np.float32)
    places, start = [], 0
    for i, name in enumerate(names):
        tensor = tensors[name].reshape(-1)
        places.append(slice(start, start := start + len(tensor)))
        own = flat[places[-1]]
        np.abs(tensor, out=own)
        scales[i] = scale = _scale(float(own.max(initial=0.0)))
        _brought_to_half(tensor, scale, own)
    half = _rounded(flat)
    shaped = {n: half[at].reshape(tensors[n].shape) for n, at in zip(names, places, strict=True)}
    return shaped | {SCALES: scales}


def in_single(tensors: Mapping[str, NDArray[Any]]) -> dict[str, FloatArray]:
    """Back to float32; what is float32 already stays as it is."""
    names = sorted(name for name in tensors if name != SCALES)
    if SCALES not in tensors:
        return {name: tensors[name].astype(np.float32, copy=False) for name in names}
    scales = tensors[SCALES]
    return {n: tensors[n].astype(np.float32) * s for n, s in zip(names, scales, strict=True)}


def largest(tensor: FloatArray) -> float:
    """The largest magnitude; 0 of none."""
    return max(float(tensor.max()), -float(tensor.min())) if tensor.size else 0.0


def _scale(magnitude: float) -> float:
    """The power of two that brings `magnitude` to between 2**14 and 2**15; 1 for 0."""
    if magnitude == 0:
        return 1.0
    return math.ldexp(1.0, max(math.frexp(magnitude)[1] - 15, -149))  # float32 goes down to there


def to_half(numbers: FloatArray) -> HalfArray:
    """The nearest float16 of each number of magnitude up to LARGEST, C-contiguous.

    numpy converts one number after the other; whole arrays of integers are faster.
    TO_HALF takes a float32's exponent to a float16's, and what is subnormal in the one to what is
    subnormal in the other. Then 13 of 23 bits of the fraction are rounded away.
    """
    flat = np.array(numbers, np.float32, order="C").reshape(-1)
    flat *= np.float32(TO_HALF)
    return _rounded(flat).reshape(numbers.shape)


def _brought_to_half(numbers_N: FloatArray, scale: float, out_N: FloatArray) -> None:
    """Divided by `scale`, times TO_HALF: one power of two, where float32 has it."""
    factor = TO_HALF / scale
    if factor >= 2.0**-126:
        np.multiply(numbers_N, np.float32(factor), out=out_N)
    else:
        np.divide(numbers_N, np.float32(scale), out=out_N)
        out_N *= np.float32(TO_HALF)


def _rounded(numbers_N: FloatArray) -> HalfArray:
    """The nearest float16 of numbers that met TO_HALF, whose memory it uses."""
    signs_N = numbers_N.view(np.uint32)
    bits_N = signs_N << 3  # exponent and fraction in the upper half, without the sign
    bits_N += 0x8000
    signs_N &= 0x80000000
    bits_N |= signs_N
    bits_N >>= 16
    return bits_N.astype(np.uint16).view(np.float16)
