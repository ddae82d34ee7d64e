"""What a subscriber says of itself to Prometheus, in a registry of its own or in yours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon.client.newest import NewestMappings, by_theta

SWAP_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)


@dataclass(frozen=True, slots=True)
class FollowedState:
    """Where a subscriber stands, in figures."""

    connected: bool
    current: bool
    lag: int
    failures: Mapping[str, int]
    snapshot_s: float
    """When the last snapshot was written (Unix time); 0 for never."""


class SubscriberMetrics:
    """A subscriber's metrics. Gauges and totals are computed when they are asked for."""

    def __init__(
        self,
        newest: NewestMappings,
        state: Callable[[], FollowedState],
        named: frozenset[str],
        registry: CollectorRegistry | None = None,
    ) -> None:
        """`named` are the streams that have series of their own: those that were named one by
        one."""
        self.registry = registry or CollectorRegistry()
        self.swap_seconds = Histogram(
            "adaptd_client_swap_seconds",
            "From when a mapping was published to when it was served, while the subscriber was "
            "current",
            buckets=SWAP_BUCKETS_S,
            registry=self.registry,
        )
        self.predictions = Counter(
            "adaptd_client_predictions",
            "Calls of predict, by what answered",
            ["served_by"],
            registry=self.registry,
        )
        self.registry.register(_Computed(newest, state, named))

    def render(self) -> bytes:
        """Returns the metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Computed(Collector):
    def __init__(
        self, newest: NewestMappings, state: Callable[[], FollowedState], named: frozenset[str]
    ) -> None:
        self._newest, self._state, self._named = newest, state, sorted(named)

    def collect(self) -> Iterator[Metric]:
        newest, state = self._newest, self._state()
        yield _gauge("connected", "1 while Kafka answers", state.connected)
        yield _gauge("current", "1 once the topic's end was reached", state.current)
        yield _gauge("lag_records", "Records of the topic not yet read", state.lag)
        text = "When the last snapshot was written, 0 for never"
        yield _gauge("snapshot_timestamp_seconds", text, state.snapshot_s)
        yield _gauge("streams", "Streams that are served by a mapping", len(newest))
        yield _counter("swaps", "Mappings that were put in place", newest.swaps)
        yield _counter("erased", "Streams that were erased", newest.erased)
        yield _counters("passed_over", "Records that changed nothing", "reason", newest.passed_over)
        yield _counters("gaps", "Mappings that were not seen", "kind", newest.gaps)
        yield _counters("failures", "What went wrong in following", "what", state.failures)
        yield from self._served()

    def _served(self) -> Iterator[Metric]:
        items = self._newest.items()
        thetas = GaugeMetricFamily(
            "adaptd_client_streams_of_theta", "Streams by the θ of their mapping", None, ["version"]
        )
        for theta, count in by_theta(items).items():
            thetas.add_metric([theta], count)
        yield thetas
        published = max((m.facts.published_at_ms for _, m in items), default=0)
        yield _gauge("published_timestamp_seconds", "Of the newest mapping", published / 1000)
        version = _of_stream("version", "The newest event offset in the stream's window")
        epoch = _of_stream("epoch", "The tenure that published the stream's mapping")
        event = _of_stream("event_timestamp_seconds", "When the stream's newest pair happened")
        for stream in self._named:
            if mapping := self._newest.get(stream):
                version.add_metric([stream], mapping.facts.version)
                epoch.add_metric([stream], mapping.facts.epoch)
                event.add_metric([stream], mapping.facts.event_time_ms / 1000)
        yield from (version, epoch, event)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"adaptd_client_{name}", text, value)


def _of_stream(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"adaptd_client_{name}", text, None, ["stream"])


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"adaptd_client_{name}", text, value)


def _counters(name: str, text: str, label: str, counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(f"adaptd_client_{name}", text, None, [label])
    for value, count in dict(counts).items():
        family.add_metric([value], count)
    return family
