"""Every metric, once: name, unit, help. No label names a stream: 100,000 streams would make a
scrape take longer than its interval; per-stream figures are in each mapping's headers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from daemon.errors import Service
from daemon.gate import Outcome
from daemon.ports import Engine
from daemon.report import STAGES, TurnReport, Verdict

disable_created_metrics()  # a gauge beside every counter that nobody reads

LATENCY_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
STAGE_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
LOSS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 100.0)

DEAD_LETTER_REASONS = (
    "empty_key",
    "key_not_utf8",
    "oversize_key",
    "no_value",
    "oversize",
    "unknown_content_type",
    "undecodable",
    "schema",
    "unknown_modality",
    "wrong_pair_count",
    "lying_shape",
    "wrong_modality",
    "wrong_dimension",
    "not_finite",
    "truncated_image",
    "decompression_bomb",
    "unsupported_image_format",
)
"""Shown as 0 from the start, so that a rate over a first dead letter is not lost."""


class Metrics:
    """The worker's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, help: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(f"adaptd_{name}", help, labels, registry=registry)

        def gauge(name: str, help: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(f"adaptd_{name}", help, labels, registry=registry)

        def histogram(
            name: str, help: str, buckets: Iterable[float], labels: Iterable[str] = ()
        ) -> Histogram:
            return Histogram(
                f"adaptd_{name}", help, labels, buckets=tuple(buckets), registry=registry
            )

        self.event_to_publish = histogram(
            "event_to_publish_seconds",
            "From the record time of the oldest event a published mapping newly reflects until "
            "Kafka acknowledged the mapping.",
            LATENCY_S,
        )
        self.turn = histogram(
            "turn_seconds", "Length of a turn, without waiting for records.", STAGE_S
        )
        self.stage = histogram(
            "turn_stage_seconds", "Length of each stage of a turn.", STAGE_S, ["stage"]
        )
        self.inner_loop = histogram(
            "inner_loop_seconds", "Inner loop of one batch of streams, all steps.", STAGE_S
        )
        self.batch = histogram("batch_streams", "Streams adapted in one batch.", BATCH)
        self.support_loss = histogram(
            "support_loss",
            "Mean squared error on the support, before (θ) and after (θ′) the inner loop.",
            LOSS,
            ["when"],
        )
        self.query_loss = histogram(
            "query_loss",
            "Mean squared error on the query, pairs not adapted on, before (θ) and after (θ′).",
            LOSS,
            ["when"],
        )
        self.events = counter(
            "events", "Events read, by what became of them.", ["outcome"]
        )  # accepted, dead_letter
        self.pairs = counter(
            "pairs", "Pairs of accepted events: new to their window, or seen before.", ["outcome"]
        )  # new, replayed
        self.dead_letters = counter(
            "dead_letters", "Events put into the dead-letter topic, by reason.", ["reason"]
        )
        self.adaptations = counter(
            "adaptations", "Streams adapted, by the gate's outcome.", ["outcome"]
        )
        self.published = counter(
            "mappings_published",
            "Mappings acknowledged by Kafka, by the gate's outcome.",
            ["outcome"],
        )
        self.windows_loaded = counter("windows_loaded", "Windows read back from Redis.")
        self.windows_evicted = counter("windows_evicted", "Windows let go from memory.")
        self.unavailable = counter(
            "unavailable", "Turns given up because a service did not answer.", ["service"]
        )
        self.partitions_claimed = counter("partitions_claimed", "Partitions taken on.")
        self.partitions_lost = counter("partitions_lost", "Partitions given up or taken away.")
        self.lag = gauge(
            "consumer_lag_records", "Records not yet read, by partition.", ["partition"]
        )
        self.assigned = gauge("assigned_partitions", "Partitions this worker owns.")
        self.streams = gauge(
            "streams",
            "Streams: in memory (resident), waiting to be adapted (changed), waiting for their "
            "publish interval (deferred).",
            ["state"],
        )
        self.window_bytes = gauge("window_bytes", "Memory that resident windows take.")
        self.ready = gauge("ready", "1 when /readyz answers 200.")
        self.last_turn = gauge(
            "last_turn_timestamp_seconds", "When the last turn ended, Unix time."
        )
        self.meta_init = Info("adaptd_meta_init", "The θ that is served.", registry=registry)
        self.build = Info("adaptd_build", "This build of adaptd.", registry=registry)
        self.build.info({"version": version("adaptd")})
        self._show_zeros()

    def _show_zeros(self) -> None:
        for reason in DEAD_LETTER_REASONS:
            self.dead_letters.labels(reason)
        for outcome in Outcome:
            self.adaptations.labels(outcome.value)
            self.published.labels(outcome.value)
        for labelled, values in (
            (self.events, ("accepted", "dead_letter")),
            (self.pairs, ("new", "replayed")),
            (self.unavailable, ("kafka", "redis")),
            (self.stage, STAGES),
            (self.support_loss, ("before", "after")),
            (self.query_loss, ("before", "after")),
            (self.streams, ("resident", "changed", "deferred")),
        ):
            for value in values:
                labelled.labels(value)

    def serves(self, engine: Engine, device: str) -> None:
        """Say which θ is served, and watch a GPU's memory if it is on one."""
        self.meta_init.info(
            {
                "version": engine.meta_init_version,
                "encoder": engine.encoder_version,
                "mapping": f"{engine.source_dim}x{engine.hidden_dim}x{engine.target_dim}",
                "device": device,
            }
        )

    def watch_gpu(self, allocated_bytes: Callable[[], float]) -> None:
        """Export the device's memory in use."""
        gauge = Gauge(
            "adaptd_gpu_memory_bytes", "GPU memory that tensors take.", registry=self.registry
        )
        gauge.set_function(allocated_bytes)

    def gave_up(self, service: Service) -> None:
        """A turn ended early."""
        self.unavailable.labels(service).inc()

    def record(self, report: TurnReport, ended_at: float) -> None:
        """Take a turn's figures in; `ended_at` is Unix time in seconds."""
        self.last_turn.set(ended_at)
        self.turn.observe(report.seconds)
        for stage, seconds in report.stages.items():
            self.stage.labels(stage).observe(seconds)
        self._record_events(report)
        self._record_verdicts(report)
        self._record_holdings(report)

    def _record_events(self, report: TurnReport) -> None:
        self.events.labels("accepted").inc(report.events)
        self.events.labels("dead_letter").inc(report.dead_letters.total())
        self.pairs.labels("new").inc(report.pairs)
        self.pairs.labels("replayed").inc(report.replayed_pairs)
        for reason, count in report.dead_letters.items():
            self.dead_letters.labels(reason).inc(count)

    def _record_verdicts(self, report: TurnReport) -> None:
        if report.verdicts:
            self.batch.observe(len(report.verdicts))
            self.inner_loop.observe(report.stages["adapt"])
        for verdict in report.verdicts:
            self.adaptations.labels(verdict.outcome.value).inc()
            self._record_losses(verdict)
        for publication in report.published:
            self.published.labels(publication.outcome.value).inc()
            self.event_to_publish.observe(publication.latency_s)

    def _record_losses(self, verdict: Verdict) -> None:
        losses = verdict.adaptation
        for histogram, before, after in (
            (self.support_loss, losses.support_loss_before, losses.support_loss_after),
            (self.query_loss, losses.query_loss_before, losses.query_loss_after),
        ):
            # a NaN would make the histogram's sum NaN for ever; such streams count as not_finite
            if math.isfinite(before) and math.isfinite(after):
                histogram.labels("before").observe(before)
                histogram.labels("after").observe(after)

    def _record_holdings(self, report: TurnReport) -> None:
        held = report.holdings
        self.windows_loaded.inc(report.loaded)
        self.windows_evicted.inc(report.evicted)
        self.partitions_claimed.inc(len(report.claimed))
        self.partitions_lost.inc(len(report.lost))
        self.assigned.set(held.assigned)
        self.streams.labels("resident").set(held.streams)
        self.streams.labels("changed").set(held.changed)
        self.streams.labels("deferred").set(held.deferred)
        self.window_bytes.set(held.window_bytes)
        if report.lost:
            self.lag.clear()
        for partition, records in held.lag.items():
            self.lag.labels(str(partition)).set(records)
