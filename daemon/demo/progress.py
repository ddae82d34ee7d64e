"""The state of a run, kept up to date by the reports of its processes. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from daemon.demo.plan import Plan
from daemon.demo.reports import (
    DeadLetterReceived,
    EventScored,
    EventsProduced,
    MalformedProduced,
    MappingInvalid,
    MappingReceived,
    ProducerFinished,
    Report,
    SubscriberReady,
    WorkerScraped,
)
from daemon.demo.scenarios import Scenario, ScenarioName, planned_events
from daemon.demo.scores import ScenarioScores
from model.values.gate import Outcome


@dataclass(slots=True)
class StreamProgress:
    """What the subscriber has reported of one stream."""

    events_read: int = 0
    support_pairs: int = 0
    """Of the mapping that scored the last event."""
    newest: MappingReceived | None = None
    last_scored: EventScored | None = None

    def is_outdated(self, last_offset: int | None) -> bool:
        """Whether the newest mapping ought to contain the event at `last_offset` and does not.

        A fallback need not: it is published once, and stays until something is better.
        """
        if self.newest is None:
            return True
        return self.newest.version != last_offset and not Outcome(self.newest.outcome).is_fallback


class ScenarioProgress:
    """One scenario: its producer's count, its streams, its worker."""

    def __init__(self, scenario: Scenario) -> None:
        self.name, self.planned = scenario.name, planned_events(scenario)
        self.streams = {name: StreamProgress() for name in scenario.streams}
        self.scores = ScenarioScores()
        self.latencies_ms: list[float] = []
        self.mappings = 0
        self.produced = 0
        self.last_offsets: dict[str, int] = {}
        """Offset of each stream's last good event; empty until everything is produced."""
        self.scraped: WorkerScraped | None = None

    def add_event(self, report: EventScored) -> None:
        """Count a good event that the subscriber has read, and its score if it has one."""
        stream = self.streams[report.stream]
        stream.events_read += 1
        if report.hits:
            stream.support_pairs, stream.last_scored = report.support_pairs, report
            self.scores.add(report.stream, report.support_pairs, report.hits)

    def add_mapping(self, report: MappingReceived) -> None:
        """Count a mapping that the subscriber has read."""
        self.mappings += 1
        self.latencies_ms.append(report.latency_ms)
        stream = self.streams[report.stream]
        if stream.newest is None or report.version >= stream.newest.version:
            stream.newest = report

    def set_scrape(self, report: WorkerScraped) -> None:
        """Keep the newest scrape. If the worker did not answer, its figures before stay."""
        if not report.figures and self.scraped is not None:
            report = msgspec.structs.replace(report, figures=self.scraped.figures)
        self.scraped = report

    @property
    def worker_ready(self) -> bool:
        """Whether the worker was ready at the newest scrape."""
        return self.scraped is not None and self.scraped.ready

    @property
    def events_read(self) -> int:
        """Good events that the subscriber has read."""
        return sum(stream.events_read for stream in self.streams.values())

    @property
    def streams_with_mapping(self) -> int:
        """Streams of which the subscriber has read a mapping."""
        return sum(stream.newest is not None for stream in self.streams.values())

    def figure(self, name: str) -> float:
        """Returns a figure of the newest scrape; NaN before the first."""
        return math.nan if self.scraped is None else self.scraped.figures.get(name, math.nan)

    def outdated(self) -> list[str]:
        """Returns the streams whose newest mapping lacks their last event; see `StreamProgress`."""
        return [
            name
            for name, stream in self.streams.items()
            if stream.is_outdated(self.last_offsets.get(name))
        ]

    def missing(self) -> str | None:
        """Returns what the scenario waits for after the producer's end; None when complete."""
        if outdated := self.outdated():
            return f"a mapping with the last event of {abbreviated(outdated)}"
        if self.events_read < self.planned:
            return f"the subscriber to read {self.planned - self.events_read} more events"
        if not self.figure("accepted") >= self.planned:
            return f"/metrics of {self.name} to count {self.planned} accepted events"
        return None


class DemoProgress:
    """Both scenarios, and what the producer and the subscriber have reported."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.scenarios = {name: ScenarioProgress(each) for name, each in plan.scenarios().items()}
        self.malformed: list[MalformedProduced] = []
        self.dead_letters: list[DeadLetterReceived] = []
        self.invalid_mappings: list[str] = []
        self.producer_finished = False
        self.subscriber_ready = False

    def update(self, report: Report) -> None:
        """Change the state by what one report says."""
        match report:
            case EventsProduced():
                self._set_produced(report.events)
            case MalformedProduced():
                self.malformed.append(report)
            case ProducerFinished():
                self._finish(report)
            case SubscriberReady():
                self.subscriber_ready = True
            case EventScored():
                self.scenarios[report.scenario].add_event(report)
            case MappingReceived():
                self.scenarios[report.scenario].add_mapping(report)
            case MappingInvalid():
                self.invalid_mappings.append(report.detail)
            case DeadLetterReceived():
                self.dead_letters.append(report)
            case WorkerScraped():
                self.scenarios[report.scenario].set_scrape(report)

    def _set_produced(self, events: dict[ScenarioName, int]) -> None:
        for name, count in events.items():
            self.scenarios[name].produced = count

    def _finish(self, report: ProducerFinished) -> None:
        self._set_produced(report.events)
        for name, offsets in report.last_offsets.items():
            self.scenarios[name].last_offsets = offsets
        self.producer_finished = True

    @property
    def events_read(self) -> int:
        """Good events of both scenarios that the subscriber has read."""
        return sum(scenario.events_read for scenario in self.scenarios.values())

    @property
    def planned(self) -> int:
        """Good events of both scenarios."""
        return sum(scenario.planned for scenario in self.scenarios.values())

    def not_ready(self) -> str | None:
        """Returns what must be ready before the producer starts; None when all is."""
        workers = all(scenario.worker_ready for scenario in self.scenarios.values())
        if workers and self.subscriber_ready:
            return None
        return "the workers and the subscriber to be ready"

    def missing(self) -> str | None:
        """Returns what the run still waits for; None when it is complete."""
        return next(self._missing(), None)

    def _missing(self) -> Iterator[str]:
        if not self.producer_finished:
            yield "the producer to finish"
        yield from (what for scenario in self.scenarios.values() if (what := scenario.missing()))
        if len(self.dead_letters) < len(self.malformed):
            yield f"dead letters ({len(self.malformed) - len(self.dead_letters)} more)"


def abbreviated(names: list[str], most: int = 3) -> str:
    """Returns the first `most` names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
