"""Streams that go from memory and come back from a real Redis, and a start with none in memory."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import redis

from benchmarks.worker.stats import rounded
from benchmarks.worker.windows_feed import Feed, names
from benchmarks.worker.windows_memory import Stopwatch, warm_engine
from benchmarks.worker.windows_plan import Plan
from daemon.adapters.redis.windows import RedisWindowStore, WindowLayout
from daemon.turn.ports import Append
from daemon.turn.streams import StreamId, Streams

TIMEOUT_S = 30.0
HUNDRED_THOUSAND = 100_000


def measure(plan: Plan, redis_url: str) -> dict[str, Any]:
    """All figures of one process. The server's keys are ours: `redis_url` names an empty one."""
    engine = warm_engine(plan)
    layout = WindowLayout(
        "bench", "windows", uuid.uuid4().hex[:8], "identity", plan.window_size, plan.dim, plan.dim
    )
    store, ids = RedisWindowStore(redis_url, TIMEOUT_S, layout), names(plan, plan.store_streams)
    empty = _redis_bytes(redis_url)
    try:
        kept = _keep(plan, store, ids)
        kept_bytes = _redis_bytes(redis_url) - empty
        room = int(plan.store_streams * plan.store_room)
        few = Streams(plan.shape(), engine.windows(plan.store_streams), plan.store_streams)
        eviction = _evict_and_load(plan, store, few, ids, room)
        all = Streams(plan.shape(), engine.windows(plan.store_streams), plan.store_streams)
        cold = _cold_start(plan, store, all, ids)
    finally:
        store.close()
    return {
        "streams": plan.store_streams,
        "keeping": kept.figures("pair"),
        "redis_bytes_per_stream": round(kept_bytes / len(ids)),
        "eviction": eviction,
        "cold_start": cold,
    }


def _keep(plan: Plan, store: RedisWindowStore, ids: Sequence[StreamId]) -> Stopwatch:
    """Every stream's full window, into Redis."""
    feed, watch = Feed(plan), Stopwatch()
    epochs = {p: store.claim(p, now_ms=1).epoch for p in range(plan.store_partitions)}
    for partition, mine in _by_partition(ids).items():
        for arrivals in feed.full_windows(mine, plan):
            appends = [Append(id.key, pair) for id, new in arrivals for pair in new]
            after = appends[-1].pair.id.offset + 1
            call = partial(store.append, partition, epochs[partition], after, appends)
            watch.run(call, len(appends))
    return watch


def _evict_and_load(
    plan: Plan, store: RedisWindowStore, streams: Streams, ids: Sequence[StreamId], room: int
) -> dict[str, Any]:
    """Turns whose streams are never those in memory: each comes back, another goes."""
    at_once = max(1, min(plan.turn_pairs, len(ids) - room))
    _load(store, streams, ids[:room], Stopwatch(), Stopwatch())
    loading, adding, evicting = Stopwatch(), Stopwatch(), Stopwatch()
    coming = _round_and_round(ids, room)
    for _ in range(plan.store_turns):
        back = list(islice(coming, at_once))
        _load(store, streams, back, loading, adding)
        evicting.run(partial(streams.evict, room, _busy_none), len(back))
    wall_s = loading.wall_s + adding.wall_s + evicting.wall_s
    return {
        "room": room,
        "streams_per_turn": at_once,
        "streams_evicted_and_back_per_s": rounded(evicting.count / wall_s),
        "evicting": evicting.figures("stream"),
        "reading": loading.figures("stream"),
        "taking_in": adding.figures("stream"),
    }


def _cold_start(
    plan: Plan, store: RedisWindowStore, streams: Streams, ids: Sequence[StreamId]
) -> dict[str, Any]:
    """None in memory; all are loaded, a turn's at a time, then all are adapted once."""
    began = time.perf_counter()
    loading, adding, adapting = Stopwatch(), Stopwatch(), Stopwatch()
    for some in _chunks(ids, plan.turn_pairs):
        _load(store, streams, some, loading, adding)
    for some in _chunks(ids, plan.turn_pairs):
        cuts = [streams.cut(id) for id in some]
        adapting.run(partial(streams.adapt, cuts), len(cuts))
    seconds = time.perf_counter() - began
    return {
        "seconds": rounded(seconds),
        "reading": loading.figures("stream"),
        "taking_in": adding.figures("stream"),
        "adapting": adapting.figures("stream"),
        "seconds_for_100000_streams_at_this_rate": rounded(seconds / len(ids) * HUNDRED_THOUSAND),
    }


def _load(
    store: RedisWindowStore,
    streams: Streams,
    ids: Sequence[StreamId],
    loading: Stopwatch,
    adding: Stopwatch,
) -> None:
    """As the loop does: a partition's windows in one pipeline."""
    for partition, mine in _by_partition(ids).items():
        keys = [id.key for id in mine]
        kept = loading.run(partial(store.load, partition, keys), len(keys))
        by_id = {StreamId(partition, key): pairs for key, pairs in kept.items()}
        adding.run(partial(streams.add, by_id), len(by_id))


def _by_partition(ids: Sequence[StreamId]) -> dict[int, list[StreamId]]:
    found: dict[int, list[StreamId]] = {}
    for id in ids:
        found.setdefault(id.partition, []).append(id)
    return found


def _round_and_round(ids: Sequence[StreamId], first: int) -> Iterator[StreamId]:
    at = first
    while True:
        yield ids[at % len(ids)]
        at += 1


def _chunks(ids: Sequence[StreamId], size: int) -> Iterator[Sequence[StreamId]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


def _busy_none(_id: StreamId) -> bool:
    return False


def _redis_bytes(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("memory")["used_memory"])
