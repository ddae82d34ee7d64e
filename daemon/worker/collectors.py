"""Metrics whose values are worked out when Prometheus asks: what is not known then is left out.

The loop's thread replaces the values as a whole, and the HTTP server's threads read them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon.errors import AwayReason, Service
from daemon.turn.report import Holdings
from daemon.worker.away import AwayTime, Cause
from daemon.worker.cgroup import Cgroup
from daemon.worker.metric_specs import COUNTERS, GAUGES, CounterName, GaugeName

KNOWN_FOR_S = 30.0
"""What a turn has found is held to be true so long after its end. A loop that takes longer may wait
for a service that does not answer: what is in Kafka by then, nobody knows."""
CAUSES = tuple(Cause(s, reason) for s in get_args(Service) for reason in get_args(AwayReason))


class _Known(NamedTuple):
    """What the last turn found, and when it ended (seconds, monotonic)."""

    held: Holdings
    at: float


@dataclass(eq=False)
class LastTurn(Collector):
    """What the worker held at the end of its last turn, for as long as that is known."""

    registry: CollectorRegistry
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    _known: _Known | None = None

    def __post_init__(self) -> None:
        self.registry.register(self)

    def ended(self, held: Holdings) -> None:
        """Notes what a turn that ended well has found."""
        self._known = _Known(held, self.monotonic())

    def unknown(self) -> None:
        """Notes that the worker has forgotten what it held, and waits for a service."""
        self._known = None

    def collect(self) -> Iterator[Metric]:
        """Yields the gauges; none where nothing is known."""
        known = self._known
        if known is None or self.monotonic() - known.at > KNOWN_FOR_S:
            return
        held, now = known.held, self.wall()
        yield _gauge("consumer_lag_records", {str(p): n for p, n in held.lag.items()})
        yield _gauge(
            "oldest_owed_seconds",
            {str(p): _age_s(since_ms, now) for p, since_ms in held.owed_since_ms.items()},
        )
        yield _gauge(
            "streams",
            {
                "resident": held.streams,
                "changed": held.changed,
                "deferred": held.deferred,
                "renewal": held.renewals,
            },
        )
        yield _gauge("assigned_partitions", held.assigned)
        yield _gauge("window_bytes", held.window_bytes)


def _age_s(since_ms: int | None, now: float) -> float:
    return 0.0 if since_ms is None else max(0.0, now - since_ms / 1000)


@dataclass(eq=False)
class ServicesAway(Collector):
    """How long Kafka and Redis have been away, now included."""

    registry: CollectorRegistry
    monotonic: Callable[[], float] = time.monotonic
    time: AwayTime = field(init=False)

    def __post_init__(self) -> None:
        self.time = AwayTime(self.monotonic())
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yields a counter of seconds by service and reason."""
        seconds = self.time.seconds(self.monotonic())
        shown = CounterMetricFamily(
            "adaptd_away_seconds", COUNTERS["away_seconds"].help, labels=("service", "reason")
        )
        for cause in CAUSES:
            shown.add_metric(cause, seconds.get(cause, 0.0))
        yield shown


@dataclass(eq=False)
class Limits(Collector):
    """What the container may use, and how long it was held back."""

    registry: CollectorRegistry
    cgroup: Cgroup = field(default_factory=Cgroup)

    def __post_init__(self) -> None:
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yields the limits that there are."""
        yield _gauge("memory_limit_bytes", self.cgroup.memory_limit())
        if (cores := self.cgroup.cpu_limit()) is not None:
            yield _gauge("cpu_limit_cores", cores)
        if (throttled := self.cgroup.throttled_seconds()) is not None:
            yield _counter("cpu_throttled_seconds", throttled)


def _gauge(name: GaugeName, value: float | Mapping[str, float]) -> Metric:
    spec = GAUGES[name]
    shown = GaugeMetricFamily(
        f"adaptd_{name}", spec.help, labels=[spec.label] if spec.label else []
    )
    values = value if isinstance(value, Mapping) else {None: value}
    for label, number in values.items():
        shown.add_metric([] if label is None else [label], number)
    return shown


def _counter(name: CounterName, value: float) -> Metric:
    return CounterMetricFamily(f"adaptd_{name}", COUNTERS[name].help, value=value)
