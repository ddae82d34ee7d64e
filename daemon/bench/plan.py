"""What is measured, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.bench.workload import Workload
from daemon.config import Settings

HIDDEN_DIM = 128


def ready_at() -> int:
    """Pairs that a stream needs before the daemon adapts it, as its settings are by default."""
    return Settings().min_support + 1


@dataclass(frozen=True, slots=True)
class Plan:
    """One benchmark: every size, `repetitions` times, adaptd and do-nothing in turn."""

    streams: int = 2_000
    source_dims: tuple[int, ...] = (256, 1024)
    """1 KB and 4 KB of float32."""
    target_dim: int = 64
    steady_events: int = 6_000
    """Of the drain: those whose cost is measured."""
    repetitions: int = 3
    at_most_s: float = 300.0
    """Another repetition is begun only if it is likely to end by then."""
    paced_s: float = 5.0
    """How long events come at half rate."""
    settle_s: float = 1.0
    """Of that, before latencies count: publish intervals have to get out of step."""
    torch_threads: int = 1
    """Several spin while they wait for each other; on cores shared with Kafka and Redis that would
    measure the scheduler."""
    partitions: int = 8
    do_nothing_share: float = 0.1
    """Of a poll's streams, those for which the do-nothing worker produces a record."""
    seed: int = 1

    @property
    def filling_events(self) -> int:
        """Prefilled first: they fill windows, and no stream is ready yet."""
        return self.streams * (ready_at() - 1)

    @property
    def warm_events(self) -> int:
        """Before the steady part: then most streams have been published once, and the publish
        interval holds for the next time."""
        return self.filling_events + self.streams

    @property
    def events(self) -> int:
        """Prefilled in each run."""
        return self.warm_events + self.steady_events

    def workload(self, source_dim: int) -> Workload:
        """The events of one size."""
        return Workload(
            source_dim,
            self.target_dim,
            self.streams,
            self.partitions,
            rounds=self.filling_events // self.streams,
            seed=self.seed,
        )


QUICK = Plan(streams=100, steady_events=1_000, repetitions=1, paced_s=1.5, settle_s=0.5)
"""Shows that everything works; its figures mean little."""
