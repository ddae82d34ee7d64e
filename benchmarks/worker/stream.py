"""`python -m benchmarks stream`: the daemon beside a do-nothing worker and a usual one, in turn, on
a real Kafka and a real Redis of their own."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.worker.errors import BenchFailed
from benchmarks.worker.intervals import Intervals
from benchmarks.worker.machine import machine, versions
from benchmarks.worker.one_run import Bench, Drain
from benchmarks.worker.output import put, to_stderr
from benchmarks.worker.paced_run import Paced, paced_run
from benchmarks.worker.plan import QUICK, SCENARIOS, Plan
from benchmarks.worker.servers import servers
from benchmarks.worker.stream_report import (
    drain_line,
    figures,
    head,
    latency,
    paced_line,
    ratios_of,
)
from benchmarks.worker.topics import made_topics, prefill
from daemon.errors import Unavailable
from daemon.local.errors import ServicesUnavailable

Say = Callable[[str], None]


def bench(plan: Plan, say: Say) -> dict[str, Any]:
    """Everything, as one JSON-like object. Raises BenchFailed, ServicesUnavailable."""
    began = time.monotonic()
    with ExitStack() as stack:
        services = stack.enter_context(servers(say))
        say(services.description)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shared = Bench(plan, services, folder, f"bench-{uuid.uuid4().hex[:8]}")
        report = head(plan) | {"machine": machine(), "versions": versions(services)}
        prefilled_topic(shared, stack, say)
        drains = _drains(shared, say)
        report["scenarios"] = {name: figures(runs) for name, runs in drains.items()}
        if paced := _paced(shared, drains.get("all_published", []), say):
            report["latency"] = latency(paced)
        report["ratios"] = ratios_of(drains)
    return report | {"seconds": round(time.monotonic() - began, 1)}


def prefilled_topic(shared: Bench, stack: ExitStack, say: Say) -> None:
    """What all drains read, until the stack is closed."""
    settings = shared.settings(SCENARIOS["do_nothing"], None)
    names = {settings.kafka_events_topic, settings.kafka_meta_inits_topic}
    stack.enter_context(made_topics(settings, shared.largest_mapping, names))
    began = time.monotonic()
    prefill(settings, shared.plan.workload(), shared.prefilled)
    say(f"{shared.prefilled:,} events prefilled in {time.monotonic() - began:.1f} s")


def _drains(shared: Bench, say: Say) -> dict[str, list[Drain]]:
    """By scenario; each repetition runs one after the other, so noise comes to all alike."""
    plan, began = shared.plan, time.monotonic()
    chosen = [name for name in SCENARIOS if name in plan.scenarios and _possible(name, say)]
    runs: dict[str, list[Drain]] = {name: [] for name in chosen}
    intervals = Intervals(plan)
    if plan.calibrate:
        _calibrate(shared, chosen, intervals, say)
    again_s = 0.0
    for done in range(plan.repetitions):
        if done and time.monotonic() - began + again_s > plan.at_most_s:
            say(f"{done} of {plan.repetitions} repetitions: another would take {again_s:.0f} s")
            break
        again_s = 0.0
        for name in chosen:
            if not (done and SCENARIOS[name].once):
                run_began = time.monotonic()
                runs[name].append(_drain(shared, name, name, intervals, say))
                again_s += 0 if SCENARIOS[name].once else time.monotonic() - run_began
    return runs


def _calibrate(shared: Bench, chosen: Sequence[str], intervals: Intervals, say: Say) -> None:
    """Runs that do not count: for their publish intervals, and to check mappings as closely as
    float32 allows."""
    closely = shared.publishing("float32")
    for name in chosen:
        if SCENARIOS[name].paced_publishing:
            _drain(closely, name, f"({name})", intervals, say)


def _drain(shared: Bench, name: str, title: str, intervals: Intervals, say: Say) -> Drain:
    plan, interval_ms = shared.plan, intervals.of(name)
    steady_s = min(max(plan.steady_s, (interval_ms or 0) / 1000), plan.longest_steady_s)
    drain = shared.drain(SCENARIOS[name], interval_ms, steady_s)
    say(drain_line(title, drain))
    intervals.learn(name, drain)
    return drain


def _paced(shared: Bench, full_load: Sequence[Drain], say: Say) -> list[Paced]:
    if not full_load:
        return []
    half = statistics.median(drain.events_per_s for drain in full_load) / 2
    found = []
    for _ in range(shared.plan.paced_runs):
        found.append(paced_run(shared, half))
        say(paced_line(found[-1]))
    return found


def _possible(name: str, say: Say) -> bool:
    if SCENARIOS[name].settings.get("kafka_client") == "librdkafka":
        try:
            import confluent_kafka  # noqa: F401 - only whether it is there
        except ImportError:
            say(f"{name} is left out: pip install 'adaptd[librdkafka]'")
            return False
    return True


def command(
    streams: int | None,
    events: int | None,
    repetitions: int | None,
    *,
    quick: bool,
    out: Path | None,
    only: Sequence[str] = (),
) -> int:
    """Print the figures as JSON, last on stdout; the exit code."""
    given = {"streams": streams, "events": events, "repetitions": repetitions}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(set(only) - set(SCENARIOS)):
        to_stderr(f"benchmarks: no scenario {', '.join(unknown)}; have {', '.join(SCENARIOS)}")
        return 2
    if only:
        changes["scenarios"] = tuple(only)
    try:
        report = bench(dataclasses.replace(QUICK if quick else Plan(), **changes), to_stderr)
    except (BenchFailed, ServicesUnavailable, Unavailable) as e:
        to_stderr(f"benchmarks: no figures: {e}")
        return 1
    put(report, out)
    return 0


if __name__ == "__main__":  # python -m benchmarks.worker.stream [quick] SCENARIO...
    words = [word for word in sys.argv[1:] if word != "quick"]
    sys.exit(command(None, None, None, quick="quick" in sys.argv, out=None, only=words))
