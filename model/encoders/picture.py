"""Image files to features: the image encoder behind the protocol of all encoders.

R = rows (pictures), P = pixels a side, X = source or target dim
"""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from model.encoders.image import ImageEncoder
from model.encoders.pixels import decode_picture
from model.encoders.sequences import in_chunks
from model.theta.meta_init import Modality
from model.theta.part import PartSpec
from model.values.contents import Content
from model.values.errors import BadContent

ROWS = {"cpu": 4, "cuda": 128}
"""Pictures in a chunk, by device. A lone picture costs as much as a whole chunk; on a CPU, larger
chunks gain nothing."""


class PictureEncoder:
    """Turns image files into features; its weights are fixed."""

    modality: Modality = "image"

    def __init__(self, spec: PartSpec, device: torch.device) -> None:
        """Raises BadMetaInit when config and tensors do not make an image encoder."""
        self.net = ImageEncoder(spec, device)
        self._device = device

    @property
    def dim(self) -> int:
        """How many features a picture has (X)."""
        return self.net.dim

    def prepare(self, content: Content) -> NDArray[Any]:
        """Returns pixels (P, P, 3), uint8.

        Raises BadContent: `wrong_modality`, or what `decode_picture` raises.
        """
        if not isinstance(content, bytes):
            kind = type(content).__name__
            raise BadContent("wrong_modality", f"image must be bytes, not {kind}")
        return decode_picture(content, self.net.side)

    def encode(self, prepared: Sequence[NDArray[Any]]) -> Tensor:
        """Returns features (R, X); each row depends on its own picture alone, to the bit."""
        return encode_pictures(self.net, prepared, self._device)


def encode_pictures(
    net: ImageEncoder, pictures: Sequence[NDArray[Any]], device: torch.device
) -> Tensor:
    """Returns the features (R, X) of pictures (P, P, 3), uint8, computed in whole chunks."""
    rows = ROWS[device.type]
    return in_chunks(lambda x, _: net.encode(x), pictures, net.dim, rows, net.side, device)
