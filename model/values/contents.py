"""The raw contents of a modality, as events bring them. No torch here."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class AudioClip:
    """A WAV file, or raw little-endian 16-bit PCM, interleaved, with its rate (Hz) and channels."""

    data: bytes
    encoding: Literal["wav", "pcm_s16le"] = "wav"
    rate: int | None = None
    channels: int = 1


@dataclass(frozen=True, slots=True)
class VideoClip:
    """Frames in order, each an image file, at `fps` frames per second."""

    frames: tuple[bytes, ...]
    fps: float | None = None


Content = bytes | str | NDArray[np.generic] | AudioClip | VideoClip
"""An image file, a text, a vector, an audio clip or a video clip."""
