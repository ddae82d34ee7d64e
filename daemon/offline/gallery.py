"""Raw contents kept aside, so that a report can show what was found and not only how often.

D = source dim, E = target dim
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from daemon.offline.dataset import RawPair
from model.evaluate.examples import Picture, Shown
from model.values.arrays import FloatArray
from model.values.contents import Content, VideoClip

MAX_STREAMS, MAX_PAIRS = 12, 512
"""Kept at most: streams, and pairs of each."""
MAX_PICTURE_BYTES = 64 * 1024
"""A larger picture is shown by its label: the page holds all its pictures itself."""


@dataclass(slots=True)
class Gallery:
    """What pairs look like, found again by their features, which name a content as well as any
    number would and survive every sorting and splitting of the streams."""

    wanted: Callable[[str], bool]
    """Whether a stream may be shown."""
    _shown: dict[bytes, tuple[Shown, Shown]] = field(default_factory=dict)
    _pairs: dict[str, int] = field(default_factory=dict)

    def keep(self, pair: RawPair, x_D: FloatArray, y_E: FloatArray) -> None:
        """Take the pair in, if it may be shown and there is room."""
        known = pair.stream in self._pairs or len(self._pairs) < MAX_STREAMS
        count = self._pairs.get(pair.stream, 0)
        if known and count < MAX_PAIRS and self.wanted(pair.stream):
            self._pairs[pair.stream] = count + 1
            label = pair.label or f"pair {count + 1}"
            self._shown[_name(x_D, y_E)] = (
                _look(pair.source[1], label),
                _look(pair.target[1], label),
            )

    def find(self, x_D: FloatArray, y_E: FloatArray) -> tuple[Shown, Shown] | None:
        """Source and target of the pair with these features; None if it was not kept."""
        return self._shown.get(_name(x_D, y_E))


def _name(x_D: FloatArray, y_E: FloatArray) -> bytes:
    return x_D.tobytes() + y_E.tobytes()


def _look(content: Content, label: str) -> Shown:
    if isinstance(content, str):
        return content
    if isinstance(content, VideoClip):
        content = content.frames[0]
    if isinstance(content, bytes) and len(content) <= MAX_PICTURE_BYTES:
        return Picture(content)
    return label
