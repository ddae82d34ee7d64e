"""One worker, once: drains a prefilled topic for some seconds, watched; checked, then told."""

import uuid
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from benchmarks.output import NoFigures
from benchmarks.stream.agreement import check_agreement
from benchmarks.stream.plan import Kind, StreamPlan, StreamScenario
from benchmarks.stream.topics import Reader, made_topics
from benchmarks.stream.worker_process import STOP_WITHIN_S, Sample, Watched, running
from daemon.config import Settings
from daemon.local.server import free_port
from daemon.local.services import Services
from daemon.wire.topics import mapping_bytes
from model.theta.meta_init import MetaInit, fresh_meta_init
from model.theta.meta_init_file import save_meta_init

CHECKED_PER_PARTITION = 2


@dataclass(frozen=True, slots=True)
class Drain:
    """What one run measured, in its steady part."""

    start: Sample
    end: Sample
    mappings: int  # that the broker took in between
    publish_interval_ms: int
    mapping_bytes: float = 0.0  # mean size of a record's value
    difference: float | None = None
    """Between its mappings and the usual inner loop's; see `benchmarks.stream.agreement`."""

    @property
    def events(self) -> int:
        """Events of the steady part; each is one append, once windows are filled."""
        return self.end.appends - self.start.appends

    @property
    def seconds(self) -> float:
        """Length of the steady part, by the wall clock."""
        return self.end.at_s - self.start.at_s

    @property
    def events_per_s(self) -> float:
        """Throughput by the wall clock."""
        return self.events / self.seconds

    def cpu_us_per_event(self, of: str) -> float:
        """Returns CPU time, user and system, of the worker, kafka, redis or the machine."""
        return 1e6 * (self.end.cpu_s[of] - self.start.cpu_s[of]) / self.events

    @property
    def mappings_per_event(self) -> float:
        """Mappings for an event, as the broker counts them."""
        return self.mappings / self.events

    def per_event(self, counter: str) -> float:
        """Returns how much a counter of the worker's grew for an event."""
        grown = self.end.counters.get(counter, 0.0) - self.start.counters.get(counter, 0.0)
        return grown / self.events


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs share."""

    plan: StreamPlan
    services: Services
    folder: Path  # for logs and θ
    name: str  # begins every topic's name
    profile: Path | None = None
    """Where the daemon's profile goes, if it is to be run under cProfile."""

    @property
    def theta(self) -> MetaInit:
        """θ that every worker starts from: fresh, by seed 0. It passes for a trained one, so that
        the daemon publishes what it adapts and not ridge regression."""
        theta = fresh_meta_init(self.plan.dim, self.plan.dim, self.plan.hidden_dim)
        return replace(theta, facts={"training": "stands for a trained θ"})

    @property
    def prefilled(self) -> int:
        """Events in the topic that all drains read."""
        return self.plan.workload().head_count + self.plan.events

    @property
    def largest_mapping(self) -> int:
        """Bytes of a mapping that is published in full."""
        return mapping_bytes(self.plan.dim, self.plan.hidden_dim, self.plan.dim)

    def drain(self, scenario: StreamScenario, interval_ms: int | None, steady_s: float) -> Drain:
        """Runs the scenario's worker once. Raises NoFigures when the run was not what it set out
        to be."""
        plan, settings = self.plan, self.settings(scenario, interval_ms)
        with ExitStack() as stack:
            worker, reader = self.start(scenario, settings, stack)
            drain = self._steady(worker, reader, scenario.kind, settings, steady_s)
            topic = settings.kafka_mappings_topic
            since = {p: end - CHECKED_PER_PARTITION for p, end in reader.ends(topic).items()}
            records = list(reader.records(topic, {p: max(0, at) for p, at in since.items()}))
        difference = None
        if scenario.kind != "do_nothing":
            usual = scenario.kind == "usual"
            dtype = "float32" if usual else plan.mapping_dtype
            support_size = plan.support_size if usual else None
            difference = check_agreement(records, self.theta, plan.workload(), dtype, support_size)
        mean_bytes = sum(len(record.value) for record in records) / max(1, len(records))
        return replace(drain, difference=difference, mapping_bytes=mean_bytes)

    def start(
        self, scenario: StreamScenario, settings: Settings, stack: ExitStack
    ) -> tuple[Watched, Reader]:
        """Starts a worker with topics of its own to write to, until the stack is closed."""
        output = {settings.kafka_mappings_topic, settings.kafka_dead_letters_topic}
        stack.enter_context(made_topics(settings, self.largest_mapping, output))
        reader = stack.enter_context(closing(Reader(settings)))
        kind, log = scenario.kind, self.folder / f"{settings.kafka_group_id}.log"
        port = settings.http_port if kind == "adaptd" else None
        append = "rpush" if kind == "usual" else "xadd"
        worker = running(self._module(kind), settings, self.services, log, append, port)
        return stack.enter_context(worker), reader

    def _steady(
        self, worker: Watched, reader: Reader, kind: Kind, settings: Settings, steady_s: float
    ) -> Drain:
        topic, streams, is_ours = settings.kafka_mappings_topic, self.plan.streams, kind == "adaptd"
        filling = streams * (self.plan.window_size if is_ours else 1)
        first, last = filling, filling + self.prefilled - streams
        if is_ours:  # it adapts while it reads on, so let it catch up with the filling
            worker.wait_for(filling)
            worker.wait_until("publishing every stream", lambda: reader.count(topic) >= streams)
            beyond = self.plan.workload().head_count + streams
            first = max(filling + beyond, worker.appended() + 1)
        start = worker.wait_for(first)
        before = reader.count(topic)
        enough = start.appends + self.plan.least_events if is_ours else 0
        end = worker.wait_for(last, enough, start.at_s + steady_s)
        after = reader.count(topic)
        if end.appends == start.appends:
            raise NoFigures("nothing happened in the steady part; prefill more events")
        return Drain(start, end, after - before, settings.publish_interval_ms)

    def settings(self, scenario: StreamScenario, interval_ms: int | None = None) -> Settings:
        """Returns the settings of one run, with names of its own."""
        plan, theta = self.plan, self.folder / "theta.safetensors"
        if not theta.exists():
            save_meta_init(self.theta, theta)
        run = f"{self.name}-{uuid.uuid4().hex[:8]}"
        chosen: dict[str, Any] = {
            "kafka_bootstrap_servers": self.services.kafka_bootstrap_servers,
            "kafka_group_id": run,
            "kafka_events_topic": f"{self.name}-events",
            "kafka_meta_inits_topic": f"{self.name}-meta-inits",
            "kafka_mappings_topic": f"{run}-mappings",
            "kafka_dead_letters_topic": f"{run}-dead-letters",
            "redis_url": SecretStr(self.services.redis_url),
            "meta_init": theta,
            "http_port": free_port(),
            "stop_timeout_s": STOP_WITHIN_S,
            "torch_threads": plan.torch_threads,
            "topic_partitions": plan.partitions,
            "support_size": plan.support_size,
            "query_size": plan.query_size,
            "min_support": plan.support_size,
            "gate_ridge": False,
            "mapping_encoding": plan.mapping_encoding,
            "mapping_dtype": plan.mapping_dtype,
        }
        if interval_ms is not None:
            chosen["publish_interval_ms"] = interval_ms
        return Settings(**chosen | dict(scenario.settings))

    def _module(self, kind: Kind) -> list[str]:
        if kind == "usual":
            return ["benchmarks.stream.usual_worker"]
        if kind == "do_nothing":
            sized = [str(self.plan.do_nothing_bytes), str(self.plan.do_nothing_share)]
            return ["benchmarks.stream.do_nothing", *sized]
        daemon = ["daemon", "run"]
        return ["cProfile", "-o", str(self.profile), "-m", *daemon] if self.profile else daemon
