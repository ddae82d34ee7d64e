"""Converts a wave to another sampling rate without aliases, by a windowed-sinc filter.

T = time steps (samples), I = inputs of a layer (a filter's taps), R = rows (phases of the filter)

The new rate is up/down times the old one. Output sample u lies at u · down / up input samples, and
is a weighted sum of the input samples around that place. The weights, or taps, are a sinc whose
cutoff is below both Nyquist frequencies, in a Kaiser window (Crochiere and Rabiner, Multirate
Digital Signal Processing, 1983, chapter 4). They depend on the place only by its fraction of a
sample, its phase. There are `up` phases, and every up-th output has the same one: so the outputs of
a phase are inner products of windows at equal distances with the phase's taps.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ZEROS = 32
"""How many zero crossings of the sinc the filter reaches to, on each side."""
CUTOFF = 0.92
"""Where the filter passes half the amplitude, as a share of the lower Nyquist frequency. It passes
all up to 0.84 and nothing from 1.0 on (Kaiser's formula for the width of the transition)."""
KAISER_BETA = 8.6
"""The window's shape: gives about 86 dB of stop-band attenuation (Kaiser's formula)."""
FILTERS = 8
"""How many filters are kept, of at most 4.3 MB each; making one takes longer than using it on a
clip of a second."""

FloatArray = NDArray[np.float64]


def resampled(wave_T: FloatArray, up: int, down: int) -> FloatArray:
    """Returns a wave (T) at up/down times its rate, of ceil(T · up / down) samples.

    `up` and `down` are coprime.
    """
    if up == down == 1:
        return wave_T
    taps_RI = filter_phases(up, down)
    half = taps_RI.shape[1] // 2
    count = -(-len(wave_T) * up // down)
    padded = np.concatenate([np.zeros(half), wave_T, np.zeros(half + down + 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps_RI.shape[1])
    result_T = np.empty(count)
    for first in range(min(up, count)):
        start, phase = divmod(first * down, up)
        outputs = len(range(first, count, up))
        chosen = windows[start : start + (outputs - 1) * down + 1 : down]
        result_T[first::up] = np.vecdot(chosen, taps_RI[phase])
    return result_T


@lru_cache(FILTERS)
def filter_phases(up: int, down: int) -> FloatArray:
    """Returns the taps (up, I) of outputs that lie 0/up, 1/up, ... of a sample behind an input.

    Each row sums to 1, so that a constant stays what it is. The array is kept, and is not to be
    written to.
    """
    cutoff = CUTOFF * min(1.0, up / down)
    half = int(np.ceil(ZEROS / cutoff))
    distance_RI = np.arange(-half, half + 1)[None, :] - np.arange(up)[:, None] / up
    inside_RI = np.clip(1.0 - np.square(distance_RI / (half + 1)), 0.0, None)
    taps_RI = np.sinc(cutoff * distance_RI) * np.i0(KAISER_BETA * np.sqrt(inside_RI))
    taps_RI = np.asarray(taps_RI / taps_RI.sum(1, keepdims=True))
    taps_RI.setflags(write=False)
    return taps_RI
