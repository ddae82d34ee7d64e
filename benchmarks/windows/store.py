"""Streams that go from memory and come back from a real Redis, and a start with none in memory."""

import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from typing import Any

import redis

from benchmarks.timing import Stopwatch, rounded
from benchmarks.windows.plan import Feed, WindowsPlan, chunks, names
from daemon.adapters.redis.keys import WindowLayout
from daemon.adapters.redis.windows import RedisWindowStore
from daemon.turn.ports import Append
from daemon.turn.streams import StreamId, Streams

TIMEOUT_S = 30.0
HUNDRED_THOUSAND = 100_000


def store_figures(plan: WindowsPlan, redis_url: str) -> dict[str, Any]:
    """Returns all figures of one process. The server's keys are ours: `redis_url` names an empty
    one."""
    engine, dims = plan.warm_engine(), (plan.dim, plan.dim)
    made = uuid.uuid4().hex[:8]
    layout = WindowLayout("bench", "windows", made, "identity", plan.window_size, *dims)
    store, ids = RedisWindowStore(redis_url, TIMEOUT_S, layout), names(plan, plan.store_streams)

    def loading() -> Loading:
        windows = engine.windows(plan.store_streams)
        return Loading(store, Streams(plan.shape(), windows, plan.store_streams))

    with redis.Redis.from_url(redis_url) as client:
        empty = client.info("memory")["used_memory"]
        try:
            keeping = _keep(plan, store, ids)
            kept_bytes = client.info("memory")["used_memory"] - empty
            eviction = _evict_and_load(plan, loading(), ids)
            cold_start = _cold_start(plan, loading(), ids)
        finally:
            store.close()
    return {
        "streams": plan.store_streams,
        "keeping": keeping.figures("pair"),
        "redis_bytes_per_stream": round(kept_bytes / len(ids)),
        "eviction": eviction,
        "cold_start": cold_start,
    }


@dataclass(frozen=True, slots=True)
class Loading:
    """Loads streams as the loop does: a partition's windows in one pipeline."""

    store: RedisWindowStore
    streams: Streams
    reading: Stopwatch = field(default_factory=Stopwatch)
    taking_in: Stopwatch = field(default_factory=Stopwatch)

    def load(self, ids: Sequence[StreamId]) -> None:
        """Reads these streams from Redis and takes them into memory."""
        for partition, mine in _by_partition(ids).items():
            keys = [stream.key for stream in mine]
            kept = self.reading.run(partial(self.store.load, partition, keys), len(keys))
            by_id = {StreamId(partition, key): pairs for key, pairs in kept.items()}
            self.taking_in.run(partial(self.streams.add, by_id), len(by_id))

    def figures(self) -> dict[str, dict[str, float]]:
        """Returns rates and CPU times of a stream."""
        watches = {"reading": self.reading, "taking_in": self.taking_in}
        return {name: watch.figures("stream") for name, watch in watches.items()}


def _keep(plan: WindowsPlan, store: RedisWindowStore, ids: Sequence[StreamId]) -> Stopwatch:
    """Puts every stream's full window into Redis."""
    feed, watch = Feed(plan), Stopwatch()
    for partition, mine in _by_partition(ids).items():
        epoch = store.claim(partition, now_ms=1).epoch
        for arrivals in feed.full_windows(mine, plan):
            appends = [Append(stream.key, pair) for stream, new in arrivals for pair in new]
            after = appends[-1].pair.id.offset + 1
            watch.run(partial(store.append, partition, epoch, after, appends), len(appends))
    return watch


def _evict_and_load(plan: WindowsPlan, first: Loading, ids: Sequence[StreamId]) -> dict[str, Any]:
    """Runs turns whose streams are never those in memory: each comes back, another goes."""
    room = int(plan.store_streams * plan.store_room)
    at_once = max(1, min(plan.turn_pairs, len(ids) - room))
    first.load(ids[:room])
    back, evicting = Loading(first.store, first.streams), Stopwatch()
    coming = (each for each in islice(cycle(ids), room, None) if each not in back.streams)
    for _ in range(plan.store_turns):
        back.load(list(islice(coming, at_once)))
        evicting.run(partial(back.streams.evict, room, lambda _id: False), at_once)
    wall_s = back.reading.wall_s + back.taking_in.wall_s + evicting.wall_s
    return {
        "room": room,
        "streams_per_turn": at_once,
        "streams_evicted_and_back_per_s": rounded(evicting.count / wall_s),
        "evicting": evicting.figures("stream"),
        **back.figures(),
    }


def _cold_start(plan: WindowsPlan, cold: Loading, ids: Sequence[StreamId]) -> dict[str, Any]:
    """Starts with none in memory; all are loaded, a turn's at a time, then all are adapted once."""
    began, adapting = time.perf_counter(), Stopwatch()
    for some in chunks(ids, plan.turn_pairs):
        cold.load(some)
    for some in chunks(ids, plan.turn_pairs):
        cuts = [cold.streams.cut(stream) for stream in some]
        adapting.run(partial(cold.streams.adapt, cuts), len(cuts))
    seconds = time.perf_counter() - began
    return {
        "seconds": rounded(seconds),
        **cold.figures(),
        "adapting": adapting.figures("stream"),
        "seconds_for_100000_streams_at_this_rate": rounded(seconds / len(ids) * HUNDRED_THOUSAND),
    }


def _by_partition(ids: Sequence[StreamId]) -> dict[int, list[StreamId]]:
    found: dict[int, list[StreamId]] = defaultdict(list)
    for stream in ids:
        found[stream.partition].append(stream)
    return found
