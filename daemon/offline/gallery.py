"""Raw contents kept aside, so that a report can show what was retrieved, not only how often.

Q = query pairs, D = source dim, E = target dim
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from daemon.offline.dataset import RawPair
from model.evaluate.episodes import MetaTestEpisode
from model.evaluate.examples import Example, Picture, Shown, examples_of
from model.evaluate.methods import Method
from model.values.arrays import FloatArray
from model.values.contents import Content, VideoClip

MAX_STREAMS, MAX_PAIRS = 12, 512
"""The most streams that are kept, and the most pairs of each."""
MAX_PICTURE_BYTES = 64 * 1024
"""A larger picture is shown by its label instead: the page holds all of its pictures itself."""


@dataclass(slots=True)
class Gallery:
    """Shows pairs. A pair is found again by its features: they name it as well as a number would,
    and stay the same however streams are sorted and split."""

    wanted: Callable[[str], bool]
    """Tells whether a stream may be shown."""
    _shown: dict[bytes, tuple[Shown, Shown]] = field(default_factory=dict)
    _pairs: dict[str, int] = field(default_factory=dict)

    def keep(self, pair: RawPair, x_D: FloatArray, y_E: FloatArray) -> None:
        """Keep the pair, if it may be shown and there is room."""
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
        """Return source and target of the pair with these features; None if it was not kept."""
        return self._shown.get(_name(x_D, y_E))


def gallery_examples(
    episodes: Sequence[MetaTestEpisode], compared: Mapping[str, Method], gallery: Gallery
) -> list[Example]:
    """Return a few queries of different streams, with the targets each method finds nearest."""

    def look(episode: MetaTestEpisode, q: int) -> tuple[Shown, Shown] | None:
        return gallery.find(episode.x_QD[q], episode.y_QE[q])

    return examples_of(episodes, compared, look)


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
