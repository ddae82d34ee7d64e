"""How far each partition's end is ahead: asked at intervals, never waited for. No client."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future

ASK_INTERVAL_S = 1.0
STALE_S = 15.0
"""An end that was heard longer ago is not known any more: the broker does not answer."""

Ask = Callable[[Collection[int]], Future[dict[int, int]]]
"""Sends brokers a request for the ends of these partitions, and returns at once."""


class EndOffsets:
    """The end of each partition as brokers last gave it. Used from one thread; the futures may be
    completed on others."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._answer: Future[dict[int, int]] | None = None
        self._asked_at = float("-inf")
        self._ends: dict[int, tuple[int, float]] = {}

    def refresh(self, partitions: Collection[int], now: float) -> bool:
        """Takes in an answer that has come, and asks again when it is time, one request at a
        time. Returns whether an answer has come."""
        heard = self._take(now)
        due = now - self._asked_at >= ASK_INTERVAL_S
        if partitions and due and self._answer is None:
            self._answer, self._asked_at = self._ask(partitions), now
        return heard

    def _take(self, now: float) -> bool:
        answer = self._answer
        if answer is None or not answer.done():
            return False
        self._answer = None
        if answer.exception() is not None:
            return False
        self.note(answer.result(), now)
        return True

    def note(self, ends: Mapping[int, int], now: float) -> None:
        """Takes in ends that were heard otherwise."""
        self._ends |= {partition: (end, now) for partition, end in ends.items()}

    def lag(self, positions: Mapping[int, int], now: float) -> dict[int, int]:
        """Returns how far the ends are ahead of the positions, where both are known. A position
        beyond the end that was heard shows that the end has moved: it is taken for the end until
        the next answer."""
        lags: dict[int, int] = {}
        for partition, position in positions.items():
            end, heard_at = self._ends.get(partition, (0, float("-inf")))
            if now - heard_at > STALE_S:
                continue
            if position > end:
                self._ends[partition] = (position, heard_at)
            lags[partition] = max(0, end - position)
        return lags
