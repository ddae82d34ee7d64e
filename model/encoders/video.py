"""The video encoder: the image encoder on every frame, then a recurrence over the frames.

R = rows (clips), F = frames, T = time steps (frames), P = pixels a side,
I = inputs of a layer (features of a frame), H = hidden units (of one GRU), X = source or target dim

Two GRUs read the frames' features, one forwards and one backwards in time. The state of each after
its last frame, and the mean of the frames' features, go through a linear map, and the result is
scaled to norm √X. Only the order of the frames counts, not `fps`.
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
from model.encoders.picture_file import check_work_together
from model.encoders.pixels import decode_picture
from model.encoders.rowwise import RowwiseLinear
from model.encoders.sequences import in_chunks, reversed_RT, scaled, valid_RT
from model.encoders.trained_part import read_net, read_sizes, size, spec_of
from model.theta.meta_init import Modality
from model.theta.part import PartSpec
from model.values.contents import Content, VideoClip
from model.values.errors import BadContent, BadMetaInit

KIND = "frames-gru/1"
ROWS = {"cpu": 4, "cuda": 64}
"""Clips in a chunk, by device."""
BASE_LENGTH = 4
"""The shortest padded clip, in frames."""
FRAME = "frame."
"""What the names of the image encoder's tensors begin with."""


@dataclass(frozen=True, slots=True)
class VideoSizes:
    """All that decides the shapes of the recurrent part."""

    dim: int = size(1, 65_536, 64)
    max_frames: int = size(1, 4_096, 64)
    """The longest clip that is taken, in frames."""
    frame_dim: int = size(1, 65_536, 64)
    """Features of a frame (I)."""
    hidden: int = size(1, 4_096, 64)
    """Hidden units of each GRU (H)."""


class VideoNet(nn.Module):
    """Turns features of frames into features of clips; clips of every length in one batch."""

    def __init__(self, sizes: VideoSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.forwards = nn.GRU(sizes.frame_dim, sizes.hidden, batch_first=True)
        self.backwards = nn.GRU(sizes.frame_dim, sizes.hidden, batch_first=True)
        self.linear = RowwiseLinear(sizes.frame_dim + 2 * sizes.hidden, sizes.dim)

    def forward(self, x_RFI: Tensor, length_R: Tensor) -> Tensor:
        """Returns the features (R, X) of clips, given those of their frames (R, F, I).

        What stands behind a clip's length changes nothing.
        """
        x_RFI = x_RFI * valid_RT(length_R, x_RFI.shape[1])[:, :, None]
        mean_RI = x_RFI.sum(1) / length_R[:, None]
        ahead_RH = _at_the_end(self.forwards(x_RFI)[0], length_R)
        back_RH = _at_the_end(self.backwards(reversed_RT(x_RFI, length_R))[0], length_R)
        return scaled(self.linear(torch.cat([mean_RI, ahead_RH, back_RH], 1)))

    def spec(self, frame: PartSpec) -> PartSpec:
        """Returns config and weights, with those of the image encoder, as θ files hold them."""
        own = spec_of(KIND, self.sizes, self)
        frames = {FRAME + name: tensor for name, tensor in frame.tensors.items()}
        return PartSpec({**own.config, "frame": dict(frame.config)}, {**own.tensors, **frames})


class VideoEncoder:
    """Turns video clips into features; its weights are fixed."""

    modality: Modality = "video"

    def __init__(self, spec: PartSpec, device: torch.device) -> None:
        """Raises BadMetaInit when config and tensors do not make the two networks."""
        own, frame = split_spec(spec)
        self.frames = ImageEncoder(frame, device)
        sizes = read_sizes(VideoSizes, KIND, own.config)
        if sizes.frame_dim != self.frames.dim:
            raise BadMetaInit(f"{KIND} reads {sizes.frame_dim} features, not {self.frames.dim}")
        self.net = read_net(lambda: VideoNet(sizes), own, device)
        self._device = device

    @property
    def dim(self) -> int:
        """How many features a clip has (X)."""
        return self.net.sizes.dim

    def prepare(self, content: Content) -> NDArray[Any]:
        """Returns pixels (F, P, P, 3), uint8.

        Raises BadContent: `wrong_modality`, `empty_video`, `too_long_video`, `too_much_work` when
        all frames together have too many pixels, or what `decode_picture` raises, with the frame's
        number.
        """
        if not isinstance(content, VideoClip):
            kind = type(content).__name__
            raise BadContent("wrong_modality", f"video must be a video clip, not {kind}")
        frames, longest = content.frames, self.net.sizes.max_frames
        if not frames:
            raise BadContent("empty_video", "video without a frame")
        if len(frames) > longest:
            raise BadContent("too_long_video", f"video of {len(frames)} frames; at most {longest}")
        check_work_together(frames)
        return np.stack([self._frame(index, data) for index, data in enumerate(frames)])

    def encode(self, prepared: Sequence[NDArray[Any]]) -> Tensor:
        """Returns features (R, X); each row depends on its own clip alone, to the bit.

        All frames of all clips go through the image encoder in one pass.
        """
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
    """Returns the spec of the recurrent part and that of the image encoder.

    Raises BadMetaInit when the config holds no image encoder.
    """
    frame = spec.config.get("frame")
    if not isinstance(frame, Mapping):
        raise BadMetaInit(f"{spec.kind} config has no image encoder under `frame`")
    own = {name: value for name, value in spec.config.items() if name != "frame"}
    inner = {n.removeprefix(FRAME): t for n, t in spec.tensors.items() if n.startswith(FRAME)}
    outer = {n: t for n, t in spec.tensors.items() if not n.startswith(FRAME)}
    return PartSpec(own, outer), PartSpec(frame, inner)


def _at_the_end(h_RFH: Tensor, length_R: Tensor) -> Tensor:
    """Returns the hidden state (R, H) after each clip's last frame."""
    last_R11 = (length_R - 1)[:, None, None].expand(-1, 1, h_RFH.shape[2])
    return h_RFH.gather(1, last_R11)[:, 0]
