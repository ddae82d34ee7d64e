"""Scores, added up: every tenant weighs the same in a mean. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from daemon.demo.score import METHODS, Score

BUCKETS = (4, 8, 16, 32, 64)
"""By support pairs: 4 stands for 4 to 7, 64 for 64 and more."""
RECENT = 16
"""Events in a running score."""


def bucket(support_pairs: int) -> int | None:
    """The largest of BUCKETS that is not larger."""
    return max((size for size in BUCKETS if size <= support_pairs), default=None)


class Tally:
    """All tenants' scores."""

    def __init__(self) -> None:
        self._scores: dict[str, list[Score]] = defaultdict(list)

    def add(self, tenant: str, score: Score) -> None:
        """Count one judged event."""
        self._scores[tenant].append(score)

    def recent(self, tenant: str) -> dict[str, float | None]:
        """The tenant's R@1 over its newest events, by method."""
        newest = self._scores[tenant][-RECENT:]
        return {method: _share(newest, method) for method in METHODS}

    def recent_mean(self) -> dict[str, float | None]:
        """The same, averaged over the tenants."""
        newest = [scores[-RECENT:] for scores in self._scores.values()]
        return {method: _mean(_share(scores, method) for scores in newest) for method in METHODS}

    def by_pairs(self) -> dict[str, dict[str, float | None]]:
        """R@1 by method and by number of support pairs; None where nothing was judged."""
        return {
            method: {str(size): self._r_at_1(method, size) for size in BUCKETS}
            for method in METHODS
        }

    def from_pairs(self, least: int) -> dict[str, float | None]:
        """R@1 by method of the events judged with at least so many support pairs."""
        return {method: self._where(method, lambda pairs: pairs >= least) for method in METHODS}

    def _r_at_1(self, method: str, size: int) -> float | None:
        return self._where(method, lambda pairs: bucket(pairs) == size)

    def _where(self, method: str, wanted: Callable[[int], bool]) -> float | None:
        return _mean(
            _share([score for score in scores if wanted(score.support_pairs)], method)
            for scores in self._scores.values()
        )


def _share(scores: list[Score], method: str) -> float | None:
    return sum(score.hits[method] for score in scores) / len(scores) if scores else None


def _mean(shares: Iterable[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None
