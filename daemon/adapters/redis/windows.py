"""Windows in Redis (or Valkey), one Redis Stream per adaptd stream.

Keys, all under `<prefix>:<group>:{<topic incarnation>:<partition>}` so that a partition's keys
share one cluster slot:

    :epoch                    number; the partition's owner has the largest
    :theta                    text; the θ that all of the partition's mappings are of
    :<features>:position      number; offset after the newest event whose pairs are kept
    :<features>:w:<stream>    stream; one entry per pair, id <offset + 1>-<pair index>,
                              fields x, y (float32, little-endian) and t (ms, UTC)

<features> is <encoder version>:<source dim>x<target dim>: what makes pairs comparable.

The entry's id comes from the record's offset (plus one, for 0-0 is not an id), so Redis itself
refuses a replay. New features, or a topic made anew, have windows of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from daemon.errors import Misconfigured, Superseded, Unavailable
from daemon.turn.ports import Append, Claim
from daemon.turn.window import Pair, PairId

_CLAIM = """
local epoch = math.max(tonumber(redis.call('GET', KEYS[1]) or '0') + 1, tonumber(ARGV[1]))
redis.call('SET', KEYS[1], string.format('%.0f', epoch))
return {string.format('%.0f', epoch), redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3])}
"""
"""KEYS: epoch, position, theta. ARGV: the wall clock in ms, below which no epoch is given out: so
epochs keep growing even when Redis has lost them."""

_APPEND = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'owner' end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then return 'position' end
local replays = {}
for i = 6, #ARGV, 5 do
  local added = redis.pcall('XADD', KEYS[tonumber(ARGV[i])], 'MAXLEN', '=', ARGV[4], ARGV[i + 1],
                            'x', ARGV[i + 2], 'y', ARGV[i + 3], 't', ARGV[i + 4])
  if type(added) == 'table' and added.err then
    if not string.find(added.err, 'equal or smaller') then return redis.error_reply(added.err) end
    replays[#replays + 1] = ARGV[i + 1]
  end
end
if ARGV[5] ~= '0' then
  for i = 3, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
end
redis.call('SET', KEYS[2], ARGV[3])
return replays
"""
"""KEYS: epoch, position, then each stream's once. ARGV: our epoch, the position as we left it, the
new position, the window size, seconds until an unchanged window expires (0: never), then for each
pair: the index of its stream's key, id, x, y, t. Nothing is written unless we are the owner and
Redis knows all that we have written."""

_MARK = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'owner' end
redis.call('SET', KEYS[2], ARGV[2])
"""
"""KEYS: epoch, theta. ARGV: our epoch, the θ."""
SCANNED_AT_ONCE = 5_000
GLOB = str.maketrans({special: f"\\{special}" for special in "*?[]^\\"})


@dataclass(frozen=True, slots=True)
class WindowLayout:
    """What the keys and entries depend on."""

    prefix: str
    group: str
    incarnation: str
    encoder_version: str
    window_size: int
    source_dim: int
    target_dim: int
    window_ttl_s: int = 0
    """Windows unchanged for so long expire; 0: never."""


class RedisWindowStore:
    """The WindowStore port on redis-py."""

    def __init__(self, url: str, timeout_s: float, layout: WindowLayout) -> None:
        self._layout = layout
        try:
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),  # the loop recovers; a blind retry could hide a fault
            )
            self._redis.connection_pool.make_connection()  # does not connect, but reads all options
        except (ValueError, TypeError) as e:
            raise Misconfigured(f"ADAPTD_REDIS_URL = (hidden): {e}") from e
        self._claim = self._redis.register_script(_CLAIM)
        self._append = self._redis.register_script(_APPEND)
        self._mark = self._redis.register_script(_MARK)
        self._positions: dict[int, int | None] = {}

    def _place(self, partition: int, name: str) -> str:
        at = self._layout
        return f"{at.prefix}:{at.group}:{{{at.incarnation}:{partition}}}:{name}"

    def _epoch_key(self, partition: int) -> str:
        return self._place(partition, "epoch")

    def _key(self, partition: int, name: str) -> str:
        at = self._layout
        return (
            f"{self._place(partition, at.encoder_version)}:{at.source_dim}x{at.target_dim}:{name}"
        )

    def claim(self, partition: int, now_ms: int) -> Claim:
        """See WindowStore."""
        keys = [self._epoch_key(partition), self._key(partition, "position")]
        keys.append(self._place(partition, "theta"))
        with redis_errors_translated("claim"):
            epoch, kept, mark = self._claim(keys=keys, args=[now_ms])
        position = self._positions[partition] = None if kept is None else int(kept)
        return Claim(int(epoch), position, None if mark is None else mark.decode())

    def append(
        self, partition: int, epoch: int, position: int, appends: Sequence[Append]
    ) -> Sequence[PairId]:
        """See WindowStore. One script, so all or nothing, however the worker ends."""
        before = self._positions[partition]
        after = position if before is None else max(before, position)
        streams = {append.stream: None for append in appends}
        keys = [self._epoch_key(partition), self._key(partition, "position")]
        keys += [self._key(partition, f"w:{stream}") for stream in streams]
        index = {stream: i for i, stream in enumerate(streams, start=3)}
        at = self._layout
        known = "" if before is None else before
        args: list[Any] = [epoch, known, after, at.window_size, at.window_ttl_s]
        for append in appends:
            args += (index[append.stream], *_entry(append.pair))
        with redis_errors_translated("append"):
            result = self._append(keys=keys, args=args)
        if isinstance(result, bytes):
            self._refused(result, partition, epoch)
        self._positions[partition] = after
        return [_pair_id(id) for id in result]

    def _refused(self, why: bytes, partition: int, epoch: int) -> None:
        self.verify({partition: epoch})
        raise Unavailable("redis", f"lost its newest writes of partition {partition} ({why!r})")

    def load(self, partition: int, streams: Sequence[str]) -> Mapping[str, Sequence[Pair]]:
        """See WindowStore."""
        with redis_errors_translated("load"):
            pipeline = self._redis.pipeline(transaction=False)
            for stream in streams:
                pipeline.xrevrange(
                    self._key(partition, f"w:{stream}"), count=self._layout.window_size
                )
            windows = pipeline.execute()
        return {
            stream: [self._pair(id, entry) for id, entry in reversed(entries)]
            for stream, entries in zip(streams, windows, strict=True)
        }

    def _pair(self, id: bytes, entry: Mapping[bytes, bytes]) -> Pair:
        x_D = np.frombuffer(entry[b"x"], "<f4")
        y_E = np.frombuffer(entry[b"y"], "<f4")
        if (len(x_D), len(y_E)) != (self._layout.source_dim, self._layout.target_dim):
            raise RuntimeError(f"entry {id!r} has {len(x_D)} and {len(y_E)} dimensions")
        return Pair(_pair_id(id), x_D, y_E, int(entry[b"t"]))

    def streams(self, partitions: Sequence[int]) -> Mapping[int, Sequence[str]]:
        """See WindowStore. One pass over the server's keys, whatever the number of partitions."""
        begins = {self._key(partition, "w:"): partition for partition in partitions}
        found: dict[int, list[str]] = {partition: [] for partition in partitions}
        at = self._layout
        pattern = f"{at.prefix}:{at.group}:{{{at.incarnation}:".translate(GLOB) + "*"
        with redis_errors_translated("look for streams"):
            for key in self._redis.scan_iter(match=pattern, count=SCANNED_AT_ONCE):
                name = key.decode()
                for begin, partition in begins.items():
                    if name.startswith(begin):
                        found[partition].append(name.removeprefix(begin))
        return found

    def mark(self, partition: int, epoch: int, meta_init: str) -> None:
        """See WindowStore."""
        keys = [self._epoch_key(partition), self._place(partition, "theta")]
        with redis_errors_translated("mark"):
            refused = self._mark(keys=keys, args=[epoch, meta_init])
        if refused is not None:
            self._refused(refused, partition, epoch)

    def verify(self, epochs: Mapping[int, int]) -> None:
        """See WindowStore."""
        with redis_errors_translated("verify"):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.ping()
            for partition in epochs:
                pipeline.get(self._epoch_key(partition))
            _, *owners = pipeline.execute()
        owned = dict(zip(epochs, owners, strict=True))
        if superseded := [p for p, owner in owned.items() if owner and int(owner) > epochs[p]]:
            raise Superseded(superseded)
        if lost := [p for p, owner in owned.items() if owner is None or int(owner) < epochs[p]]:
            raise Unavailable("redis", f"lost the epochs of partitions {lost}; it was emptied")

    def close(self) -> None:
        """See WindowStore."""
        self._redis.close()


def _entry(pair: Pair) -> tuple[str, bytes, bytes, int]:
    id = f"{pair.id.offset + 1}-{pair.id.place}"
    return id, pair.x_D.tobytes(), pair.y_E.tobytes(), pair.time_ms


def _pair_id(id: bytes) -> PairId:
    offset, place = id.split(b"-")
    return PairId(int(offset) - 1, int(place))


@contextmanager
def redis_errors_translated(doing: str) -> Iterator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except (RedisError, OSError) as e:
        raise Unavailable("redis", f"{doing}: {type(e).__name__}: {e}") from e
