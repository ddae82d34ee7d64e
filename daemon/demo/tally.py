"""Scores, added up: every stream weighs the same in a mean. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from daemon.demo.score import METHODS

BUCKETS = (4, 8, 16, 32, 64)
"""By support pairs: 4 stands for 4 to 7, 64 for 64 and more."""
RECENT = 16
"""Events in a running score."""

Shares = dict[str, float | None]
"""R@1 by method; None where nothing was judged."""


def bucket(support_pairs: int) -> int | None:
    """The largest of BUCKETS that is not larger."""
    return max((size for size in BUCKETS if size <= support_pairs), default=None)


@dataclass(frozen=True, slots=True)
class Judged:
    """One event: by a mapping of how many support pairs, and which methods were right."""

    support_pairs: int
    hits: Mapping[str, bool]


class Tally:
    """The scores of one part's streams."""

    def __init__(self) -> None:
        self._scores: dict[str, list[Judged]] = defaultdict(list)

    def add(self, stream: str, score: Judged) -> None:
        """Count one judged event."""
        self._scores[stream].append(score)

    def recent(self, stream: str) -> Shares:
        """The stream's R@1 over its newest events."""
        return _shares(self._scores[stream][-RECENT:])

    def of(self, stream: str) -> Shares:
        """The stream's R@1 over all its events."""
        return _shares(self._scores[stream])

    def recent_mean(self) -> Shares:
        """R@1 over each stream's newest events, averaged over the streams."""
        newest = [scores[-RECENT:] for scores in self._scores.values()]
        return {method: _mean(_share(scores, method) for scores in newest) for method in METHODS}

    def mean(self) -> Shares:
        """The same over all events."""
        return self.from_pairs(0)

    def by_pairs(self) -> dict[str, Shares]:
        """R@1 by method, and then by number of support pairs."""
        return {
            method: {str(size): self._r_at_1(method, size) for size in BUCKETS}
            for method in METHODS
        }

    def from_pairs(self, least: int) -> Shares:
        """R@1 of the events judged with at least so many support pairs."""
        return {method: self._where(method, lambda pairs: pairs >= least) for method in METHODS}

    def disagreements(self, one: str, other: str, least: int) -> tuple[int, int]:
        """Events, judged with at least so many support pairs, that only the one method got right,
        and that only the other did."""
        judged = [
            s.hits for each in self._scores.values() for s in each if s.support_pairs >= least
        ]
        ones = sum(hits[one] and not hits[other] for hits in judged)
        others = sum(hits[other] and not hits[one] for hits in judged)
        return ones, others

    def judged(self, least: int) -> int:
        """Events that were judged with at least so many support pairs."""
        return sum(s.support_pairs >= least for each in self._scores.values() for s in each)

    def _r_at_1(self, method: str, size: int) -> float | None:
        return self._where(method, lambda pairs: bucket(pairs) == size)

    def _where(self, method: str, wanted: Callable[[int], bool]) -> float | None:
        return _mean(
            _share([score for score in scores if wanted(score.support_pairs)], method)
            for scores in self._scores.values()
        )


def _shares(scores: list[Judged]) -> Shares:
    return {method: _share(scores, method) for method in METHODS}


def _share(scores: list[Judged], method: str) -> float | None:
    return sum(score.hits[method] for score in scores) / len(scores) if scores else None


def _mean(shares: Iterable[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None
