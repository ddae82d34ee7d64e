"""One worker, once: drain a full topic, then keep up with half that rate; checked, then told."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr

from daemon.bench import paced
from daemon.bench.errors import BenchFailed
from daemon.bench.freshness import Freshness, Mapped, freshness
from daemon.bench.plan import HIDDEN_DIM, Plan, ready_at
from daemon.bench.topics import Reader, made_topics, prefill
from daemon.bench.worker import Sample, running
from daemon.config import Settings
from daemon.local.ports import free_port
from daemon.local.process import GuardedProcess
from daemon.local.services import Services
from daemon.topics import mapping_bytes
from model.meta_init import fresh
from model.meta_init_file import save

Kind = Literal["adaptd", "do_nothing"]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run measured."""

    start: Sample
    """Of the steady part of the drain."""
    end: Sample
    offered_per_s: float
    """In the paced phase."""
    late_ms: float
    """How far the paced producer fell behind at worst."""
    freshness: Freshness
    mappings: int
    """Records in the mappings topic at the end."""

    @property
    def events(self) -> int:
        """In the steady part."""
        return self.end.events - self.start.events

    @property
    def events_per_s(self) -> float:
        """Through the steady part of the drain."""
        return self.events / (self.end.at_s - self.start.at_s)

    def cpu_us_per_event(self, of: str) -> float:
        """CPU time, user and system."""
        return 1e6 * (self.end.cpu_s[of] - self.start.cpu_s[of]) / self.events

    def per_event(self, counter: str) -> float:
        """How much a counter of the worker's grew in the steady part."""
        grown = self.end.counters.get(counter, 0.0) - self.start.counters.get(counter, 0.0)
        return grown / self.events


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs share."""

    plan: Plan
    services: Services
    folder: Path
    """For logs and θ."""

    def run(self, kind: Kind, source_dim: int, rate: float | None = None) -> Run:
        """Drain, then `rate` events a second (half of the drain's if None). Raises BenchFailed."""
        plan, workload = self.plan, self.plan.workload(source_dim)
        settings = self._settings(source_dim)
        size = mapping_bytes(source_dim, HIDDEN_DIM, plan.target_dim)
        with ExitStack() as stack:
            stack.enter_context(made_topics(settings, size))
            prefill(settings, workload, plan.events)
            reader = Reader(settings)
            stack.callback(reader.close)
            with running(
                *self._command(kind, size),
                settings,
                self.services,
                self.folder / f"{settings.kafka_group_id}.log",
                settings.http_port if kind == "adaptd" else None,
            ) as worker:
                # the do-nothing worker does the same for every event, so more of them count
                start = worker.wait_for(plan.warm_events if kind == "adaptd" else plan.streams)
                end = worker.wait_for(plan.events)
                worker.wait_until("committing the drain", reader.everything_committed)
                half = (end.events - start.events) / (end.at_s - start.at_s) / 2
                drained, rate = reader.ends(settings.kafka_events_topic), rate or half
                count = int(plan.paced_s * rate)
                said = self._send_paced(settings, source_dim, rate, count)
                worker.wait_until("committing the paced events", reader.everything_committed)
                appended = worker.appended()
            since_ms = said["start_ms"] + 1000 * plan.settle_s
            sent, mapped = reader.sent(drained), reader.mapped()
        check_events(appended, len(sent), plan.events, count)
        pairs = workload.pairs_by_stream(plan.events, count)
        check_mappings(kind, mapped, {s for s, n in pairs.items() if n >= ready_at()})
        found = freshness(sent, mapped, since_ms)
        if not found.newest_ms:
            raise BenchFailed("no mapping came of the paced events; pace for longer")
        return Run(start, end, rate, said["late_ms"], found, len(mapped))

    def _settings(self, source_dim: int) -> Settings:
        theta = self.folder / f"theta-{source_dim}.safetensors"
        if not theta.exists():
            save(fresh(source_dim, self.plan.target_dim, HIDDEN_DIM), theta)
        name = f"bench-{uuid.uuid4().hex[:8]}"
        return Settings(
            kafka_bootstrap_servers=self.services.kafka_bootstrap_servers,
            kafka_group_id=name,
            kafka_events_topic=f"{name}-events",
            kafka_mappings_topic=f"{name}-mappings",
            kafka_dead_letters_topic=f"{name}-dead-letters",
            redis_url=SecretStr(self.services.redis_url),
            meta_init=theta,
            http_port=free_port(),
            torch_threads=self.plan.torch_threads,
            topic_partitions=self.plan.partitions,
        )

    def _command(self, kind: Kind, size: int) -> tuple[str, Sequence[str]]:
        if kind == "adaptd":
            return "daemon", ["run"]
        return "daemon.bench.do_nothing", [str(size), str(self.plan.do_nothing_share)]

    def _send_paced(
        self, settings: Settings, source_dim: int, rate: float, count: int
    ) -> dict[str, Any]:
        servers, topic = settings.kafka_bootstrap_servers, settings.kafka_events_topic
        words = paced.arguments(servers, topic, rate, count, self.plan.workload(source_dim))
        command = [sys.executable, "-m", "daemon.bench.paced", *words]
        with GuardedProcess(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            said = process.stdout.read()
            if process.wait(self.plan.paced_s + 60):
                raise BenchFailed("the paced producer failed; see above")
        found: dict[str, Any] = json.loads(said)
        return found


def check_events(appended: int, paced_sent: int, prefilled: int, paced_count: int) -> None:
    """Raises BenchFailed unless each event went through the worker, once."""
    if paced_sent != paced_count:
        raise BenchFailed(f"the paced producer was to send {paced_count} events, sent {paced_sent}")
    if appended != prefilled + paced_count:
        raise BenchFailed(f"{prefilled + paced_count} events sent, {appended} in Redis")


def check_mappings(kind: Kind, mapped: Sequence[Mapped], expected: set[str]) -> None:
    """Raises BenchFailed unless those streams have mappings that must, and no others. The
    do-nothing worker picks a share of each poll, so it need only have made some."""
    found = {mapping.stream for mapping in mapped}
    if kind == "adaptd" and found != expected:
        missing, others = len(expected - found), len(found - expected)
        raise BenchFailed(
            f"of {len(expected)} streams with enough pairs {missing} have no mapping; "
            f"{others} others have one"
        )
    if not found:
        raise BenchFailed("the worker produced nothing")
