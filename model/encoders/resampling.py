"""Another sampling rate, without aliases: a windowed-sinc filter, one phase at a time.

T = samples before, U = samples after, K = taps, R = phases (= up)

Output u lies at u · down / up of the input. Its taps are a sinc whose cutoff is below both Nyquist
frequencies, in a Kaiser window (Crochiere and Rabiner, Multirate Digital Signal Processing, 1983,
chapter 4). Outputs of the same phase have the same taps, and stand at equal distances.
"""

import numpy as np
from numpy.typing import NDArray

ZEROS = 32
"""Zero crossings of the sinc on each side."""
CUTOFF = 0.92
"""Of the lower Nyquist frequency: where the response is at half. It is flat up to 0.84 and shut
from 1.0 on (Kaiser's formula for the width of the transition)."""
KAISER_BETA = 8.6
"""About 86 dB of stop-band attenuation (Kaiser's formula)."""
BLOCK = 1_000_000
"""Numbers copied at a time."""

FloatArray = NDArray[np.float64]


def resampled(wave_T: FloatArray, up: int, down: int) -> FloatArray:
    """The wave at up/down times its rate (U = ceil(T · up / down)); up and down are coprime."""
    if up == down == 1:
        return wave_T
    taps_RK = filter_phases(up, down)
    half = taps_RK.shape[1] // 2
    count = -(-len(wave_T) * up // down)
    padded = np.concatenate([np.zeros(half), wave_T, np.zeros(half + down + 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps_RK.shape[1])
    result_U = np.empty(count)
    for first in range(min(up, count)):
        start, phase = divmod(first * down, up)
        outputs = len(range(first, count, up))
        chosen = windows[start : start + (outputs - 1) * down + 1 : down]
        result_U[first::up] = _filtered(chosen, taps_RK[phase])
    return result_U


def filter_phases(up: int, down: int) -> FloatArray:
    """Taps (R, K) for outputs that lie 0/up, 1/up, ... behind an input sample; rows sum to 1."""
    cutoff = CUTOFF * min(1.0, up / down)
    half = int(np.ceil(ZEROS / cutoff))
    distance_RK = np.arange(-half, half + 1)[None, :] - np.arange(up)[:, None] / up
    inside_RK = np.clip(1.0 - np.square(distance_RK / (half + 1)), 0.0, None)
    taps_RK = np.sinc(cutoff * distance_RK) * np.i0(KAISER_BETA * np.sqrt(inside_RK))
    return np.asarray(taps_RK / taps_RK.sum(1, keepdims=True))


def _filtered(windows_UK: FloatArray, taps_K: FloatArray) -> FloatArray:
    """Their product, without a copy of all windows at once: they overlap in memory."""
    rows = max(BLOCK // len(taps_K), 1)
    blocks = [windows_UK[at : at + rows] for at in range(0, len(windows_UK), rows)]
    return np.concatenate([np.ascontiguousarray(block) @ taps_K for block in blocks])
