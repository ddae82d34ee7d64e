"""Latency: events come on a timetable, at half of full load; from each to its mapping's append."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.worker import paced
from benchmarks.worker.errors import BenchFailed
from benchmarks.worker.freshness import Freshness, freshness
from benchmarks.worker.one_run import Bench
from benchmarks.worker.plan import ALL_PUBLISHED
from benchmarks.worker.topics import made_topics, prefill
from benchmarks.worker.workload import stream_name
from daemon.config import Settings
from daemon.local.process import GuardedProcess


@dataclass(frozen=True, slots=True)
class Paced:
    """What one run measured."""

    offered_per_s: float
    late_ms: float
    """How far the producer fell behind its timetable at worst; that counts as latency."""
    max_wait_ms: int
    """How long the daemon may wait for a full batch."""
    freshness: Freshness


def paced_run(bench: Bench, rate: float) -> Paced:
    """The daemon adapts on every event and publishes every mapping, `rate` events a second.
    Raises BenchFailed."""
    plan, workload = bench.plan, bench.plan.workload()
    settings = bench.settings(ALL_PUBLISHED, None)
    own = {"kafka_events_topic": f"{settings.kafka_group_id}-events"}
    settings, count = settings.model_copy(update=own), int(plan.paced_s * rate)
    with ExitStack() as stack:
        topics = made_topics(settings, bench.largest_mapping, {settings.kafka_events_topic})
        stack.enter_context(topics)
        prefill(settings, workload, workload.head_count)
        worker, reader = bench.start(ALL_PUBLISHED, settings, stack)
        worker.wait_until("filling windows", reader.everything_committed)
        filled = reader.ends(settings.kafka_events_topic)
        said = _send(bench, settings, rate, count)
        worker.wait_until("committing the paced events", reader.everything_committed)
        appended = worker.appended()
        sent, mapped = reader.sent(filled), reader.mapped()
    pairs = workload.head_count - plan.streams + plan.streams * plan.window_size
    check_events(appended - pairs, len(sent), count)
    check_streams({m.stream for m in mapped}, {stream_name(s) for s in range(plan.streams)})
    found = freshness(sent, mapped, said["start_ms"] + 1000 * plan.settle_s)
    if not found.newest_ms:
        raise BenchFailed("no mapping came of the paced events; pace for longer")
    return Paced(rate, said["late_ms"], settings.max_wait_ms, found)


def _send(bench: Bench, settings: Settings, rate: float, count: int) -> dict[str, Any]:
    servers, topic = settings.kafka_bootstrap_servers, settings.kafka_events_topic
    workload = bench.plan.workload()
    words = paced.arguments(servers, topic, rate, workload.head_count, count, workload)
    command = [sys.executable, "-m", "benchmarks.worker.paced", *words]
    with GuardedProcess(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        if process.wait(bench.plan.paced_s + 60):
            raise BenchFailed("the paced producer failed; see above")
    found: dict[str, Any] = json.loads(said)
    return found


def check_events(appended: int, sent: int, count: int) -> None:
    """Raises BenchFailed unless each event went through the worker, once."""
    if sent != count:
        raise BenchFailed(f"the paced producer was to send {count} events, sent {sent}")
    if appended != count:
        raise BenchFailed(f"{count} events sent, {appended} in Redis")


def check_streams(found: Collection[str], expected: Collection[str]) -> None:
    """Raises BenchFailed unless those streams have mappings that must, and no others."""
    missing, others = set(expected) - set(found), set(found) - set(expected)
    if missing or others:
        raise BenchFailed(
            f"of {len(expected)} streams {len(missing)} have no mapping; "
            f"{len(others)} others have one"
        )
