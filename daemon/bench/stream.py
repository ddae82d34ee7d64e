"""`adaptd bench stream`: the daemon beside a do-nothing worker, in turn, on a real Kafka and a
real Redis of their own."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.bench.errors import BenchFailed
from daemon.bench.machine import machine, versions
from daemon.bench.one_run import Bench, Run
from daemon.bench.plan import HIDDEN_DIM, QUICK, Plan
from daemon.bench.servers import servers
from daemon.bench.stats import quantile, ratios, rounded, spread
from daemon.errors import Unavailable
from daemon.local.errors import ServicesUnavailable
from daemon.report import STAGES
from daemon.topics import mapping_bytes

Say = Callable[[str], None]
Pairs = Sequence[tuple[Run, Run]]
"""(adaptd, do-nothing), neighbours in time."""

DEFINITIONS = {
    "events_per_s": "Through the steady part of draining a prefilled topic: its last "
    "steady_events, from one append to Redis to another (do-nothing: from the streams-th event "
    "on). So streams outnumber what a turn adapts, and the backlog coalesces.",
    "cpu_us_per_event": "User and system time of the worker's process over the same part; beside "
    "it that of Kafka, of Redis, and of everything on the machine.",
    "event_to_publish_ms": "At half of adaptd's drain rate, the same for both workers. From an "
    "event's due time, which is its record's timestamp, to the broker's append time of a mapping "
    "that reflects it: `newest` is the newest event it reflects, `oldest` the oldest that it is "
    "the first to reflect, as in adaptd_event_to_publish_seconds. The publish interval is in it.",
    "do_nothing": "The same clients: consume, one XADD per event in one MULTI per poll, a record "
    "of a mapping's size for a share of the poll's streams, commit. Decodes nothing.",
    "ratios": "adaptd over do-nothing, each repetition with its neighbour in time.",
}


def bench(plan: Plan, say: Say) -> dict[str, Any]:
    """Everything, as one JSON-like object. Raises BenchFailed, ServicesUnavailable."""
    began = time.monotonic()
    with servers(say) as services, tempfile.TemporaryDirectory() as folder:
        say(services.description)
        report = _head(plan) | {"machine": machine(), "versions": versions(services)}
        shared = Bench(plan, services, Path(folder))
        runs = _repeat(shared, say)
        report["sizes"] = [_size(plan, dim, pairs) for dim, pairs in runs.items()]
    return report | {"seconds": round(time.monotonic() - began, 1)}


def _repeat(shared: Bench, say: Say) -> dict[int, list[tuple[Run, Run]]]:
    """By source dim. Sizes take turns as well, so that a noisy minute is not one size's alone."""
    plan, began = shared.plan, time.monotonic()
    runs: dict[int, list[tuple[Run, Run]]] = {dim: [] for dim in plan.source_dims}
    for done in range(plan.repetitions):
        used_s = time.monotonic() - began
        if done and used_s / done * (done + 1) > plan.at_most_s:
            say(f"{done} of {plan.repetitions} repetitions took {used_s:.0f} s: no more")
            break
        for dim, pairs in runs.items():
            pairs.append(_pair(shared, dim, say))
    return runs


def _pair(shared: Bench, source_dim: int, say: Say) -> tuple[Run, Run]:
    ours = shared.run("adaptd", source_dim)
    say(f"{source_dim} numbers, adaptd:     {_line(ours)}")
    theirs = shared.run("do_nothing", source_dim, rate=ours.offered_per_s)
    say(f"{source_dim} numbers, do-nothing: {_line(theirs)}")
    return ours, theirs


def _head(plan: Plan) -> dict[str, Any]:
    return {
        "bench": "stream",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": dataclasses.asdict(plan)
        | {
            "hidden_dim": HIDDEN_DIM,
            "events": plan.events,
            "settings": "adaptd's defaults but for torch_threads",
            "theta": "fresh, seed 0",
        },
        "definitions": DEFINITIONS,
    }


def _size(plan: Plan, source_dim: int, pairs: Pairs) -> dict[str, Any]:
    return {
        "source_dim": source_dim,
        "repetitions": len(pairs),
        "source_bytes": 4 * source_dim,
        "event_bytes": plan.workload(source_dim).event_bytes(),
        "mapping_bytes": mapping_bytes(source_dim, HIDDEN_DIM, plan.target_dim),
        "offered_per_s": spread([ours.offered_per_s for ours, _ in pairs]),
        "adaptd": _worker([ours for ours, _ in pairs]) | _adaptd_only([ours for ours, _ in pairs]),
        "do_nothing": _worker([theirs for _, theirs in pairs]),
        "ratios": _ratios(pairs),
    }


def _worker(runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "events_per_s": spread([run.events_per_s for run in runs]),
        "cpu_us_per_event": {
            of: spread([run.cpu_us_per_event(of) for run in runs]) for of in runs[0].start.cpu_s
        },
        "event_to_publish_ms": {"newest": _latency([run.freshness.newest_ms for run in runs])},
        "mappings": [run.mappings for run in runs],
        "paced_producer_late_ms": spread([run.late_ms for run in runs]),
    }


def _adaptd_only(runs: Sequence[Run]) -> dict[str, Any]:
    latency = {
        "newest": _latency([run.freshness.newest_ms for run in runs]),
        "oldest": _latency([run.freshness.oldest_ms for run in runs]),
    }
    return {
        "event_to_publish_ms": latency,
        "adaptations_per_event": _counted(runs, "adaptd_adaptations_total"),
        "mappings_per_event": _counted(runs, "adaptd_mappings_published_total"),
        "fallbacks_per_event": spread(
            [
                run.per_event("adaptd_mappings_published_total")
                - run.per_event("adaptd_mappings_published_total{adapted}")
                - run.per_event("adaptd_mappings_published_total{ridge}")
                for run in runs
            ]
        ),
        "wall_us_per_event_by_stage": {
            stage: rounded(1e6 * sum(map(_of_stage(stage), runs)) / len(runs)) for stage in STAGES
        },
    }


def _counted(runs: Sequence[Run], counter: str) -> dict[str, float]:
    return spread([run.per_event(counter) for run in runs])


def _of_stage(stage: str) -> Callable[[Run], float]:
    return lambda run: run.per_event(f"adaptd_turn_stage_seconds_sum{{{stage}}}")


def _latency(runs_ms: Sequence[Sequence[float]]) -> dict[str, Any]:
    return {
        "p50": spread([quantile(ms, 0.5) for ms in runs_ms]),
        "p99": spread([quantile(ms, 0.99) for ms in runs_ms]),
        "mappings": [len(ms) for ms in runs_ms],
    }


def _ratios(pairs: Pairs) -> dict[str, dict[str, float]]:
    figures: dict[str, Callable[[Run], float]] = {
        "cpu_us_per_event": lambda run: run.cpu_us_per_event("worker"),
        "events_per_s": lambda run: run.events_per_s,
        "event_to_publish_p50": lambda run: quantile(run.freshness.newest_ms, 0.5),
        "event_to_publish_p99": lambda run: quantile(run.freshness.newest_ms, 0.99),
    }
    return {
        name: ratios([figure(ours) for ours, _ in pairs], [figure(theirs) for _, theirs in pairs])
        for name, figure in figures.items()
    }


def _line(run: Run) -> str:
    newest = run.freshness.newest_ms
    return (
        f"{run.events_per_s:,.0f} events/s, {run.cpu_us_per_event('worker'):,.0f} µs CPU/event; "
        f"at {run.offered_per_s:,.0f}/s p50 {quantile(newest, 0.5):,.0f} ms, "
        f"p99 {quantile(newest, 0.99):,.0f} ms"
    )


def command(
    streams: int | None,
    events: int | None,
    repetitions: int | None,
    *,
    quick: bool,
    out: Path | None,
) -> int:
    """Print the figures as JSON, last on stdout; the exit code."""
    given = {"streams": streams, "steady_events": events, "repetitions": repetitions}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        report = bench(dataclasses.replace(QUICK if quick else Plan(), **changes), to_stderr)
    except (BenchFailed, ServicesUnavailable, Unavailable) as e:
        to_stderr(f"adaptd bench: no figures: {e}")
        return 1
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if out is not None:
        out.write_text(text + "\n")
    print(text)  # noqa: T201 - the command's result
    return 0


def to_stderr(line: str) -> None:
    """Progress; stdout is for the result."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - a command's own progress
