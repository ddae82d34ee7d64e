"""`adaptd plan`: what a load needs, from measured figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from daemon import config
from daemon.commands import measured
from daemon.commands.capacity import Capacity, Load, ServerSizes, capacity, published_bytes
from daemon.commands.options import ConfigFile
from daemon.config import Settings
from daemon.errors import Misconfigured
from model.theta.meta_init import MAX_DIM

MOST_ASKED = 1_000_000_000
"""Of anything that is asked for: what is more, or infinite, is a slip."""


def plan(
    streams: Annotated[int, typer.Option(min=1, max=MOST_ASKED, help="Streams in all.")],
    events_per_second: Annotated[
        float, typer.Option(min=0.001, max=MOST_ASKED, help="Events of all streams.")
    ],
    dims: Annotated[
        str, typer.Option(help="Source, hidden and target dimensions of θ; hidden may be left out.")
    ] = "512,128,512",
    worker_memory_gib: Annotated[
        float, typer.Option(min=0.1, max=MOST_ASKED, help="Of a worker's pod.")
    ] = 8.0,
    redis_memory_gib: Annotated[
        float, typer.Option(min=0.1, max=MOST_ASKED, help="Of a Redis server.")
    ] = 64.0,
    retention_hours: Annotated[
        float, typer.Option(min=0.0, max=MOST_ASKED, help="Of the events topic.")
    ] = 168.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Say what a load needs: workers, partitions, memory, and the size and bandwidth of Redis and
    Kafka, with the settings as they are.

    Sums over figures that were measured, which it names. They come from other machines than yours:
    measure there before you buy.
    """
    settings = config.load_settings(config_file)
    load = Load(streams, events_per_second, *_dimensions(dims))
    room = ServerSizes(worker_memory_gib, redis_memory_gib, retention_hours)
    found = capacity(load, room, settings)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    for line in (*_needs(load, room, settings, found), "", *_sources(settings)):
        typer.echo(line)


def _dimensions(text: str) -> tuple[int, int, int]:
    """Returns source, hidden and target dimensions. Raises Misconfigured."""
    parts = text.split(",")
    numbers = [int(part) for part in parts if part.isdecimal() and 1 <= int(part) <= MAX_DIM]
    if len(numbers) != len(parts) or len(numbers) not in (2, 3):
        raise Misconfigured(
            f"--dims {text!r}: must be SOURCE,HIDDEN,TARGET or SOURCE,TARGET, each from 1 to "
            f"{MAX_DIM}"
        )
    return numbers[0], 128 if len(numbers) == 2 else numbers[1], numbers[-1]


def _needs(load: Load, room: ServerSizes, settings: Settings, found: Capacity) -> Iterator[str]:
    """Yields what would do, a line each."""
    window = settings.support_size + settings.query_size
    yield (
        f"{load.streams:,} streams, {load.events_per_s:,.6g} events/s, windows of {window} pairs, "
        f"θ {load.source_dim} -> {load.hidden_dim} -> {load.target_dim}"
    )
    yield (
        f"mappings    {found.mappings_per_s:,.0f}/s of at most "
        f"{_size(published_bytes(load, settings))}: {settings.mapping_encoding}, "
        f"{settings.mapping_dtype}, each stream every {settings.publish_interval_ms} ms at most"
    )
    yield f"workers     {found.workers}: {found.reason}; {found.worker_cores:.2f} cores in all"
    yield (
        f"            {_size(found.worker_bytes)} of memory each, {_size(found.stream_bytes)} a "
        f"stream; ADAPTD_MAX_RESIDENT_STREAMS={found.resident_streams}"
    )
    if found.spill_bytes:
        yield f"            {_size(found.spill_bytes)} of disk each, in ADAPTD_WINDOW_SPILL_DIR"
    yield (
        f"            when one goes, the others have read its streams "
        f"in {math.ceil(found.takeover_s)} s"
    )
    yield f"partitions  {found.partitions}, so that there may be twice as many workers one day"
    yield from _redis(room, found)
    yield (
        f"Kafka       {_size(found.kafka_in_bytes_per_s)}/s in with replicas, "
        f"{_size(found.kafka_out_bytes_per_s)}/s out to workers and one subscriber; "
        f"{found.kafka_cores:.2f} cores"
    )
    yield (
        f"            events topic {_size(found.events_topic_bytes)} for "
        f"{room.retention_hours:g} hours, mappings topic up to "
        f"{_size(found.mappings_topic_bytes)}; {settings.topic_replication} replicas included"
    )


def _redis(room: ServerSizes, found: Capacity) -> Iterator[str]:
    yield (
        f"Redis       {_size(found.redis_bytes)} of memory, {found.redis_cores:.2f} cores, "
        f"{_size(found.redis_bytes_per_s)}/s in"
    )
    if found.redis_servers > 1:
        yield (
            f"            more than one server of {room.redis_gib:g} GiB: a Redis Cluster of "
            f"{found.redis_servers} primaries would do, since the keys of a partition share a slot."
        )
        yield (
            "            adaptd does not follow a cluster's redirects yet: take one larger server, "
            "or"
        )
        yield (
            f"            {found.redis_servers} installations, each with a Redis, a group and an "
            "events topic of its own"
        )


def _sources(settings: Settings) -> Iterator[str]:
    """Yields the figures that this rests on."""
    yield "from figures measured on two cores of an Intel Xeon, worker, Kafka and Redis together:"
    for figure in (
        measured.EVENT_CPU_US[settings.kafka_client],
        measured.ADAPT_CPU_US,
        measured.PUBLISH_CPU_US,
        measured.REDIS_CPU_US,
        measured.KAFKA_EVENT_CPU_US,
        measured.KAFKA_MAPPING_CPU_US,
        measured.WORKER_BYTES,
        measured.REDIS_PAIR_BYTES,
        measured.RELOADS_PER_S,
    ):
        value = _size(figure.value) if figure.unit == "bytes" else f"{figure.value:g} {figure.unit}"
        yield f"  {value:>15}  {figure.what} ({figure.by})"
    yield "  at 512 -> 128 -> 512; what is larger, mappings above all, is scaled, not measured"
    yield "at 100,000 streams was measured:"
    for line in measured.AT_100_000_STREAMS:
        yield f"  {line}"


def _size(count: float) -> str:
    """Returns bytes in the largest unit of which there is one."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"
