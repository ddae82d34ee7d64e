"""The audio encoder: a CNN over the log-mel spectrogram, then the mean over time.

R = rows (clips), T = time steps (samples), F = frames, M = mel bands, C = channels,
I = inputs of a layer, X = source or target dim

Each block is a 3 × 3 convolution, bias, ReLU and 2 × 2 max pooling, over time and mel bands. The
mean over time of what the last block leaves, band by band and channel by channel, goes through a
linear map, and the result is scaled to norm √X. Frames behind a clip's end are set to zero before
every convolution, as if the spectrogram ended there.
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
from model.encoders.sequences import in_chunks, scaled, valid_RT
from model.encoders.spectrogram import FRAME, HOP, LogMel, frames_of, samples_of
from model.encoders.trained_part import read_net, read_sizes, size, spec_of
from model.encoders.waves import decode_clip
from model.theta.meta_init import Modality
from model.theta.part import PartSpec
from model.values.contents import AudioClip, Content
from model.values.errors import BadContent, BadMetaInit

KIND = "mel-cnn/1"
ROWS = {"cpu": 2, "cuda": 16}
"""Clips in a chunk, by device."""
BASE_FRAMES = 32
"""The shortest padded clip, in frames: a third of a second."""


@dataclass(frozen=True, slots=True)
class AudioSizes:
    """All that decides the shapes of the network."""

    dim: int = size(1, 65_536, 64)
    max_ms: int = size(1, 600_000, 30_000)
    """The longest clip that is taken, in milliseconds."""
    bands: int = size(8, 128, 64)
    channels: tuple[int, ...] = size(1, 1_024, (16, 32, 64, 64))
    """The output channels of each block."""

    def __post_init__(self) -> None:
        """Raises BadMetaInit when there are more blocks than the bands can be halved."""
        if self.bands >> len(self.channels) == 0:
            raise BadMetaInit(f"{KIND}: {self.bands} bands cannot be halved in every block")


class AudioNet(nn.Module):
    """Turns waves into features; clips of every length in one batch."""

    def __init__(self, sizes: AudioSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.log_mel = LogMel(sizes.bands)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise((1, *sizes.channels))
        )
        left = sizes.bands >> len(sizes.channels)
        self.linear = RowwiseLinear(sizes.channels[-1] * left, sizes.dim)

    def forward(self, wave_RT: Tensor, length_R: Tensor) -> Tensor:
        """Returns the features (R, X) of waves, float32, and of their lengths, at least FRAME.

        What stands behind a wave's length changes nothing.
        """
        h_RFM = self.log_mel(wave_RT)
        frames_R = (length_R - FRAME) // HOP + 1
        # halves come out even, so that no block's last frame is lost
        h_RFM = functional.pad(h_RFM, (0, 0, 0, -h_RFM.shape[1] % 2 ** len(self.convs)))
        h_RCFM = h_RFM[:, None]
        for conv in self.convs:
            h_RCFM = functional.relu(conv(_masked(h_RCFM, frames_R)))
            # beyond the end stands 0, ReLU's least value: it wins over no frame
            h_RCFM = functional.max_pool2d(_masked(h_RCFM, frames_R), 2)
            frames_R = (frames_R + 1) // 2
        h_RFI = _masked(h_RCFM, frames_R).permute(0, 2, 1, 3).flatten(2)
        return scaled(self.linear(h_RFI.sum(1) / frames_R[:, None]))

    def spec(self) -> PartSpec:
        """Returns config and weights, as θ files hold them."""
        return spec_of(KIND, self.sizes, self)


class AudioEncoder:
    """Turns audio clips into features; its weights are fixed."""

    modality: Modality = "audio"

    def __init__(self, spec: PartSpec, device: torch.device) -> None:
        """Raises BadMetaInit when config and tensors do not make a network of this kind."""
        sizes = read_sizes(AudioSizes, KIND, spec.config)
        self.net = read_net(lambda: AudioNet(sizes), spec, device)
        self._device = device

    @property
    def dim(self) -> int:
        """How many features a clip has (X)."""
        return self.net.sizes.dim

    def prepare(self, content: Content) -> NDArray[Any]:
        """Returns samples (T), float32, at 16 kHz, cut to whole frames; at least one frame.

        Raises BadContent: `wrong_modality`, or what `decode_clip` raises.
        """
        if not isinstance(content, AudioClip):
            kind = type(content).__name__
            raise BadContent("wrong_modality", f"audio must be an audio clip, not {kind}")
        wave_T = decode_clip(content, self.net.sizes.max_ms / 1000)
        whole = samples_of(frames_of(len(wave_T)))
        return np.pad(wave_T[:whole], (0, max(whole - len(wave_T), 0)))

    def encode(self, prepared: Sequence[NDArray[Any]]) -> Tensor:
        """Returns features (R, X); each row depends on its own clip alone, to the bit."""
        rows, base = ROWS[self._device.type], HOP * BASE_FRAMES
        return in_chunks(self.net, prepared, self.dim, rows, base, self._device)


def _masked(h_RCFM: Tensor, frames_R: Tensor) -> Tensor:
    return h_RCFM * valid_RT(frames_R, h_RCFM.shape[2])[:, None, :, None]
