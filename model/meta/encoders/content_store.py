"""Prepared contents in memory, each under a number, so that episodes can be drawn of numbers.

N = contents

Contents of one modality differ in length and do not fit a matrix. What is drawn from streams of
their numbers (features of one dim, which float32 holds exactly) follows every rule that streams of
features follow: splits, cuts, labels, order.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.encoders.encoder import Encoder
from model.theta.meta_init import Modality
from model.values.contents import Content
from model.values.errors import BadData

MAX_BYTES = 2 * 2**30
"""Of both sides together: 9 hours of audio, or 645,000 pictures of 32 pixels a side."""
MAX_CONTENTS = 2**24
"""Of a side: the integers that float32 holds."""
OVERHEAD = 256
"""Bytes that a content takes beside its numbers, about."""


class Room:
    """How much may be kept; one for both sides."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._taken = 0

    def take(self, array: NDArray[Any]) -> None:
        """Raises BadData when there is no more."""
        self._taken += array.nbytes + OVERHEAD
        if self._taken > self._max_bytes:
            raise BadData(
                f"contents to train encoders on take more than {self._max_bytes / 2**20:,.0f} MiB "
                "of memory: take fewer streams, or shorter or smaller contents"
            )


class ContentStore:
    """Prepared contents of one side, by number."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._contents: list[NDArray[Any]] = []
        self._numbers: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._contents)

    def add(self, prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Keep copies; their numbers (N, 1), the same ones for the same contents. Raises BadData
        when there is no room for them."""
        return np.array([[self._number(array)] for array in prepared], np.float32).reshape(-1, 1)

    def take(self, number_N: Tensor) -> list[NDArray[Any]]:
        """The contents of these numbers."""
        return [self._contents[number] for number in number_N.tolist()]

    def scale(self) -> float:
        """The root mean square of contents that are vectors; 1 if all are 0."""
        squares = sum(float(np.square(c, dtype=np.float64).sum()) for c in self._contents)
        return (squares / max(1, sum(c.size for c in self._contents))) ** 0.5 or 1.0

    @property
    def content_hash(self) -> str:
        """sha256 (hex) over every content, in order."""
        return hashlib.sha256(b"".join(self._numbers)).hexdigest()

    def _number(self, array: NDArray[Any]) -> int:
        digest = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
        number = self._numbers.setdefault(digest.digest(), len(self._contents))
        if number == len(self._contents):
            if number == MAX_CONTENTS:
                raise BadData(f"more than {MAX_CONTENTS} contents to train encoders on")
            self._room.take(array)
            self._contents.append(np.array(array))
        return number


class StoringEncoder:
    """An Encoder whose features are numbers in a store: of prepared contents, for a side whose
    encoder is to be trained, or of another encoder's features."""

    dim = 1

    def __init__(self, encoder: Encoder, room: Room, *, features: bool) -> None:
        self.store = ContentStore(room)
        self._encoder = encoder
        self._features = features

    @property
    def modality(self) -> Modality:
        """The encoder's."""
        return self._encoder.modality

    def prepare(self, content: Content) -> NDArray[Any]:
        """As the encoder does. Raises BadContent."""
        return self._encoder.prepare(content)

    def encode(self, prepared: Sequence[NDArray[Any]]) -> Tensor:
        """Numbers (N, 1). Raises BadData when there is no room for them."""
        kept = list(self._encoder.encode(prepared).cpu().numpy()) if self._features else prepared
        return torch.from_numpy(self.store.add(kept))
