"""Windows in Redis (or Valkey), one Redis Stream per adaptd stream.

D = source dim, E = target dim

keys.py lists the keys.

Theory of operation
    Threads. Every call blocks, for `timeout_s` at most between two bytes from Redis. `append` may
    run on a thread of its own, beside the other calls but never beside a claim, a `shorten` or
    `restore`, or another append (see turn/ports.py): only these touch `_positions`.

    Fencing. A claim gives out the partition's largest epoch yet; a script writes only while its
    epoch is still the one in Redis. So whoever was superseded can write nothing, however late.

    Replays. An entry's id comes from its record's offset (plus one, for 0-0 is no id), and Redis
    itself refuses an id that is not larger than the window's last: an append may be repeated.

    Failovers. Whatever fails, the connection that it failed on is closed. An address that leads to
    the primary, a proxy's or a Kubernetes service's, is so asked again; on a connection that stayed
    open, the former primary would answer READONLY for ever. errors.py lists what answers mean.

    Losses. After a failover Redis may have lost its newest writes. `append` says which position it
    has left there; Redis having another means that it knows less than we do, and the partition must
    be claimed anew, which tells where its events are to be read again from. Redis may also lose
    single windows: by eviction, by expiry, by hand. An append says how long each window must be
    before it; one that is not is deleted together with the position, and `restore` writes both
    again from memory. A worker that ends in between leaves no position: its successor rebuilds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import numpy as np
from redis.exceptions import RedisError

from daemon.adapters.redis.client import open_redis
from daemon.adapters.redis.errors import redis_errors_translated
from daemon.adapters.redis.keys import WindowKeys, WindowLayout
from daemon.adapters.redis.scripts import APPEND, BEGIN_ANEW, CLAIM, MARK, RESTORE, SHORTEN
from daemon.errors import Refused, Superseded, Unavailable
from daemon.turn.ports import NO_LENGTHS, Append, Appended, Claim, Home, LastRead
from daemon.turn.window import Pair, PairId

PAIRS_PER_RESTORE = 10_000
"""Pairs that one script writes again, in which Redis serves nobody else: some 50 ms."""
ALIVE_TTL_S = 60
KEYS_PER_SCAN = 5_000
"""Keys that Redis looks at in one step of a SCAN, in which it serves nobody else."""

COMMANDS = (
    *("evalsha", "script|load", "get", "set", "del", "expire"),
    *("xadd", "xlen", "xtrim", "xrevrange", "scan"),
)
"""All that a worker asks of Redis, scripts included."""


def least_redis_acl(prefix: str) -> str:
    """Returns the rules of ACL SETUSER that suffice for a worker."""
    return " ".join([f"~{prefix}:*", *(f"+{command}" for command in COMMANDS)])


class RedisWindowStore:
    """The WindowStore port on redis-py. Connects when first used.

    Raises Misconfigured when redis-py cannot read the URL.
    """

    def __init__(self, url: str, timeout_s: float, layout: WindowLayout) -> None:
        self._layout = layout
        self._redis = open_redis(url, timeout_s)
        self._claim = self._redis.register_script(CLAIM)
        self._append = self._redis.register_script(APPEND)
        self._shorten = self._redis.register_script(SHORTEN)
        self._restore = self._redis.register_script(RESTORE)
        self._mark = self._redis.register_script(MARK)
        self._begin_anew = self._redis.register_script(BEGIN_ANEW)
        self._keys = WindowKeys(layout)
        self._positions: dict[int, int | None] = {}

    @contextmanager
    def _asking(self, doing: str) -> Iterator[None]:
        """Translates errors, and drops the connections that no thread uses after one: they may lead
        to a server that is no longer the primary. The one that failed is among them by then."""
        try:
            with redis_errors_translated(doing):
                yield
        except (Unavailable, Refused):
            with suppress(RedisError, OSError):
                self._redis.connection_pool.disconnect(inuse_connections=False)
            raise

    def use_topic(self, topic_id: str, partitions: int) -> int:
        """See WindowStore."""
        key = self._keys.begun_with()
        began = f"{topic_id} {partitions}"
        with self._asking("look for the topic"):
            first = self._redis.set(key, began, nx=True, get=True)
        kept = first.decode() if isinstance(first, bytes) else began
        first_id, _, count = kept.rpartition(" ")
        self._keys.topic_id = topic_id
        return _number(count, key) if first_id == topic_id else 0

    def claim(self, partition: int, now_ms: int) -> Claim:
        """See WindowStore."""
        self._keys.generations.pop(partition, None)
        keys = [self._keys.epoch(partition), self._keys.position(partition)]
        keys += [self._keys.theta(partition), self._keys.generation(partition)]
        with self._asking("claim"):
            epoch, kept, mark, generation, before = self._claim(keys=keys, args=[now_ms])
            if generation is not None:  # nobody else moves the position since the claim
                self._keys.generations[partition] = _number(generation, keys[3])
                kept = self._redis.get(self._keys.position(partition))
            last_read = self._redis.get(self._keys.last_read(partition))
        position = None if kept is None else _number(kept, self._keys.position(partition))
        self._positions[partition] = position
        return Claim(
            int(epoch),
            position,
            None if mark is None else mark.decode(),
            self._keys.generations.get(partition, 0),
            _last_read(last_read) if isinstance(last_read, bytes) else None,
            before is not None,
        )

    def begin_anew(self, partition: int, epoch: int) -> int:
        """See WindowStore. The windows left behind expire as all do that do not change."""
        keys = [self._keys.epoch(partition), self._keys.generation(partition)]
        with self._asking("begin anew"):
            result = self._begin_anew(keys=keys, args=[epoch])
        if isinstance(result, bytes):
            self._raise_refusal(result, partition, epoch)
        self._keys.generations[partition] = int(result)
        self._positions[partition] = None
        return self._keys.generations[partition]

    def remember(self, last_reads: Mapping[int, LastRead]) -> None:
        """See WindowStore."""
        if not last_reads:
            return
        with self._asking("remember"):
            pipeline = self._redis.pipeline(transaction=False)
            for partition, read in last_reads.items():
                pipeline.set(self._keys.last_read(partition), " ".join(map(str, read)))
            pipeline.execute()

    def append(
        self,
        partition: int,
        epoch: int,
        position: int,
        appends: Sequence[Append],
        lengths: Mapping[str, int] = NO_LENGTHS,
    ) -> Appended:
        """See WindowStore. One script does it: all or nothing, however the worker ends."""
        before = self._positions[partition]
        after = position if before is None else max(before, position)
        streams = {append.stream: None for append in appends}
        keys = self._keys.written(partition, streams)
        index = {stream: i for i, stream in enumerate(streams, start=3)}
        at = self._layout
        known = "" if before is None else before
        args: list[Any] = [epoch, known, after, at.window_size, at.window_ttl_s]
        args += [lengths.get(stream, "") for stream in streams]
        for append in appends:
            args += (index[append.stream], *_entry(append.pair))
        with self._asking("append"):
            result = self._append(keys=keys, args=args)
        if isinstance(result, bytes):
            self._raise_refusal(result, partition, epoch)
        self._positions[partition] = after
        replays, damaged = result
        named = tuple(streams)
        return Appended(
            [_pair_id(entry_id) for entry_id in replays], [named[i - 3] for i in damaged]
        )

    def restore(self, partition: int, epoch: int, windows: Mapping[str, Sequence[Pair]]) -> None:
        """See WindowStore. A script writes some windows at a time, each whole, and the last one
        the position: a worker that ends in between leaves none."""
        portions = list(_portions(windows, PAIRS_PER_RESTORE))
        for portion in portions:
            position = self._positions[partition] if portion is portions[-1] else None
            keys = self._keys.written(partition, portion)
            known = "" if position is None else position
            args: list[Any] = [epoch, known, self._layout.window_ttl_s]
            for index, pairs in enumerate(portion.values(), start=3):
                for pair in pairs:
                    args += (index, *_entry(pair))
            with self._asking("restore"):
                refused = self._restore(keys=keys, args=args)
            if refused is not None:
                self._raise_refusal(refused, partition, epoch)

    def _raise_refusal(self, why: bytes, partition: int, epoch: int) -> NoReturn:
        self.verify({partition: epoch})
        detail = f"lost its newest writes of partition {partition} ({why!r})"
        raise Unavailable("redis", detail, "lost_writes")

    def homes(self, streams: Sequence[str]) -> Mapping[str, Home]:
        """See WindowStore."""
        found: dict[str, Home] = {}
        with self._asking("look for homes"):
            for begin in range(0, len(streams), KEYS_PER_SCAN):
                some = streams[begin : begin + KEYS_PER_SCAN]
                pipeline = self._redis.pipeline(transaction=False)
                for stream in some:
                    pipeline.get(self._keys.home(stream))
                kept = zip(some, pipeline.execute(), strict=True)
                found |= {s: home for s, value in kept if value and (home := _home(value))}
        return found

    def keep_homes(self, homes: Mapping[str, Home]) -> None:
        """See WindowStore."""
        with self._asking("keep homes"):
            pipeline = self._redis.pipeline(transaction=False)
            for stream, home in homes.items():
                value = f"{home.partition} {home.since_ms}"
                pipeline.set(self._keys.home(stream), value, ex=self._layout.window_ttl_s or None)
            pipeline.execute()

    def shorten(self, partition: int, epoch: int, since: Mapping[str, int]) -> None:
        """See WindowStore."""
        before = self._positions[partition]
        keys = self._keys.written(partition, since)
        args = [epoch, "" if before is None else before]
        args += [f"{offset + 1}-0" for offset in since.values()]
        with self._asking("shorten"):
            refused = self._shorten(keys=keys, args=args)
        if refused is not None:
            self._raise_refusal(refused, partition, epoch)

    def load(self, partition: int, streams: Sequence[str]) -> Mapping[str, Sequence[Pair]]:
        """See WindowStore."""
        prefix = self._keys.window_prefix(partition)
        with self._asking("load"):
            pipeline = self._redis.pipeline(transaction=False)
            for stream in streams:
                pipeline.xrevrange(prefix + stream, count=self._layout.window_size)
            windows = pipeline.execute()
        return {
            stream: [pair for entry in reversed(entries) if (pair := self._pair(*entry))]
            for stream, entries in zip(streams, windows, strict=True)
        }

    def look(self, partition: int, stream: str) -> Sequence[Pair]:
        """Returns a window's pairs, oldest first, without claiming the partition: its owner goes on
        and notices nothing. Raises Unavailable, Refused."""
        key = self._keys.generation(partition)
        with self._asking("look"):
            generation = self._redis.get(key)
        if isinstance(generation, bytes):
            self._keys.generations[partition] = _number(generation, key)
        return self.load(partition, [stream])[stream]

    def _pair(self, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Pair | None:
        """Returns an entry's pair, None for a damaged one. Memory then has fewer pairs than the
        window in Redis; the next append finds that, and the window is written again without it."""
        try:
            x_D = np.frombuffer(fields[b"x"], "<f4")
            y_E = np.frombuffer(fields[b"y"], "<f4")
            pair = Pair(_pair_id(entry_id), x_D, y_E, int(fields[b"t"]))
        except (KeyError, ValueError):
            return None
        if (len(x_D), len(y_E)) != (self._layout.source_dim, self._layout.target_dim):
            return None
        return pair if max(*pair.id, abs(pair.time_ms)) < 2**63 else None

    def streams(self, partitions: Sequence[int]) -> Mapping[int, Sequence[str]]:
        """See WindowStore. One pass over the server's keys, whatever the number of partitions."""
        begins = {self._keys.window_prefix(partition): partition for partition in partitions}
        found: dict[int, list[str]] = {partition: [] for partition in partitions}
        with self._asking("look for streams"):
            for key in self._redis.scan_iter(match=self._keys.of_topic(), count=KEYS_PER_SCAN):
                try:
                    name = key.decode()
                except UnicodeDecodeError:  # another program's
                    continue
                for begin, partition in begins.items():
                    if name.startswith(begin):
                        found[partition].append(name.removeprefix(begin))
        return found

    def mark(self, partition: int, epoch: int, meta_init: str) -> None:
        """See WindowStore."""
        keys = [self._keys.epoch(partition), self._keys.theta(partition)]
        with self._asking("mark"):
            refused = self._mark(keys=keys, args=[epoch, meta_init])
        if refused is not None:
            self._raise_refusal(refused, partition, epoch)

    def verify(self, epochs: Mapping[int, int]) -> None:
        """See WindowStore."""
        with self._asking("verify"):
            pipeline = self._redis.pipeline(transaction=False)
            # a write, for a replica would answer all else
            pipeline.set(self._keys.alive(), "", ex=ALIVE_TTL_S)
            for partition in epochs:
                pipeline.get(self._keys.epoch(partition))
            _, *owners = pipeline.execute()
        owned = {
            partition: 0 if owner is None else _number(owner, self._keys.epoch(partition))
            for partition, owner in zip(epochs, owners, strict=True)
        }
        if superseded := [p for p, owner in owned.items() if owner > epochs[p]]:
            raise Superseded(superseded)
        if lost := [p for p, owner in owned.items() if owner < epochs[p]]:
            detail = f"lost the epochs of partitions {lost}; it was emptied"
            raise Unavailable("redis", detail, "lost_writes")

    def expire_all(self, partition: int) -> None:
        """Has every key of the partition expire in a moment. Raises Unavailable, Refused."""
        with self._asking("remove"):
            pattern = self._keys.of_partition(partition)
            for key in self._redis.scan_iter(match=pattern, count=KEYS_PER_SCAN):
                self._redis.expire(key, 1)

    def close(self) -> None:
        """See WindowStore."""
        with suppress(RedisError, OSError):
            self._redis.close()


def _entry(pair: Pair) -> tuple[str, bytes, bytes, int]:
    entry_id = f"{pair.id.offset + 1}-{pair.id.place}"
    return entry_id, pair.x_D.tobytes(), pair.y_E.tobytes(), pair.time_ms


def _number(value: bytes | str, key: str) -> int:
    """Returns the integer that a key holds. Raises Unavailable when it holds none."""
    try:
        return int(value)
    except ValueError as e:
        detail = f"key {key} holds {value[:100]!r} and no number; delete it"
        raise Unavailable("redis", detail) from e


def _last_read(value: bytes) -> LastRead | None:
    """Returns what is known of the last record, None where the value is damaged."""
    try:
        topic_id, offset, seen = value.decode().split(" ")
        return LastRead(topic_id, int(offset), int(seen))
    except ValueError:
        return None


def _home(value: bytes) -> Home | None:
    """Returns where a stream was seen last, None where the value is damaged."""
    try:
        partition, since_ms = map(int, value.split())
        return Home(partition, since_ms)
    except ValueError:
        return None


def _portions(
    windows: Mapping[str, Sequence[Pair]], most_pairs: int
) -> Iterator[Mapping[str, Sequence[Pair]]]:
    """Yields the windows in groups of at most so many pairs, or of one window."""
    some: dict[str, Sequence[Pair]] = {}
    pairs = 0
    for stream, window in windows.items():
        if some and pairs + len(window) > most_pairs:
            yield some
            some, pairs = {}, 0
        some[stream] = window
        pairs += len(window)
    yield some


def _pair_id(entry_id: bytes) -> PairId:
    offset, place = entry_id.split(b"-")
    return PairId(int(offset) - 1, int(place))
