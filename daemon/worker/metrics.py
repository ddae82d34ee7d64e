"""The worker's metrics: each turn's figures are counted here, and shown to Prometheus."""

from __future__ import annotations

import math
from collections import Counter as tally
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Literal

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

from daemon.canary.judge import CanaryStanding
from daemon.errors import Outage, RefusalReason, Service
from daemon.turn.report import PairScore, Publication, TurnReport, Verdict
from daemon.wire.canary import Canary
from daemon.worker.collectors import LastTurn, Limits, ServicesAway
from daemon.worker.metric_specs import (
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    KNOWN_LABELS,
    CounterName,
    GaugeName,
    HistogramName,
)
from model.theta.info import ThetaInfo

disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge beside every counter that nobody reads

LARGEST_LOSS = 1e6
"""A larger loss counts as this one: beside a sum of 1e37 the losses of years would round to
nothing, and the mean would stand still until the next restart."""
ASKED: frozenset[CounterName] = frozenset({"away_seconds", "cpu_throttled_seconds"})
"""Counters of `daemon.worker.collectors`."""
CALL_SECONDS: Mapping[Service, HistogramName] = {
    "kafka": "kafka_call_seconds",
    "redis": "redis_call_seconds",
}
CALL_ERRORS: Mapping[Service, CounterName] = {"kafka": "kafka_errors", "redis": "redis_errors"}
LOSSES: Sequence[Literal["support_loss", "query_loss"]] = ("support_loss", "query_loss")
SMALLEST_CAPITAL = 1e-300
"""Of a bet: all that is less is as good as lost."""
CANARY_GAUGES: Sequence[GaugeName] = (
    "canary",
    "canary_streams",
    "canary_difference",
    "canary_log_e",
)
CANARY_STATES: Mapping[tuple[bool, str], str] = {
    (False, "open"): "open",
    (False, "won"): "won",
    (False, "lost"): "lost",
    (True, "open"): "watched",
    (True, "won"): "held",
    (True, "lost"): "worse",
}
"""How the state is called, by whether the canary is a watch and by its verdict."""


class Metrics:
    """The worker's metrics, in a registry of their own."""

    def __init__(self, build: Mapping[str, str] | None = None) -> None:
        """`build`: what adaptd is made of, see `daemon.worker.build`."""
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._histograms = {name: self._histogram(name) for name in HISTOGRAMS}
        self._counters = {name: self._counter(name) for name in COUNTERS if name not in ASKED}
        self._gauges: dict[GaugeName, Gauge] = {}
        self._last_turn = LastTurn(self.registry)
        self._away = ServicesAway(self.registry)
        Limits(self.registry)
        self._meta_init = Info("adaptd_meta_init", "The θ that is served.", registry=self.registry)
        built = Info("adaptd_build", "This build of adaptd.", registry=self.registry)
        built.info(dict(build or {"version": version("adaptd")}))
        self._lost_log_lines: Callable[[], int] = lambda: 0
        self._log_lines_counted = 0
        self._gauge("meta_init_refused").set(0)
        self._gauge("recovery_stalled").set(0)
        self._show_zeros()
        # looked up once: the look-up of a label takes as long as the count
        self._losses = {
            (kind, when): self._histograms[kind].labels(when)
            for kind in LOSSES
            for when in ("before", "after")
        }
        self._ridge_loss = self._histograms["query_loss"].labels("ridge")

    def _show_zeros(self) -> None:
        made: dict[str, Counter | Histogram] = {}
        for group in (self._histograms, self._counters):
            made |= {str(name): metric for name, metric in group.items()}
        for name, labels in KNOWN_LABELS.items():
            for label in labels:
                made[name].labels(label)

    def _counter(self, name: CounterName) -> Counter:
        shape = COUNTERS[name]
        labels = [shape.label] if shape.label else []
        return Counter(f"adaptd_{name}", shape.help, labels, registry=self.registry)

    def _gauge(self, name: GaugeName) -> Gauge:
        """Returns a gauge to set, and shows it from now on: a 0 would say more than is known."""
        if name not in self._gauges:
            shape = GAUGES[name]
            labels = [shape.label] if shape.label else []
            made = Gauge(f"adaptd_{name}", shape.help, labels, registry=self.registry)
            self._gauges[name] = made
        return self._gauges[name]

    def _forget(self, name: GaugeName) -> None:
        """Shows a gauge no longer, until it is known again."""
        if (gauge := self._gauges.pop(name, None)) is not None:
            self.registry.unregister(gauge)

    def _histogram(self, name: HistogramName) -> Histogram:
        shape = HISTOGRAMS[name]
        labels = [shape.label] if shape.label else []
        return Histogram(
            f"adaptd_{name}", shape.help, labels, registry=self.registry, buckets=shape.buckets
        )

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        """Exports readiness as /readyz would answer."""
        self._gauge("ready").set_function(lambda: float(ready()))

    def serves(self, theta: ThetaInfo, device: str) -> None:
        """Shows which θ is served, and on which device."""
        self.settled()
        self._meta_init.info(
            {
                "version": theta.version,
                "encoder": theta.encoder_version,
                "mapping": f"{theta.source_dim}x{theta.hidden_dim}x{theta.target_dim}",
                "device": device,
            }
        )

    def swapped(self) -> None:
        """Counts a change to another θ; call `serves` to show which."""
        self._counters["meta_init_swaps"].inc()

    def refused(self, reason: RefusalReason) -> None:
        """Counts an active θ that cannot be served, and shows that there is one."""
        self._counters["meta_init_refusals"].labels(reason).inc()
        self._gauge("meta_init_refused").set(1)

    def settled(self) -> None:
        """Shows that no active θ is refused."""
        self._gauge("meta_init_refused").set(0)

    def candidate_refused(self, reason: RefusalReason) -> None:
        """Counts a candidate that cannot be judged."""
        self._counters["canary_refusals"].labels(reason).inc()

    def canary_acted(self, action: str) -> None:
        """Counts what was done because of a verdict."""
        self._counters["canary_actions"].labels(action).inc()

    def canary_judged(self, canary: Canary | None, standing: CanaryStanding | None) -> None:
        """Shows how the canary stands; nothing when there is none."""
        if canary is None or standing is None:
            for name in CANARY_GAUGES:
                self._forget(name)
            return
        state = CANARY_STATES[canary.watch, standing.verdict]
        for each in CANARY_STATES.values():
            self._gauge("canary").labels(each).set(each == state)
        self._gauge("canary_streams").set(standing.streams)
        for side in ("cold", "full"):
            self._gauge("canary_difference").labels(side).set(getattr(standing, side))
        for bet in ("better", "worse", "safe", "harmful", "needed"):
            capital = max(getattr(standing, bet), SMALLEST_CAPITAL)
            self._gauge("canary_log_e").labels(bet).set(math.log10(capital))

    def watch_gpu(self, allocated_bytes: Callable[[], float], limit_bytes: int) -> None:
        """Exports how much of the device's memory is in use, and how much it has."""
        self._gauge("gpu_memory_bytes").set_function(allocated_bytes)
        self._gauge("gpu_memory_limit_bytes").set(limit_bytes)

    def device_lost(self) -> None:
        """Counts a GPU that was given up for the CPU."""
        self._counters["device_faults"].labels("lost").inc()

    def stalled(self, stalled: bool) -> None:
        """Shows whether recovery gets the worker no further."""
        self._gauge("recovery_stalled").set(stalled)

    def watch_log(self, lost_lines: Callable[[], int]) -> None:
        """Counts the log lines that were lost; `lost_lines` returns how many there were ever."""
        self._lost_log_lines = lost_lines

    def called(self, service: Service, call: str, seconds: float) -> None:
        """Counts a call that the service has answered."""
        self._histograms[CALL_SECONDS[service]].labels(call).observe(seconds)

    def call_failed(self, service: Service, call: str) -> None:
        """Counts a call that the service did not answer, or refused."""
        self._counters[CALL_ERRORS[service]].labels(call).inc()

    def gave_up(self, error: Outage) -> None:
        """Counts a turn that ended early. What the worker holds, and what waits in Kafka, is not
        known until a turn ends well."""
        self._last_turn.unknown()
        self._away.time = self._away.time.gave_up(error, self._away.monotonic())
        self._counters["unavailable"].labels(error.service).inc()

    def record(self, report: TurnReport, ended_at: float) -> None:
        """Records the figures of a turn; `ended_at` is Unix time in seconds."""
        self._gauge("last_turn_timestamp_seconds").set(ended_at)
        self._away.time = self._away.time.answered(self._away.monotonic())
        self._last_turn.ended(report.holdings)
        self._histograms["turn_seconds"].observe(report.seconds)
        for stage, seconds in report.stages.items():
            self._histograms["turn_stage_seconds"].labels(stage).observe(seconds)
        self._count_lost_log_lines()
        self._record_events(report)
        self._record_verdicts(report)
        self._record_logs(report)
        self._record_holdings(report)

    def _count_lost_log_lines(self) -> None:
        lost = self._lost_log_lines()
        self._counters["log_lines_lost"].inc(lost - self._log_lines_counted)
        self._log_lines_counted = lost

    def _record_events(self, report: TurnReport) -> None:
        self._counters["events"].labels("accepted").inc(report.events)
        self._counters["events"].labels("dead_letter").inc(report.dead_letters.total())
        self._counters["pairs"].labels("new").inc(report.pairs)
        self._counters["pairs"].labels("replayed").inc(report.replayed_pairs)
        for reason, count in report.dead_letters.items():
            self._counters["dead_letters"].labels(reason).inc(count)

    def _record_logs(self, report: TurnReport) -> None:
        for replaced in report.replaced:
            self._counters["logs_replaced"].labels(replaced.how).inc()
        self._counters["records_gone"].inc(sum(gone.length for gone in report.gone.values()))
        self._counters["streams_moved"].inc(len(report.streams_moved))

    def _record_verdicts(self, report: TurnReport) -> None:
        if report.verdicts:
            self._histograms["batch_streams"].observe(len(report.verdicts))
            self._histograms["inner_loop_seconds"].observe(report.stages["adapt"])
        for outcome, count in tally(v.outcome for v in report.verdicts).items():
            self._counters["adaptations"].labels(outcome.value).inc(count)
        for outcome, count in tally(p.outcome for p in report.published).items():
            self._counters["mappings_published"].labels(outcome.value).inc(count)
        self._counters["device_faults"].labels("out_of_memory").inc(report.batch_splits)
        self._counters["shadow_adaptations"].inc(report.shadow.adaptations)
        self._counters["shadow_seconds"].inc(report.shadow.seconds)
        self._counters["drift_suspected"].inc(report.suspected)
        self._counters["drift_confirmed"].inc(sum(v.shortened for v in report.verdicts))
        for verdict in report.verdicts:
            self._record_losses(verdict)
        for score in report.scores:
            self._record_score(score)
        self._record_latencies([p for p in report.published if not p.renewal])

    def _record_latencies(self, published: Sequence[Publication]) -> None:
        """Records them all, and shows by an exemplar which record the slowest mapping of a turn
        reflects: one a turn costs nothing, one a mapping would."""
        latencies = [p.latency_s for p in published if p.latency_s is not None]
        self._counters["publications_without_latency"].inc(len(published) - len(latencies))
        if not latencies:
            return
        slowest = max(published, key=lambda p: -1.0 if p.latency_s is None else p.latency_s)
        histogram = self._histograms["event_to_publish_seconds"]
        for publication in published:
            if publication.latency_s is not None:
                shown = _record_of(publication) if publication is slowest else None
                histogram.observe(publication.latency_s, shown)

    def _record_score(self, score: PairScore) -> None:
        if math.isfinite(score.loss):
            loss = min(score.loss, LARGEST_LOSS)
            self._histograms["prequential_loss"].labels(score.mapping).observe(loss)
        if score.first is not None:
            self._counters["prequential_pairs"].labels(score.mapping).inc()
            self._counters["prequential_hits"].labels(score.mapping).inc(score.first)

    def _record_losses(self, verdict: Verdict) -> None:
        losses, at = verdict.adaptation, self._losses
        befores = (losses.support_loss_before, losses.query_loss_before)
        afters = (losses.support_loss_after, losses.query_loss_after)
        for kind, before, after in zip(LOSSES, befores, afters, strict=True):
            # a NaN would make the histogram's sum NaN for ever; such streams count as not_finite
            if math.isfinite(before) and math.isfinite(after):
                at[kind, "before"].observe(min(before, LARGEST_LOSS))
                at[kind, "after"].observe(min(after, LARGEST_LOSS))
        if math.isfinite(losses.query_loss_ridge):
            self._ridge_loss.observe(min(losses.query_loss_ridge, LARGEST_LOSS))

    def _record_holdings(self, report: TurnReport) -> None:
        self._counters["windows_loaded"].inc(report.loaded)
        self._counters["windows_evicted"].inc(report.evicted)
        self._counters["windows_returned"].inc(report.returned)
        self._counters["windows_restored"].inc(sum(map(len, report.restored.values())))
        self._counters["partitions_claimed"].inc(len(report.claimed))
        self._counters["partitions_lost"].inc(len(report.lost))


def _record_of(publication: Publication) -> dict[str, str]:
    """Returns the labels of an exemplar: the newest record that the mapping reflects."""
    return {"partition": str(publication.stream.partition), "offset": str(publication.version)}
