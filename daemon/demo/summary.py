"""The demo's result as one object, and the checks that decide whether the run was good. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from daemon.demo.progress import DemoProgress, ScenarioProgress, abbreviated
from daemon.demo.scenarios import MALFORMED_KINDS
from daemon.demo.scores import Recall

ENOUGH_PAIRS = 16
"""Support pairs from which on adapted mappings are compared with θ."""
CHANCE_ERRORS = 3.0
"""Standard errors by which adapted mappings may be worse than θ; chance alone exceeds them once in
700 runs."""

Latency = dict[str, float | None]
"""Milliseconds by quantile, `p50` and `p99`; None without mappings."""


class LanguageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one language."""

    events: int
    support_pairs: int
    """Of the mapping that scored the last event."""
    outcome: str | None
    """Of the newest mapping; None without one."""
    r_at_1: Recall
    """By method, prequential, over all events that were scored."""


class NamesSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the scenario `names`, whose streams are languages."""

    languages: int
    events: int
    mappings_published: int
    r_at_1: dict[str, Recall]
    """By method and number of support pairs, prequential, mean over languages."""
    by_language: dict[str, LanguageSummary]
    event_to_publish_ms: Latency


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the demo, which `adaptd demo --json` prints. `tenants`, `events`,
    `mappings_published`, `r_at_1` and `event_to_publish_ms` are those of the scenario `tenants`."""

    services: str
    tenants: int
    events: int
    """Good events that were produced."""
    mappings_published: int
    """Mappings that the subscriber read and verified."""
    dead_letters: dict[str, int]
    """By reason."""
    r_at_1: dict[str, Recall]
    """By method and number of support pairs, prequential, mean over tenants."""
    event_to_publish_ms: Latency
    """From the record time of a mapping's newest event to the mapping's own record time."""
    names: NamesSummary
    seconds: float
    ok: bool
    failures: list[str]


def summarise(progress: DemoProgress, services: str, seconds: float, faults: list[str]) -> Summary:
    """Returns the result. `faults`: what went wrong besides the checks, a sentence for each."""
    failures = [*faults, *failed_checks(progress)]
    tenants = progress.scenarios["tenants"]
    return Summary(
        services=services,
        tenants=len(tenants.streams),
        events=tenants.produced,
        mappings_published=tenants.mappings,
        dead_letters=dict(Counter(letter.reason for letter in progress.dead_letters)),
        r_at_1=_by_pairs(tenants),
        event_to_publish_ms=_latency(tenants.latencies_ms),
        names=_names(progress.scenarios["names"]),
        seconds=round(seconds, 1),
        ok=not failures,
        failures=failures,
    )


def _names(names: ScenarioProgress) -> NamesSummary:
    return NamesSummary(
        languages=len(names.streams),
        events=names.produced,
        mappings_published=names.mappings,
        r_at_1=_by_pairs(names),
        by_language={
            language: LanguageSummary(
                events=stream.events_read,
                support_pairs=stream.support_pairs,
                outcome=stream.newest.outcome if stream.newest else None,
                r_at_1=_rounded(names.scores.of_stream(language)),
            )
            for language, stream in names.streams.items()
        },
        event_to_publish_ms=_latency(names.latencies_ms),
    )


def _by_pairs(scenario: ScenarioProgress) -> dict[str, Recall]:
    return {method: _rounded(recall) for method, recall in scenario.scores.by_pairs().items()}


def _rounded(recall: Mapping[str, float | None]) -> Recall:
    return {key: None if share is None else round(share, 4) for key, share in recall.items()}


def _latency(latencies_ms: list[float]) -> Latency:
    if not latencies_ms:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(latencies_ms, [50, 99])
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}


# ---- checks


def failed_checks(progress: DemoProgress) -> Iterator[str]:
    """Yields a sentence for each check of the demo that fails."""
    for scenario in progress.scenarios.values():
        yield from _every_stream_has_a_mapping(scenario)
    yield from _adapted_beats_theta(progress.scenarios["tenants"])
    yield from _adapted_is_no_worse_than_theta(progress.scenarios["names"])
    for scenario in progress.scenarios.values():
        yield from _every_good_event_counts(scenario)
    yield from _every_malformed_event_is_a_dead_letter(progress)
    yield from (f"a published mapping is not valid: {e}" for e in progress.invalid_mappings)


def _every_stream_has_a_mapping(scenario: ScenarioProgress) -> Iterator[str]:
    without = [name for name, stream in scenario.streams.items() if stream.newest is None]
    if without:
        yield f"{scenario.name}: no mapping for {abbreviated(without)}"


def _adapted_beats_theta(scenario: ScenarioProgress) -> Iterator[str]:
    recall = scenario.scores.from_pairs(ENOUGH_PAIRS)
    adapted, theta = recall["adapted"], recall["theta"]
    if adapted is None or theta is None:
        yield f"{scenario.name}: nothing was scored at {ENOUGH_PAIRS} or more pairs"
    elif adapted <= theta:
        yield (
            f"{scenario.name}: at {ENOUGH_PAIRS} or more pairs the adapted mappings (R@1 "
            f"{adapted:.3f}) do not beat θ ({theta:.3f})"
        )


def _adapted_is_no_worse_than_theta(scenario: ScenarioProgress) -> Iterator[str]:
    """θ may know a language already, so that there is little to win. Both are scored on the same
    events, of which only those count that one got right and the other wrong (McNemar 1947)."""
    if not scenario.scores.count(ENOUGH_PAIRS):
        yield f"{scenario.name}: nothing was scored at {ENOUGH_PAIRS} or more pairs"
    won, lost = scenario.scores.disagreements("adapted", "theta", ENOUGH_PAIRS)
    if lost - won > CHANCE_ERRORS * math.sqrt(won + lost):
        yield (
            f"{scenario.name}: at {ENOUGH_PAIRS} or more pairs the adapted mappings are worse than "
            f"θ: of {won + lost} events that only one got right, {lost} are θ's"
        )


def _every_good_event_counts(scenario: ScenarioProgress) -> Iterator[str]:
    counts = {
        "the producer produced": scenario.produced,
        "the subscriber read": scenario.events_read,
        "the daemon accepted": scenario.figure("accepted"),
        "the daemon took into windows": scenario.figure("pairs_new"),
    }
    for what, count in counts.items():
        if count != scenario.planned:
            yield f"{scenario.name}: {what} {count:g} of {scenario.planned} good events"
    if outdated := scenario.outdated():
        yield (
            f"{scenario.name}: the newest mapping does not reflect the last event of "
            f"{abbreviated(outdated)}"
        )


def _every_malformed_event_is_a_dead_letter(progress: DemoProgress) -> Iterator[str]:
    if len(progress.malformed) != len(MALFORMED_KINDS):
        yield f"{len(progress.malformed)} of {len(MALFORMED_KINDS)} malformed events were produced"
    reasons = {(d.scenario, d.partition, d.offset): d.reason for d in progress.dead_letters}
    for event in progress.malformed:
        reason = reasons.pop((event.scenario, event.partition, event.offset), None)
        if reason is None:
            yield f"no dead letter for {event.description}"
        elif reason != event.reason:
            yield f"the dead letter for {event.description} says {reason!r}, not {event.reason!r}"
    if reasons:
        yield f"{len(reasons)} good events became dead letters: {sorted(set(reasons.values()))}"
