"""What one run of the demo produces, and when. Everything follows from a few numbers."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from daemon import config
from daemon.config import Settings
from daemon.demo.scenarios import (
    MalformedKind,
    NameScenario,
    Scenario,
    ScenarioName,
    TenantScenario,
    planned_events,
    scenario_pair,
)
from daemon.wire import paired_event
from daemon.wire.paired_event import PairedEvent


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The size, the duration and the seed of one run."""

    tenants: int = 24
    events_per_tenant: int = 80
    """More than a window's 64 + 4 pairs, so that some events are scored with a full support."""
    events_per_language: int = 80
    seconds: float = 30.0
    """How long the producer takes, at a steady rate."""
    seed: int = 0

    def scenarios(self) -> Mapping[ScenarioName, Scenario]:
        """Returns both scenarios by name."""
        return {
            "tenants": TenantScenario(self.tenants, self.events_per_tenant),
            "names": NameScenario(self.events_per_language),
        }

    @property
    def events(self) -> int:
        """Good events of both scenarios."""
        return sum(map(planned_events, self.scenarios().values()))


class RunConfig(msgspec.Struct, frozen=True):
    """The plan and the settings of a run, as a child process gets them in its one argument."""

    plan: Plan
    variables: dict[ScenarioName, dict[str, str]]
    """ADAPTD_* variables that differ between the scenarios; those in common are in the process's
    environment."""

    def settings_of(self, scenario: ScenarioName) -> Settings:
        """Returns the settings of the scenario's worker. Raises Misconfigured."""
        return config.load_settings(None, os.environ | self.variables[scenario])

    def to_json(self) -> str:
        """Returns the argument, which `read_run_config` reads."""
        return msgspec.json.encode(self).decode()


def read_run_config(argument: str) -> RunConfig:
    """Returns the run's configuration. Raises msgspec.DecodeError."""
    return msgspec.json.decode(argument, type=RunConfig)


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """One record to produce, `due_s` seconds after the start."""

    due_s: float
    scenario: ScenarioName
    stream: str
    concept: int
    malformed: MalformedKind | None = None


def schedule(plan: Plan) -> Iterator[PlannedEvent]:
    """Yields the events of both scenarios in order of time. Raises ValueError when a stream would
    have to repeat a concept."""
    each = [
        _scenario_schedule(scenario, plan.seconds, plan.seed)
        for scenario in plan.scenarios().values()
    ]
    return heapq.merge(*each, key=lambda planned: planned.due_s)


def _scenario_schedule(scenario: Scenario, seconds: float, seed: int) -> Iterator[PlannedEvent]:
    """Yields the good events at a steady rate, with the malformed ones evenly in between."""
    good = list(_good_events(scenario, seed))
    gap = len(good) // (len(scenario.malformed) + 1)
    malformed_before = {gap * (i + 1): kind for i, kind in enumerate(scenario.malformed)}
    for position, (stream, concept) in enumerate(good):
        due_s = seconds * position / len(good)
        if position in malformed_before:
            malformed = malformed_before[position]
            yield PlannedEvent(due_s, scenario.name, stream, concept, malformed)
        yield PlannedEvent(due_s, scenario.name, stream, concept)


def _good_events(scenario: Scenario, seed: int) -> Iterator[tuple[str, int]]:
    """Yields (stream, concept): the streams take turns in random order, and none repeats a
    concept."""
    fewest = min(len(scenario.concept_pool(stream)) for stream in scenario.streams)
    if scenario.events_per_stream > fewest:
        raise ValueError(f"at most {fewest} events for each stream, so that none repeats")
    rng = np.random.default_rng(seed)
    order = {stream: rng.permutation(scenario.concept_pool(stream)) for stream in scenario.streams}
    for position in range(scenario.events_per_stream):
        for stream in rng.permutation(scenario.streams):
            yield str(stream), int(order[str(stream)][position])


def record_value(scenario: Scenario, planned: PlannedEvent) -> bytes:
    """Returns the value of the event's Kafka record."""
    pair = scenario_pair(scenario, planned.stream, planned.concept)
    if planned.malformed is not None:
        return planned.malformed.value_of(pair)
    return paired_event.encode_event(PairedEvent([pair]))
