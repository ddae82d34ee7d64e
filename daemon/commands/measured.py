"""Figures that `adaptd plan` reckons with, each with what measured it and when.

All on one machine: two cores of an Intel Xeon, on which worker, Kafka and Redis shared; vectors of
512 dimensions on either side, 128 hidden units. BENCHMARKS.md has them, and how they were taken."""

from __future__ import annotations

from typing import NamedTuple


class MeasuredFigure(NamedTuple):
    """A figure, and how to measure it again."""

    value: float
    unit: str
    what: str
    by: str


STREAM = "python -m benchmarks stream, 2026-11-28"
WINDOWS = "python -m benchmarks windows, 2026-11-28"

EVENT_CPU_US = {
    "kafka-python": MeasuredFigure(
        119, "µs of CPU", "a worker for an event, adapting left out", STREAM
    ),
    "librdkafka": MeasuredFigure(
        87, "µs of CPU", "a worker for an event, adapting left out", STREAM
    ),
}
"""By Kafka client. Solved, as the next two are, from three runs that adapt and publish more and
less: 219, 383 and 826 µs an event with 0.29, 1.07 and 1.13 adaptations and 0.10, 0.09 and 1.13
mappings each; 182 µs with 0.26 and 0.10 of them for librdkafka."""
ADAPT_CPU_US = MeasuredFigure(211, "µs of CPU", "a worker that adapts and judges a stream", STREAM)
PUBLISH_CPU_US = MeasuredFigure(
    415, "µs of CPU", "a worker that publishes a mapping of 76 KB", STREAM
)
REDIS_CPU_US = MeasuredFigure(36, "µs of CPU", "Redis for an event", STREAM)
KAFKA_EVENT_CPU_US = MeasuredFigure(24, "µs of CPU", "Kafka for an event that is read", STREAM)
KAFKA_MAPPING_CPU_US = MeasuredFigure(92, "µs of CPU", "Kafka for a mapping of 76 KB", STREAM)
MEMORY = "smaps_rollup of an idle worker, 2026-11-30"
WORKER_BYTES = MeasuredFigure(341e6, "bytes", "a worker without streams: anonymous memory", MEMORY)
REDIS_PAIR_BYTES = MeasuredFigure(132, "bytes", "Redis for a pair, beside its numbers", WINDOWS)
RELOADS_PER_S = MeasuredFigure(
    915, "streams/s", "a worker that reads windows back from Redis", WINDOWS
)
AT_100_000_STREAMS = (
    "one worker, windows of 32 pairs, d = 512, raw features spilled to a disk, for 12 minutes:",
    "41.6 KB of memory a stream that the kernel cannot take back, 173 KB of it and of files",
    "22,860 pairs/s while windows fill; then 3,735 pairs/s and 1,428 adapted streams/s",
    "memory grew by 0.02 % meanwhile",
)
"""What was seen at 100,000 streams, by `WINDOWS`."""
