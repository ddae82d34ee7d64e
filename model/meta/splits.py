"""Train, validation and test: which part of the data a stream or a label belongs to.

A name's part depends on the name, the seed and the fractions alone. More streams, or another
order, move none of the others: what was a test stream last month is one today.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, Self, TypeVar

from model.meta.episodes import IndexArray
from model.values.errors import BadData

Part = Literal["train", "validation", "test"]


class LabelledPairs(Protocol):
    """A stream with its pairs, in whatever form: what can be split."""

    @property
    def name(self) -> str:
        """Name of the stream."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Every pair's label; None where pairs have none."""

    def __len__(self) -> int:
        """Number of pairs."""

    def taken(self, places: IndexArray | Sequence[int]) -> Self:
        """Return the stream with the pairs at these places alone, in that order."""


S = TypeVar("S", bound=LabelledPairs)


@dataclass(frozen=True, slots=True)
class Fractions:
    """How much of the data validation and test get; the rest is for training."""

    validation: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        """Raise ValueError unless all three fractions are within 0 and 1."""
        if min(self.validation, self.test) < 0.0 or self.validation + self.test > 1.0:
            raise ValueError(f"fractions of validation and test must fit into 1, not {self}")


DEFAULT_FRACTIONS = Fractions()


def part_of(name: str, seed: int, fractions: Fractions = DEFAULT_FRACTIONS) -> Part:
    """Return the part of the stream or label of that name."""
    digest = hashlib.sha256(f"{seed}\n{name}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < fractions.test:
        return "test"
    return "validation" if place < fractions.test + fractions.validation else "train"


def select(
    streams: Sequence[S],
    seed: int,
    stream_parts: Collection[Part],
    label_parts: Collection[Part] | None = None,
    fractions: Fractions = DEFAULT_FRACTIONS,
) -> list[S]:
    """Return the streams of these parts, with the pairs whose labels are of `label_parts`.

    Streams without labels keep all their pairs, and `label_parts` None keeps every label.
    Raises BadData when nothing is left.
    """
    chosen = [s for s in streams if part_of(s.name, seed, fractions) in stream_parts]
    if not chosen:
        raise BadData(
            f"none of the {len(streams)} streams falls into {', '.join(sorted(stream_parts))} "
            f"(validation {fractions.validation:g}, test {fractions.test:g}, seed {seed}): "
            "record more streams, or choose other fractions or another seed"
        )
    if label_parts is None:
        return chosen
    kept = [_with_labels_of(s, seed, label_parts, fractions) for s in chosen]
    if not any(map(len, kept)):
        raise BadData(f"no label of these streams falls into {', '.join(sorted(label_parts))}")
    return kept


def _with_labels_of(stream: S, seed: int, parts: Collection[Part], fractions: Fractions) -> S:
    if stream.labels is None:
        return stream
    part_by_label = {n: part_of(f"label\n{n}", seed, fractions) for n in set(stream.labels)}
    return stream.taken([i for i, n in enumerate(stream.labels) if part_by_label[n] in parts])


@dataclass(frozen=True, slots=True)
class SplitStreams(Generic[S]):
    """Streams by part. No stream is in two of them; nor is a label, where labels are split too."""

    train: list[S]
    validation: list[S]
    test: list[S]


@dataclass(frozen=True, slots=True)
class Split:
    """How streams are split: by name and seed alone."""

    seed: int
    fractions: Fractions
    labels_too: bool
    """Split labels too, so that what is judged on shows no label that was trained on."""

    def __call__(
        self, streams: Sequence[S], note: Callable[[str], None] = lambda line: None
    ) -> SplitStreams[S]:
        """Split the streams. Validation and test may come out empty, which `note` is told.

        Raises BadData without training streams.
        """
        return SplitStreams(
            self._part(streams, "train"),
            self._part_or_none(streams, "validation", note),
            self._part_or_none(streams, "test", note),
        )

    def _part(self, streams: Sequence[S], name: Part) -> list[S]:
        labels = (name,) if self.labels_too else None
        return select(streams, self.seed, (name,), labels, self.fractions)

    def _part_or_none(
        self, streams: Sequence[S], name: Part, note: Callable[[str], None]
    ) -> list[S]:
        try:
            return self._part(streams, name)
        except BadData as e:
            note(f"no {name} streams: {e}")
            return []
