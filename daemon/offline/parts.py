"""Recorded streams by what they are for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model.meta.splits import Fractions, Part
from model.meta.streams import RecordedStream, select
from model.values.errors import BadData


@dataclass(frozen=True, slots=True)
class Parts:
    """No stream and no label is in two of them."""

    train: list[RecordedStream]
    validation: list[RecordedStream]
    test: list[RecordedStream]


@dataclass(frozen=True, slots=True)
class Split:
    """How streams are split: by name and seed alone."""

    seed: int
    fractions: Fractions
    labels_too: bool
    """Keep labels apart too: what is judged on shows no label that was trained on."""

    def __call__(
        self, streams: Sequence[RecordedStream], note: Callable[[str], None] = lambda line: None
    ) -> Parts:
        """Raises BadData without training streams; other parts may be empty, which is noted."""
        return Parts(
            self._part(streams, "train"),
            self._part_or_none(streams, "validation", note),
            self._part_or_none(streams, "test", note),
        )

    def _part(self, streams: Sequence[RecordedStream], name: Part) -> list[RecordedStream]:
        labels = (name,) if self.labels_too else None
        return select(streams, self.seed, (name,), labels, self.fractions)

    def _part_or_none(
        self, streams: Sequence[RecordedStream], name: Part, note: Callable[[str], None]
    ) -> list[RecordedStream]:
        try:
            return self._part(streams, name)
        except BadData as e:
            note(f"no {name} streams: {e}")
            return []
