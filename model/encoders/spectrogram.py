"""Waves to log-mel spectrograms.

N = clips, T = samples, F = frames, M = mel bands, B = frequency bins

25 ms frames every 10 ms, whole ones only, under a periodic Hann window; the power spectrum of 512
points; M triangles, equally spaced on the mel scale m = 2595·log10(1 + f/700) from 0 to 8 kHz
(O'Shaughnessy 1987; HTK's form, peaks of 1); and the logarithm, with a floor.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.encoders.waves import RATE_HZ

FRAME = 400
HOP = 160
FFT = 512
FLOOR = 1e-3
"""Added to every band's power. White noise of RMS 1 has about 300 a band."""
LOG_MEAN, LOG_SCALE = 1.0, 4.0
"""Takes logarithms, which lie in about -7..9, to about unit size."""


def frames_of(n_samples: int) -> int:
    """F: whole frames in so many samples, at least 1."""
    return max(n_samples - FRAME, 0) // HOP + 1


def samples_of(n_frames: int) -> int:
    """The fewest samples with so many frames."""
    return FRAME + HOP * (n_frames - 1)


class LogMel(nn.Module):
    """Waves (N, T), T >= 400, to (N, F, M); nothing in it is learned."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        window = torch.from_numpy(hann()).to(torch.float32)
        filters = torch.from_numpy(mel_filters(bands)).to(torch.float32)
        self.window: Tensor
        self.filters: Tensor
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, wave_NT: Tensor) -> Tensor:
        """Log-mel bands, shifted and scaled to about unit size."""
        frames_NFT = wave_NT.unfold(1, FRAME, HOP) * self.window
        spectrum_NFB = torch.fft.rfft(frames_NFT, FFT)
        power_NFB = spectrum_NFB.real.square() + spectrum_NFB.imag.square()
        bands_NFM = power_NFB @ self.filters
        log_NFM: Tensor = (bands_NFM + FLOOR).log()
        return (log_NFM - LOG_MEAN) / LOG_SCALE


def hann() -> NDArray[np.float64]:
    """The periodic window (FRAME)."""
    return np.asarray(0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(FRAME) / FRAME))


def mel_filters(bands: int) -> NDArray[np.float64]:
    """Weights (B, M) of frequency bins in mel bands."""
    highest = 2595.0 * np.log10(1.0 + RATE_HZ / 2.0 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, highest, bands + 2) / 2595.0) - 1.0)
    bins_B1 = np.arange(FFT // 2 + 1)[:, None] * (RATE_HZ / FFT)
    low_M, peak_M, high_M = edges[:-2], edges[1:-1], edges[2:]
    rising_BM = (bins_B1 - low_M) / (peak_M - low_M)
    falling_BM = (high_M - bins_B1) / (high_M - peak_M)
    return np.asarray(np.clip(np.minimum(rising_BM, falling_BM), 0.0, None))
