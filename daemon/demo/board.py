"""All that the parent knows of the run, gathered from its processes' news. No clock, no client."""

from __future__ import annotations

import math
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
from daemon.demo.plan import Plan
from daemon.demo.score import Score
from daemon.demo.tally import Tally


@dataclass(slots=True)
class Tenant:
    """One tenant's newest state."""

    pairs: int = 0
    support_pairs: int = 0
    newest: Mapped | None = None


class Board:
    """Take news in; ask it for what to show and for what is still missing."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tenants = {name: Tenant() for name in plan.names()}
        self.tally = Tally()
        self.injected: list[Injected] = []
        self.dead_letters: list[DeadLettered] = []
        self.refused: list[str] = []
        self.latencies_ms: list[float] = []
        self.mappings = 0
        self.produced = 0
        self.finished: Finished | None = None
        self.scraped: Scraped | None = None
        self.listening = False

    def take(self, news: News) -> None:
        """Learn one thing."""
        match news:
            case Produced():
                self.produced = news.events
            case Injected():
                self.injected.append(news)
            case Finished():
                self.produced, self.finished = news.events, news
            case Listening():
                self.listening = True
            case Scored():
                self._score(news)
            case Mapped():
                self._map(news)
            case Refused():
                self.refused.append(news.detail)
            case DeadLettered():
                self.dead_letters.append(news)
            case Scraped():
                self._scrape(news)

    def _score(self, news: Scored) -> None:
        tenant = self.tenants[news.tenant]
        tenant.pairs += 1
        if news.hits:
            tenant.support_pairs = news.support_pairs
            self.tally.add(news.tenant, Score(news.support_pairs, news.hits))

    def _map(self, news: Mapped) -> None:
        self.mappings += 1
        if news.latency_ms is not None:
            self.latencies_ms.append(news.latency_ms)
        tenant = self.tenants[news.tenant]
        if tenant.newest is None or news.version >= tenant.newest.version:
            tenant.newest = news

    def _scrape(self, news: Scraped) -> None:
        """The figures of a worker that did not answer are those it gave before."""
        known = {} if self.scraped is None else self.scraped.figures
        self.scraped = Scraped(news.ready, news.why, news.figures or known)

    @property
    def ready(self) -> bool:
        """Whether the producer may begin."""
        return self.listening and self.scraped is not None and self.scraped.ready

    @property
    def events_seen(self) -> int:
        """Good events that the subscriber has read."""
        return sum(tenant.pairs for tenant in self.tenants.values())

    def figure(self, name: str) -> float:
        """Of the newest scrape; NaN before the first."""
        return math.nan if self.scraped is None else self.scraped.figures.get(name, math.nan)

    def behind(self) -> list[str]:
        """Tenants whose newest mapping does not reflect their last event."""
        last = {} if self.finished is None else self.finished.last
        return [
            name
            for name, tenant in self.tenants.items()
            if tenant.newest is None or tenant.newest.version != last.get(name)
        ]

    def missing(self) -> str | None:
        """What the run still waits for; None when it is complete."""
        if self.finished is None:
            return "the producer to finish"
        if behind := self.behind():
            return f"a mapping with the last event of {some(behind)}"
        if self.events_seen < self.plan.events:
            return f"the subscriber to read {self.plan.events - self.events_seen} more events"
        if len(self.dead_letters) < len(self.injected):
            return f"{len(self.injected) - len(self.dead_letters)} dead letters"
        if not self.figure("accepted") >= self.plan.events:
            return f"/metrics to count {self.plan.events} accepted events"
        return None


def some(names: list[str], most: int = 3) -> str:
    """A few of them, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
