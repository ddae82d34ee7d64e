"""The reports of a perfect run of the demo, without its processes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from daemon.demo.plan import Plan
from daemon.demo.progress import DemoProgress
from daemon.demo.reports import (
    DeadLetterReceived,
    EventScored,
    MalformedProduced,
    MappingReceived,
    ProducerFinished,
    Report,
    SubscriberReady,
    WorkerScraped,
)
from daemon.demo.scenarios import LANGUAGES, MALFORMED_KINDS, ScenarioName

PLAN = Plan(tenants=2, events_per_tenant=3, events_per_language=2)
LAST: dict[ScenarioName, dict[str, int]] = {
    "tenants": {"tenant-01": 40, "tenant-02": 41},
    "names": {language: 50 + n for n, language in enumerate(LANGUAGES)},
}
EACH: dict[ScenarioName, int] = {
    "tenants": PLAN.events_per_tenant,
    "names": PLAN.events_per_language,
}
ALL: dict[ScenarioName, int] = {
    scenario: EACH[scenario] * len(last) for scenario, last in LAST.items()
}
GOOD = {"adapted": True, "theta": False, "ridge": False}


def _scored(scenario: ScenarioName) -> list[EventScored]:
    one_each = [EventScored(scenario, name, 16, GOOD, "🍎", "apple") for name in LAST[scenario]]
    return [scored for scored in one_each for _ in range(EACH[scenario])]


@dataclass
class PerfectRun:
    """The reports; tests spoil them. `scored` are the tenants'."""

    scored: list[EventScored] = field(default_factory=lambda: _scored("tenants"))
    names_scored: list[EventScored] = field(default_factory=lambda: _scored("names"))
    mappings: list[MappingReceived] = field(
        default_factory=lambda: [
            MappingReceived(scenario, name, version, "adapted", 1.0, 0.5, 20.0)
            for scenario, last in LAST.items()
            for name, version in last.items()
        ]
    )
    malformed: list[MalformedProduced] = field(
        default_factory=lambda: [
            MalformedProduced("tenants", 0, i, kind.description, kind.reason)
            for i, kind in enumerate(MALFORMED_KINDS)
        ]
    )
    dead_letters: list[DeadLetterReceived] = field(
        default_factory=lambda: [
            DeadLetterReceived("tenants", "tenant-01", 0, i, kind.reason, "")
            for i, kind in enumerate(MALFORMED_KINDS)
        ]
    )
    finished: ProducerFinished = field(
        default_factory=lambda: ProducerFinished(dict(ALL), dict(LAST))
    )
    figures: dict[ScenarioName, dict[str, float]] = field(
        default_factory=lambda: {
            scenario: {"accepted": count, "pairs_new": count} for scenario, count in ALL.items()
        }
    )
    more: list[Report] = field(default_factory=list)

    def progress(self) -> DemoProgress:
        progress = DemoProgress(PLAN)
        first: list[Report] = [SubscriberReady(), *self.malformed, self.finished]
        last = [
            WorkerScraped(scenario, True, "", figures) for scenario, figures in self.figures.items()
        ]
        scored = (*self.scored, *self.names_scored)
        for report in (*first, *self.mappings, *scored, *self.dead_letters, *last, *self.more):
            progress.update(report)
        return progress


@pytest.fixture
def run() -> PerfectRun:
    return PerfectRun()
