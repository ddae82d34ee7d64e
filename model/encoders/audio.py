"""The audio encoder: a CNN over the log-mel spectrogram, then the mean over time.

N = clips, T = samples, F = frames, M = mel bands, C = channels, D = features

Blocks of 3 × 3 convolution, bias, ReLU and 2 × 2 maximum over time and mel bands; what is left of
the bands is kept apart, the mean over time is taken, and a linear map gives the features, at norm
√D. Frames beyond a clip's end are zero before every convolution, as beyond the edge of a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model.encoders.rowwise import RowwiseLinear
from model.encoders.sequences import in_chunks, scaled, valid_NL
from model.encoders.spectrogram import FRAME, HOP, LogMel, frames_of, samples_of
from model.encoders.trained_part import read_net, read_sizes, size, spec_of
from model.encoders.waves import decode_clip
from model.theta.meta_init import Modality
from model.theta.part import PartSpec
from model.values.contents import AudioClip, Content
from model.values.errors import BadContent, BadMetaInit

KIND = "mel-cnn/1"
ROWS = {"cpu": 2, "cuda": 16}
BASE_FRAMES = 32
"""The shortest padded clip: a third of a second."""


@dataclass(frozen=True, slots=True)
class AudioSizes:
    """All that decides the network's shape."""

    dim: int = size(1, 65_536, 64)
    max_ms: int = size(1, 600_000, 30_000)
    """Longer clips are refused."""
    bands: int = size(8, 128, 64)
    channels: tuple[int, ...] = size(1, 1_024, (16, 32, 64, 64))
    """Of each block."""

    def __post_init__(self) -> None:
        """Raises BadMetaInit when there are more blocks than bands can be halved."""
        if self.bands >> len(self.channels) == 0:
            raise BadMetaInit(f"{KIND}: {self.bands} bands cannot be halved in every block")


class AudioNet(nn.Module):
    """Waves to features; every length in one batch."""

    def __init__(self, sizes: AudioSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.log_mel = LogMel(sizes.bands)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise((1, *sizes.channels))
        )
        left = sizes.bands >> len(sizes.channels)
        self.linear = RowwiseLinear(sizes.channels[-1] * left, sizes.dim)

    def forward(self, wave_NT: Tensor, length_N: Tensor) -> Tensor:
        """Features (N, D) at norm √D of waves, float32; what stands behind a wave's length, 400
        or more, is not looked at."""
        h_NFM = self.log_mel(wave_NT)
        frames_N = (length_N - FRAME) // HOP + 1
        # halves come out even, so that no block's last frame is lost
        h_NFM = functional.pad(h_NFM, (0, 0, 0, -h_NFM.shape[1] % 2 ** len(self.convs)))
        h_NCFM = h_NFM[:, None]
        for conv in self.convs:
            h_NCFM = functional.relu(conv(_masked(h_NCFM, frames_N)))
            # beyond the end stands 0, ReLU's least value: it wins over no frame
            h_NCFM = functional.max_pool2d(_masked(h_NCFM, frames_N), 2)
            frames_N = (frames_N + 1) // 2
        h_NFE = _masked(h_NCFM, frames_N).permute(0, 2, 1, 3).flatten(2)
        return scaled(self.linear(h_NFE.sum(1) / frames_N[:, None]))

    def spec(self) -> PartSpec:
        """Config and weights, as θ files hold them."""
        return spec_of(KIND, self.sizes, self)


class AudioEncoder:
    """Clips to features; its weights are fixed."""

    modality: Modality = "audio"

    def __init__(self, spec: PartSpec, device: torch.device) -> None:
        """Raises BadMetaInit when config and tensors do not make a network of this kind."""
        sizes = read_sizes(AudioSizes, KIND, spec.config)
        self.net = read_net(lambda: AudioNet(sizes), spec, device)
        self._device = device

    @property
    def dim(self) -> int:
        """D."""
        return self.net.sizes.dim

    def prepare(self, content: Content) -> NDArray[Any]:
        """Samples (T), float32, at 16 kHz, cut to whole frames; one frame at least.

        Raises BadContent: `wrong_modality`, or what `decode_clip` raises.
        """
        if not isinstance(content, AudioClip):
            kind = type(content).__name__
            raise BadContent("wrong_modality", f"audio must be an audio clip, not {kind}")
        wave_T = decode_clip(content, self.net.sizes.max_ms / 1000)
        whole = samples_of(frames_of(len(wave_T)))
        return np.pad(wave_T[:whole], (0, max(whole - len(wave_T), 0)))

    def encode(self, prepared: Sequence[NDArray[Any]]) -> Tensor:
        """Features (N, D), each by its own clip alone, to the bit."""
        rows, base = ROWS[self._device.type], HOP * BASE_FRAMES
        return in_chunks(self.net, prepared, self.dim, rows, base, self._device)


def _masked(h_NCFM: Tensor, frames_N: Tensor) -> Tensor:
    return h_NCFM * valid_NL(frames_N, h_NCFM.shape[2])[:, None, :, None]
