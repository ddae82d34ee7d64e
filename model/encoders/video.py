"""The video encoder: the image encoder per frame, then a recurrence over frames.

N = clips, F = frames, P = pixels a side, I = features of a frame, H = hidden, D = features

Two GRUs read the frames' features forwards and backwards; what each holds when it has read the
last, and the mean of the frames, are mapped to the features, at norm √D. Frames count by their
order alone: `fps` is not looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.encoders.image import ImageEncoder
from model.encoders.picture import encode_pictures
from model.encoders.pixels import decode_picture
from model.encoders.rowwise import RowwiseLinear
from model.encoders.sequences import in_chunks, reversed_NL, scaled, valid_NL
from model.encoders.trained_part import read_net, read_sizes, size, spec_of
from model.theta.meta_init import Modality
from model.theta.part import PartSpec
from model.values.contents import Content, VideoClip
from model.values.errors import BadContent, BadMetaInit

KIND = "frames-gru/1"
ROWS = {"cpu": 4, "cuda": 64}
BASE_LENGTH = 4
FRAME = "frame."
"""Before the names of the image encoder's tensors."""


@dataclass(frozen=True, slots=True)
class VideoSizes:
    """All that decides the recurrent part's shape."""

    dim: int = size(1, 65_536, 64)
    max_frames: int = size(1, 4_096, 64)
    """Longer clips are refused."""
    frame_dim: int = size(1, 65_536, 64)
    """I."""
    hidden: int = size(1, 4_096, 64)


class VideoNet(nn.Module):
    """Features of frames to features of clips; every length in one batch."""

    def __init__(self, sizes: VideoSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.forwards = nn.GRU(sizes.frame_dim, sizes.hidden, batch_first=True)
        self.backwards = nn.GRU(sizes.frame_dim, sizes.hidden, batch_first=True)
        self.linear = RowwiseLinear(sizes.frame_dim + 2 * sizes.hidden, sizes.dim)

    def forward(self, x_NFI: Tensor, length_N: Tensor) -> Tensor:
        """Features (N, D) at norm √D; what stands behind a clip's length is not looked at."""
        x_NFI = x_NFI * valid_NL(length_N, x_NFI.shape[1])[:, :, None]
        mean_NI = x_NFI.sum(1) / length_N[:, None]
        ahead_NH = _at_the_end(self.forwards(x_NFI)[0], length_N)
        back_NH = _at_the_end(self.backwards(reversed_NL(x_NFI, length_N))[0], length_N)
        return scaled(self.linear(torch.cat([mean_NI, ahead_NH, back_NH], 1)))

    def spec(self, frame: PartSpec) -> PartSpec:
        """Config and weights, and those of the image encoder, as θ files hold them."""
        own = spec_of(KIND, self.sizes, self)
        frames = {FRAME + name: tensor for name, tensor in frame.tensors.items()}
        return PartSpec({**own.config, "frame": dict(frame.config)}, {**own.tensors, **frames})


class VideoEncoder:
    """Clips to features; its weights are fixed."""

    modality: Modality = "video"

    def __init__(self, spec: PartSpec, device: torch.device) -> None:
        """Raises BadMetaInit when config and tensors do not make such a pair of networks."""
        own, frame = split_spec(spec)
        self.frames = ImageEncoder(frame, device)
        sizes = read_sizes(VideoSizes, KIND, own.config)
        if sizes.frame_dim != self.frames.dim:
            raise BadMetaInit(f"{KIND} reads {sizes.frame_dim} features, not {self.frames.dim}")
        self.net = read_net(lambda: VideoNet(sizes), own, device)
        self._device = device

    @property
    def dim(self) -> int:
        """D."""
        return self.net.sizes.dim

    def prepare(self, content: Content) -> NDArray[Any]:
        """Pixels (F, P, P, 3), uint8.

        Raises BadContent: `wrong_modality`, `empty_video`, `too_long_video`, or what
        `decode_picture` raises, with the frame's number.
        """
        if not isinstance(content, VideoClip):
            kind = type(content).__name__
            raise BadContent("wrong_modality", f"video must be a video clip, not {kind}")
        frames, longest = content.frames, self.net.sizes.max_frames
        if not frames:
            raise BadContent("empty_video", "video without a frame")
        if len(frames) > longest:
            raise BadContent("too_long_video", f"video of {len(frames)} frames; at most {longest}")
        return np.stack([self._frame(index, data) for index, data in enumerate(frames)])

    def encode(self, prepared: Sequence[NDArray[Any]]) -> Tensor:
        """Features (N, D), each by its own clip alone, to the bit; all frames in one pass."""
        pictures = [frame for clip in prepared for frame in clip]
        x_I = encode_pictures(self.frames, pictures, self._device).cpu().numpy()
        ends = np.cumsum([len(clip) for clip in prepared])[:-1]
        clips = np.split(x_I, ends) if prepared else []
        rows = ROWS[self._device.type]
        return in_chunks(self.net, clips, self.dim, rows, BASE_LENGTH, self._device)

    def _frame(self, index: int, data: bytes) -> NDArray[np.uint8]:
        try:
            return decode_picture(data, self.frames.side)
        except BadContent as error:
            raise BadContent(error.reason, f"frame {index}: {error}") from error


def split_spec(spec: PartSpec) -> tuple[PartSpec, PartSpec]:
    """The recurrent part's own spec, and the image encoder's; raises BadMetaInit."""
    frame = spec.config.get("frame")
    if not isinstance(frame, Mapping):
        raise BadMetaInit(f"{spec.kind} config has no image encoder under `frame`")
    own = {name: value for name, value in spec.config.items() if name != "frame"}
    inner = {n.removeprefix(FRAME): t for n, t in spec.tensors.items() if n.startswith(FRAME)}
    outer = {n: t for n, t in spec.tensors.items() if not n.startswith(FRAME)}
    return PartSpec(own, outer), PartSpec(frame, inner)


def _at_the_end(h_NFH: Tensor, length_N: Tensor) -> Tensor:
    """The hidden state when a clip's last frame has been read (N, H)."""
    last_N11 = (length_N - 1)[:, None, None].expand(-1, 1, h_NFH.shape[2])
    return h_NFH.gather(1, last_N11)[:, 0]
