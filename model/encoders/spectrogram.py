"""Turns waves into log-mel spectrograms: how loud each band of pitch is in each frame.

R = rows (clips), T = time steps (samples), F = frames, C = channels (frequency bins), M = mel bands

A wave is cut into frames of 25 ms, one every 10 ms, whole ones only. Each frame is multiplied by a
periodic Hann window, and its power spectrum taken with 512 points. M triangular filters sum the
power in bands that are equally spaced on the mel scale, m = 2595·log10(1 + f/700), from 0 to 8 kHz
(O'Shaughnessy 1987; as in HTK, every triangle peaks at 1). The result is the logarithm of that sum,
with a floor.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.encoders.waves import RATE_HZ

FRAME = 400
"""Samples of a frame."""
HOP = 160
"""Samples from the start of a frame to that of the next."""
FFT = 512
"""Points of the Fourier transform: a frame and zeros behind it."""
FLOOR = 1e-3
"""Added to every band's power; white noise of RMS 1 has about 300 in each band."""
LOG_MEAN, LOG_SCALE = 1.0, 4.0
"""Subtracted from the logarithms, and dividing them: from about -7..9 to about unit size."""


def frames_of(n_samples: int) -> int:
    """Returns how many whole frames (F) are in so many samples; at least 1."""
    return max(n_samples - FRAME, 0) // HOP + 1


def samples_of(n_frames: int) -> int:
    """Returns the fewest samples that hold so many frames."""
    return FRAME + HOP * (n_frames - 1)


class LogMel(nn.Module):
    """Turns waves (R, T), T >= FRAME, into spectrograms (R, F, M); nothing in it is learned."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        # by numpy, so that they hold numbers on torch's meta device too
        window = torch.from_numpy(np.hanning(FRAME + 1)[:-1]).to(torch.float32)
        filters = torch.from_numpy(mel_filters(bands)).to(torch.float32)
        self.window: Tensor
        self.filters: Tensor
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, wave_RT: Tensor) -> Tensor:
        """Returns the log-mel spectrograms (R, F, M), shifted and scaled to about unit size."""
        frames_RFT = wave_RT.unfold(1, FRAME, HOP) * self.window
        spectrum_RFC = torch.fft.rfft(frames_RFT, FFT)
        power_RFC = spectrum_RFC.real.square() + spectrum_RFC.imag.square()
        bands_RFM = power_RFC @ self.filters
        log_RFM: Tensor = (bands_RFM + FLOOR).log()
        return (log_RFM - LOG_MEAN) / LOG_SCALE


def mel_filters(bands: int) -> NDArray[np.float64]:
    """Returns the weights (C, M) of frequency bins in mel bands: a triangle in each column."""
    highest = 2595.0 * np.log10(1.0 + RATE_HZ / 2.0 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, highest, bands + 2) / 2595.0) - 1.0)
    bins_C1 = np.arange(FFT // 2 + 1)[:, None] * (RATE_HZ / FFT)
    low_M, peak_M, high_M = edges[:-2], edges[1:-1], edges[2:]
    rising_CM = (bins_C1 - low_M) / (peak_M - low_M)
    falling_CM = (high_M - bins_C1) / (high_M - peak_M)
    return np.asarray(np.clip(np.minimum(rising_CM, falling_CM), 0.0, None))
