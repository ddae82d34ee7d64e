"""All that the parent knows of the run, gathered from its processes' news. No clock, no client."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from daemon.demo.news import (
    DeadLettered,
    Finished,
    Injected,
    Listening,
    Mapped,
    News,
    Produced,
    Refused,
    Scored,
    Scraped,
)
from daemon.demo.part import Part, PartName, events_of
from daemon.demo.plan import Plan
from daemon.demo.tally import Judged, Tally
from model.values.gate import Outcome


@dataclass(slots=True)
class Stream:
    """One stream's newest state."""

    pairs: int = 0
    support_pairs: int = 0
    newest: Mapped | None = None
    example: Scored | None = None
    """The event judged last."""

    def behind(self, last: int | None) -> bool:
        """Whether the newest mapping owes something to the event at the offset `last`. The fallback
        owes nothing: it is published once, and stands until something is better."""
        if self.newest is None:
            return True
        return self.newest.version != last and not Outcome(self.newest.outcome).is_fallback


class PartBoard:
    """One part of the run."""

    def __init__(self, part: Part) -> None:
        self.name, self.planned = part.name, events_of(part)
        self.streams = {name: Stream() for name in part.streams}
        self.tally = Tally()
        self.latencies_ms: list[float] = []
        self.mappings = 0
        self.produced = 0
        self.last: dict[str, int] | None = None
        """Each stream's last offset, once everything is produced."""
        self.scraped: Scraped | None = None

    def score(self, news: Scored) -> None:
        """A good event was read."""
        stream = self.streams[news.stream]
        stream.pairs += 1
        if news.hits:
            stream.support_pairs, stream.example = news.support_pairs, news
            self.tally.add(news.stream, Judged(news.support_pairs, news.hits))

    def map(self, news: Mapped) -> None:
        """A mapping was read."""
        self.mappings += 1
        if news.latency_ms is not None:
            self.latencies_ms.append(news.latency_ms)
        stream = self.streams[news.stream]
        if stream.newest is None or news.version >= stream.newest.version:
            stream.newest = news

    def scrape(self, news: Scraped) -> None:
        """The figures of a worker that did not answer are those it gave before."""
        known = {} if self.scraped is None else self.scraped.figures
        self.scraped = Scraped(news.part, news.ready, news.why, news.figures or known)

    @property
    def ready(self) -> bool:
        """Whether its worker is."""
        return self.scraped is not None and self.scraped.ready

    @property
    def events_seen(self) -> int:
        """Good events that the subscriber has read."""
        return sum(stream.pairs for stream in self.streams.values())

    @property
    def mapped(self) -> int:
        """Streams that have a mapping."""
        return sum(stream.newest is not None for stream in self.streams.values())

    def figure(self, name: str) -> float:
        """Of the newest scrape; NaN before the first."""
        return math.nan if self.scraped is None else self.scraped.figures.get(name, math.nan)

    def behind(self) -> list[str]:
        """Streams whose newest mapping does not reflect their last event, though it must."""
        last = self.last or {}
        return [name for name, stream in self.streams.items() if stream.behind(last.get(name))]

    def missing(self) -> str | None:
        """What the part still waits for after the producer's end; None when it is complete."""
        if behind := self.behind():
            return f"a mapping with the last event of {some(behind)}"
        if self.events_seen < self.planned:
            return f"the subscriber to read {self.planned - self.events_seen} more events"
        if not self.figure("accepted") >= self.planned:
            return f"/metrics of {self.name} to count {self.planned} accepted events"
        return None


class Board:
    """Take news in; ask it for what to show and for what is still missing."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.parts = {name: PartBoard(part) for name, part in plan.parts().items()}
        self.injected: list[Injected] = []
        self.dead_letters: list[DeadLettered] = []
        self.refused: list[str] = []
        self.finished = False
        self.listening = False

    def take(self, news: News) -> None:
        """Learn one thing."""
        match news:
            case Produced():
                self._produced(news.events)
            case Injected():
                self.injected.append(news)
            case Finished():
                self._finish(news)
            case Listening():
                self.listening = True
            case Scored():
                self.parts[news.part].score(news)
            case Mapped():
                self.parts[news.part].map(news)
            case Refused():
                self.refused.append(news.detail)
            case DeadLettered():
                self.dead_letters.append(news)
            case Scraped():
                self.parts[news.part].scrape(news)

    def _produced(self, events: dict[PartName, int]) -> None:
        for part, count in events.items():
            self.parts[part].produced = count

    def _finish(self, news: Finished) -> None:
        self._produced(news.events)
        for part, last in news.last.items():
            self.parts[part].last = last
        self.finished = True

    @property
    def ready(self) -> bool:
        """Whether the producer may begin."""
        return self.listening and all(part.ready for part in self.parts.values())

    @property
    def events_seen(self) -> int:
        """Good events that the subscriber has read, of all parts."""
        return sum(part.events_seen for part in self.parts.values())

    @property
    def planned(self) -> int:
        """Good events of all parts."""
        return sum(part.planned for part in self.parts.values())

    def missing(self) -> str | None:
        """What the run still waits for; None when it is complete."""
        return next(self._missing(), None)

    def _missing(self) -> Iterator[str]:
        if not self.finished:
            yield "the producer to finish"
        yield from (what for part in self.parts.values() if (what := part.missing()))
        if len(self.dead_letters) < len(self.injected):
            yield f"{len(self.injected) - len(self.dead_letters)} dead letters"


def some(names: list[str], most: int = 3) -> str:
    """A few of them, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
