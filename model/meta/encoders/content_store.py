"""Prepared contents in memory, each under a number, for encoders that are still to be trained.

R = rows (contents)

Contents of one modality differ in length and do not fit a matrix; a content's number stands for it
in streams and episodes. Equal contents have the same number, and are kept once.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.encoders.encoder import Encoder
from model.meta.episodes import IndexArray
from model.values.errors import BadData

MAX_BYTES = 2 * 2**30
"""The most memory for both sides together: 9 hours of audio, or 645,000 pictures of 32 pixels a
side."""
OVERHEAD = 256
"""About the bytes that a content takes beside its numbers."""


class Room:
    """How much memory contents may take; one for both sides."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._taken = 0

    def take(self, array: NDArray[Any]) -> None:
        """Reserve memory for a content. Raises BadData when there is not enough left."""
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

    def add(self, prepared: Sequence[NDArray[Any]]) -> IndexArray:
        """Keep copies of contents and return their numbers (R). Raises BadData when there is no
        room for them."""
        return np.array([self._number(array) for array in prepared], np.int64)

    def take(self, number_R: Tensor) -> list[NDArray[Any]]:
        """Return the contents of these numbers."""
        return [self._contents[number] for number in number_R.tolist()]

    def scale(self) -> float:
        """Return the root mean square of contents that are vectors; 1 if all are 0."""
        squares = sum(float(np.square(c, dtype=np.float64).sum()) for c in self._contents)
        return (squares / max(1, sum(c.size for c in self._contents))) ** 0.5 or 1.0

    @property
    def content_hash(self) -> str:
        """sha256 (hex) over every content, in the order of their numbers."""
        return hashlib.sha256(b"".join(self._numbers)).hexdigest()

    def _number(self, array: NDArray[Any]) -> int:
        digest = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
        number = self._numbers.setdefault(digest.digest(), len(self._contents))
        if number == len(self._contents):
            self._room.take(array)
            self._contents.append(np.array(array))
        return number


class StoredSide:
    """One side of streams whose contents are kept by number: prepared, where the side's encoder is
    to be trained, or as the features that an encoder makes of them, where it is not."""

    def __init__(self, encoder: Encoder, room: Room, *, features: bool) -> None:
        self.encoder = encoder
        """Prepares contents."""
        self.store = ContentStore(room)
        self._features = features

    def add(self, prepared: Sequence[NDArray[Any]]) -> IndexArray:
        """Keep contents and return their numbers (R). Raises BadData when there is no room."""
        if self._features:
            return self.store.add(list(self.encoder.encode(prepared).cpu().numpy()))
        return self.store.add(prepared)
