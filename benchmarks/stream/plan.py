"""What `python -m benchmarks stream` measures, and how much of it.

D = source dim, E = target dim, H = hidden units, S = support pairs
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.stream.workload import Workload

Kind = Literal["adaptd", "do_nothing", "usual"]
LONG_MS = 60_000  # longer than a run


@dataclass(frozen=True, slots=True)
class StreamScenario:
    """One worker and the settings that are its own."""

    kind: Kind
    settings: Mapping[str, Any] = field(default_factory=dict)
    paced_publishing: bool = False
    """Whether the publish interval is set so that as many mappings per event are published as the
    do-nothing worker publishes."""
    once: bool = False  # whether the first repetition alone has it


EVERY_FOURTH = {"adapt_every": 4, "adapt_latest_ms": LONG_MS}
EVERY_EVENT = {"adapt_every": 1, "max_batch": 1_000}
"""A turn adapts all that it polls, so that no stream's events wait for each other and coalesce."""
LIBRDKAFKA = {"kafka_client": "librdkafka"}
ALL_PUBLISHED = StreamScenario("adaptd", EVERY_EVENT | {"publish_interval_ms": 0}, once=True)

SCENARIOS: Mapping[str, StreamScenario] = {
    "usual": StreamScenario("usual"),
    "every_event": StreamScenario("adaptd", EVERY_EVENT, paced_publishing=True),
    "do_nothing": StreamScenario("do_nothing"),
    "every_fourth": StreamScenario("adaptd", EVERY_FOURTH, paced_publishing=True),
    "librdkafka": StreamScenario("adaptd", EVERY_FOURTH | LIBRDKAFKA, paced_publishing=True),
    "do_nothing_librdkafka": StreamScenario("do_nothing", LIBRDKAFKA, once=True),
    "all_published": ALL_PUBLISHED,
}
"""By name, in the order in which a repetition runs them: those that are compared are neighbours."""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """One benchmark: every scenario, `repetitions` times, in turn."""

    scenarios: tuple[str, ...] = tuple(SCENARIOS)
    streams: int = 2_000
    dim: int = 512  # D and E: an event has 4 KB
    hidden_dim: int = 128
    support_size: int = 16
    query_size: int = 4
    partitions: int = 8
    events: int = 80_000
    """Prefilled beyond those that fill windows; a run ends early when none is left."""
    steady_s: float = 4.0
    """How long a run is measured at least: that, or one publish interval, so that each stream is
    published about equally often in it."""
    longest_steady_s: float = 10.0
    """On a machine where that is too short, the daemon publishes more than it need."""
    least_events: int = 4_000
    """The daemon is measured for so many events in any case: several turns."""
    first_interval_ms: int = 3_000
    """The publish interval of the first run, which tells what it should be."""
    calibrate: bool = True  # whether there are runs first that do not count
    repetitions: int = 3
    at_most_s: float = 300.0  # another repetition is begun only if it is likely to end by then
    paced_runs: int = 2
    """Of the daemon at half of full load; only where `all_published` tells what that is."""
    paced_s: float = 8.0  # how long events come at half of full load
    settle_s: float = 1.0  # of that, before latencies count
    torch_threads: int = 1
    """Several spin while they wait for each other; on cores shared with Kafka and Redis that would
    measure the scheduler."""
    do_nothing_bytes: int = 75_000
    """A rank-S float16 mapping's size: 2·(S·(D+E) + 2·S·H + H²) and its metadata."""
    do_nothing_share: float = 0.1
    """Of a poll's streams, those for which the do-nothing worker produces a record."""
    mapping_encoding: str = "lowrank"
    mapping_dtype: str = "float16"
    seed: int = 1

    @property
    def window_size(self) -> int:
        """Pairs of a full window."""
        return self.support_size + self.query_size

    def workload(self) -> Workload:
        """Returns the events that all workers read."""
        return Workload(self.dim, self.streams, self.partitions, self.window_size, self.seed)


QUICK = StreamPlan(
    scenarios=("usual", "every_event", "do_nothing", "librdkafka", "all_published"),
    streams=100,
    partitions=2,
    events=4_000,
    steady_s=0.5,
    longest_steady_s=2.0,
    least_events=500,
    first_interval_ms=200,
    calibrate=False,
    repetitions=1,
    paced_runs=1,
    paced_s=1.5,
    settle_s=0.5,
)
