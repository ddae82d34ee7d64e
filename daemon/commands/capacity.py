"""How many workers, partitions and servers a load needs: sums over measured figures. Pure.

D = source dim, H = hidden units, E = target dim
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from daemon.commands import measured
from daemon.config import Settings
from daemon.errors import Misconfigured
from daemon.wire.topics import mapping_bytes

BUSY = 0.5
"""The share of a core that a steady load may take: the rest is for peaks and for catching up."""
FULL = 0.8
"""The share of a memory limit that may be used, likewise."""
EVENT_ENVELOPE_BYTES = 150
"""An event beside its numbers: names of fields, the key, Kafka's own."""
FACTS_BYTES = 2_000
"""A mapping's facts, in the file and as headers."""
MEASURED_DIM, MEASURED_HIDDEN, MEASURED_MAPPING_BYTES = 512, 128, 76_000
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be borne: streams, their events, and the dimensions of θ."""

    streams: int
    events_per_s: float
    source_dim: int
    hidden_dim: int
    target_dim: int

    @property
    def dims(self) -> int:
        return self.source_dim + self.target_dim


@dataclass(frozen=True, slots=True)
class ServerSizes:
    """What one worker, one Redis server and the topics may take."""

    worker_gib: float
    redis_gib: float
    retention_hours: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """What would do."""

    mappings_per_s: float
    worker_cores: float
    stream_bytes: int
    workers: int
    reason: str
    """What the number of workers follows from."""
    partitions: int
    resident_streams: int
    worker_bytes: float
    spill_bytes: float
    takeover_s: float
    """Until the others have read back the streams of a worker that went."""
    redis_bytes: float
    redis_cores: float
    redis_servers: int
    redis_bytes_per_s: float
    kafka_cores: float
    kafka_in_bytes_per_s: float
    kafka_out_bytes_per_s: float
    events_topic_bytes: float
    mappings_topic_bytes: float


def capacity(load: Load, room: ServerSizes, settings: Settings) -> Capacity:
    """Returns what the load needs with these settings. Raises Misconfigured when a worker's memory
    holds nothing beside the worker itself."""
    mapping = published_bytes(load, settings)
    mappings_per_s = min(
        load.events_per_s / settings.adapt_every,
        load.streams / max(settings.publish_interval_ms / 1000, 1e-3),
        load.events_per_s,
    )
    event_bytes = 4 * load.dims + EVENT_ENVELOPE_BYTES
    event_cpu_us = measured.EVENT_CPU_US[settings.kafka_client].value
    cores = _worker_cores(load, event_cpu_us, mappings_per_s, mapping)
    held, spilled = memory_of_stream(load, settings)
    by_cpu = math.ceil(cores / BUSY)
    by_memory = math.ceil(load.streams * held / _left_for_streams(room, load, settings))
    workers = max(by_cpu, by_memory, 2)
    each = math.ceil(load.streams / workers)
    spare = math.ceil(load.streams / max(1, workers - 1))
    redis_bytes = float(load.streams * redis_stream_bytes(load, settings))
    redis_cores = load.events_per_s * measured.REDIS_CPU_US.value * _wider(load) / 1e6
    events_in, mappings_in = load.events_per_s * event_bytes, mappings_per_s * mapping
    replicas = settings.topic_replication
    return Capacity(
        mappings_per_s=mappings_per_s,
        worker_cores=cores,
        stream_bytes=held,
        workers=workers,
        reason=_reason(by_cpu, by_memory, workers),
        partitions=_partitions(workers),
        resident_streams=spare,
        worker_bytes=measured.WORKER_BYTES.value + each * held,
        spill_bytes=float(spare * spilled),
        takeover_s=each / (workers - 1) / measured.RELOADS_PER_S.value,
        redis_bytes=redis_bytes,
        redis_cores=redis_cores,
        redis_servers=max(
            math.ceil(redis_bytes / (FULL * room.redis_gib * GIB)), math.ceil(redis_cores / BUSY), 1
        ),
        redis_bytes_per_s=events_in,
        kafka_cores=_kafka_cores(load, mappings_per_s, mapping),
        kafka_in_bytes_per_s=(events_in + mappings_in) * replicas,
        kafka_out_bytes_per_s=events_in + mappings_in,
        events_topic_bytes=events_in * 3600 * room.retention_hours * replicas,
        mappings_topic_bytes=float(2 * load.streams * mapping * replicas),
    )


def memory_of_stream(load: Load, settings: Settings) -> tuple[int, int]:
    """Returns the bytes of memory and of the spill folder that a full window takes in a worker."""
    window = settings.support_size + settings.query_size
    raw = 4 * window * load.dims
    projections = 4 * window * (2 * load.hidden_dim + 2 * window + 3)
    return (projections, raw) if settings.window_spill_dir else (raw + projections, 0)


def redis_stream_bytes(load: Load, settings: Settings) -> int:
    """Returns the bytes that Redis takes for a full window and the stream's home."""
    window = settings.support_size + settings.query_size
    return window * (4 * load.dims + int(measured.REDIS_PAIR_BYTES.value)) + 200


def published_bytes(load: Load, settings: Settings) -> int:
    """Returns the bytes that a published θ′ has at most."""
    pairs, h = settings.support_size + settings.query_size, load.hidden_dim
    full = h * (load.source_dim + 1) + load.target_dim * (h + 1)
    factors = pairs * load.dims + h + pairs * h + (h + 1) * (h + 1 + pairs)
    numbers = min(full, factors) if settings.mapping_encoding == "lowrank" else full
    return numbers * (2 if settings.mapping_dtype == "float16" else 4) + FACTS_BYTES


def _worker_cores(load: Load, event_cpu_us: float, mappings_per_s: float, mapping: int) -> float:
    events = load.events_per_s * event_cpu_us * _wider(load)
    harder = max(1.0, load.hidden_dim / MEASURED_HIDDEN) ** 2
    larger = max(1.0, mapping / MEASURED_MAPPING_BYTES)
    each = measured.ADAPT_CPU_US.value * harder + measured.PUBLISH_CPU_US.value * larger
    return (events + mappings_per_s * each) / 1e6


def _kafka_cores(load: Load, mappings_per_s: float, mapping: int) -> float:
    events = load.events_per_s * measured.KAFKA_EVENT_CPU_US.value * _wider(load)
    larger = max(1.0, mapping / MEASURED_MAPPING_BYTES)
    return (events + mappings_per_s * measured.KAFKA_MAPPING_CPU_US.value * larger) / 1e6


def _wider(load: Load) -> float:
    """How much more a pair costs than the one that was measured; no less for a smaller one."""
    return max(1.0, load.dims / (2 * MEASURED_DIM))


def _left_for_streams(room: ServerSizes, load: Load, settings: Settings) -> float:
    """Returns the bytes of a worker's memory that windows may take."""
    whole = mapping_bytes(load.source_dim, load.hidden_dim, load.target_dim)
    batch = settings.max_batch * whole
    left = FULL * room.worker_gib * GIB - measured.WORKER_BYTES.value - batch
    if left <= 0:
        raise Misconfigured(
            f"--worker-memory-gib {room.worker_gib:g}: a worker alone takes "
            f"{measured.WORKER_BYTES.value / GIB:.1f} GiB, and a batch's mappings "
            f"{batch / GIB:.1f} GiB: give it more, or lower ADAPTD_MAX_BATCH"
        )
    return left


def _reason(by_cpu: int, by_memory: int, workers: int) -> str:
    if workers > max(by_cpu, by_memory):
        return "so that one may be away"
    return f"CPU asks for {by_cpu}, memory for {by_memory}"


def _partitions(workers: int) -> int:
    """Returns twice as many as workers, and a number that halves well: more workers later need no
    more partitions, to which streams would move."""
    return max(8, 1 << math.ceil(math.log2(2 * workers)))
