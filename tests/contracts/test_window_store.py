"""What every WindowStore does: tenures that fence, appends that are idempotent and atomic."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import pytest
import redis
from redis import exceptions as vendor

from daemon.adapters.memory import MemoryShelf, MemoryWindowStore
from daemon.adapters.redis.errors import meaning_of, redis_errors_translated
from daemon.adapters.redis.keys import WindowLayout
from daemon.adapters.redis.windows import RedisWindowStore
from daemon.errors import Refused, Superseded, Unavailable
from daemon.local.services import Services
from daemon.turn.ports import Append, Appended, Home, LastRead, WindowStore
from daemon.turn.window import Pair, PairId
from tests.contracts.conftest import MEMORY_AND_REAL

WINDOW, DIM = 4, 3


class Backend(Protocol):
    """What stores are opened on, and what can befall it."""

    def open(self) -> WindowStore: ...
    def empty(self) -> None: ...
    def lose_window(self, stream: str) -> None:
        """Deletes the window of a stream in partition 0."""

    def lose_pair(self, stream: str) -> None:
        """Deletes the oldest pair of a window in partition 0."""

    def remember(self) -> Callable[[], None]:
        """Returns a function that puts everything back as it is now: a failover to a replica."""


class MemoryBackend:
    def __init__(self) -> None:
        self._shelf = MemoryShelf()

    def open(self) -> WindowStore:
        return MemoryWindowStore(WINDOW, self._shelf)

    def empty(self) -> None:
        self._put(MemoryShelf())

    def lose_window(self, stream: str) -> None:
        del self._shelf.windows[0, stream]

    def lose_pair(self, stream: str) -> None:
        del self._shelf.windows[0, stream][0]

    def remember(self) -> Callable[[], None]:
        then = copy.deepcopy(self._shelf)
        return lambda: self._put(then)

    def _put(self, shelf: MemoryShelf) -> None:
        self._shelf.__dict__.update(copy.deepcopy(shelf.__dict__))


class RedisBackend:
    def __init__(self, url: str, prefix: str) -> None:
        self._url = url
        self._prefix = prefix
        self._client = redis.Redis.from_url(url)

    def open(
        self, encoder: str = "e1", dims: tuple[int, int] = (DIM, 1), ttl_s: int = 0
    ) -> WindowStore:
        layout = WindowLayout(
            prefix=self._prefix,
            group="g",
            incarnation="topic1",
            encoder_version=encoder,
            window_size=WINDOW,
            source_dim=dims[0],
            target_dim=dims[1],
            window_ttl_s=ttl_s,
        )
        return RedisWindowStore(self._url, 5.0, layout)

    def all_keys(self) -> list[bytes]:
        return list(self._client.scan_iter(match=f"{self._prefix}*"))

    def ttl(self, key: bytes) -> int:
        return int(self._client.ttl(key))

    def empty(self) -> None:
        for key in self.all_keys():
            self._client.delete(key)

    def _window_key(self, stream: str) -> bytes:
        return next(key for key in self.all_keys() if key.endswith(f":w:{stream}".encode()))

    def lose_window(self, stream: str) -> None:
        self._client.delete(self._window_key(stream))

    def lose_pair(self, stream: str) -> None:
        key = self._window_key(stream)
        entries: Any = self._client.xrange(key, count=1)
        self._client.xdel(key, entries[0][0])

    def add_entry(self, stream: str, entry_id: str, fields: Any) -> None:
        self._client.xadd(self._window_key(stream), fields, entry_id)

    def set_keys(self, part: bytes, value: bytes) -> None:
        for key in self.all_keys():
            if part in key:
                self._client.set(key, value)

    def copy_key(self, end: bytes, added: bytes) -> None:
        (key,) = (key for key in self.all_keys() if key.endswith(end))
        self._client.copy(key, key + added)  # type: ignore[arg-type]  # bytes are fine

    def remember(self) -> Callable[[], None]:
        then = {key: self._client.dump(key) for key in self.all_keys()}

        def put_back() -> None:
            self.empty()
            for key, value in then.items():
                assert value is not None
                self._client.restore(key, 0, value)

        return put_back

    def close(self) -> None:
        self._client.close()


@pytest.fixture(params=MEMORY_AND_REAL)
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "memory":
        return MemoryBackend()
    made: RedisBackend = request.getfixturevalue("redis_backend")
    return made


@pytest.fixture
def redis_backend(services: Services, redis_namespace: str) -> Iterator[RedisBackend]:
    made = RedisBackend(services.redis_url, redis_namespace)
    yield made
    made.close()


def pair(offset: int, place: int = 0) -> Pair:
    x_D = np.array([offset, place, np.pi], np.float32)
    return Pair(PairId(offset, place), x_D, -x_D[:1], time_ms=1_000 + offset)


def appends(stream: str, *offsets: int) -> list[Append]:
    return [Append(stream, pair(offset)) for offset in offsets]


def offsets(store: WindowStore, stream: str, partition: int = 0) -> list[int]:
    return [pair.id.offset for pair in store.load(partition, [stream])[stream]]


def test_a_first_claim_finds_nothing(backend: Backend) -> None:
    claim = backend.open().claim(0, now_ms=1_000)
    assert claim.epoch == 1_000
    assert claim.position is None


def test_epochs_grow_with_every_claim_and_with_the_clock(backend: Backend) -> None:
    one, other = backend.open(), backend.open()
    epochs = [store.claim(0, now).epoch for store, now in [(one, 50), (other, 50), (one, 20)]]
    assert epochs == [50, 51, 52]
    assert other.claim(0, 1_700_000_000_123).epoch == 1_700_000_000_123
    assert other.claim(1, 5).epoch == 5


def test_pairs_come_back_bit_by_bit_oldest_first(backend: Backend) -> None:
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    kept = [pair(7), pair(7, 1), pair(9)]
    assert store.append(0, epoch, 10, [Append("ü:{}\x00\n", p) for p in kept]) == Appended([], [])
    loaded = backend.open().load(0, ["ü:{}\x00\n", "unknown"])
    assert loaded["unknown"] == []
    assert [(p.id, p.time_ms) for p in loaded["ü:{}\x00\n"]] == [(p.id, p.time_ms) for p in kept]
    for back, went in zip(loaded["ü:{}\x00\n"], kept, strict=True):
        assert back.x_D.tobytes() == went.x_D.tobytes()
        assert back.y_E.tobytes() == went.y_E.tobytes()


def test_the_first_pair_of_the_first_event_has_an_id_too(backend: Backend) -> None:
    store = backend.open()
    assert store.append(0, store.claim(0, 1).epoch, 1, appends("s", 0)) == Appended([], [])
    assert offsets(store, "s") == [0]


def test_a_window_holds_only_its_newest_pairs(backend: Backend) -> None:
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    store.append(0, epoch, 6, appends("s", *range(6)))
    assert offsets(store, "s") == [2, 3, 4, 5]
    store.append(0, epoch, 7, appends("s", 6))
    assert offsets(store, "s") == [3, 4, 5, 6]


def test_replays_are_refused_and_named_and_the_rest_is_kept(backend: Backend) -> None:
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    store.append(0, epoch, 6, [*appends("s", 1, 3, 5), *appends("t", 2)])
    replays = store.append(0, epoch, 7, [*appends("s", 1, 5, 6), *appends("t", 2, 4)]).replays
    assert replays == [PairId(1, 0), PairId(5, 0), PairId(2, 0)]
    assert offsets(store, "s") == [1, 3, 5, 6]
    assert offsets(store, "t") == [2, 4]


def test_streams_and_partitions_do_not_meet(backend: Backend) -> None:
    store = backend.open()
    for partition in (0, 1):
        epoch = store.claim(partition, 1).epoch
        store.append(partition, epoch, 9, appends("s", partition + 5))
    assert (offsets(store, "s", 0), offsets(store, "s", 1)) == ([5], [6])


def test_a_shortened_window_has_the_pairs_since_that_event_for_every_reader(
    backend: Backend,
) -> None:
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    several = [Append("s", pair(5, place)) for place in range(2)]
    store.append(0, epoch, 7, [*appends("s", 3), *several, *appends("s", 6), *appends("t", 2, 4)])
    store.shorten(0, epoch, {"s": 5, "t": 3, "unknown": 3})
    assert [p.id for p in backend.open().load(0, ["s"])["s"]] == [(5, 0), (5, 1), (6, 0)]
    assert offsets(store, "t") == [4]
    store.shorten(0, epoch, {"s": 5})
    store.shorten(0, epoch, {})
    assert offsets(store, "s") == [5, 5, 6]
    assert store.claim(0, 1).position == 7
    assert store.streams([0])[0] in (["s", "t"], ["t", "s"])


def test_what_was_removed_does_not_come_back_with_a_replay(backend: Backend) -> None:
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    store.append(0, epoch, 6, appends("s", 3, 4, 5))
    store.shorten(0, epoch, {"s": 5})
    assert store.append(0, epoch, 7, appends("s", 3, 4, 5, 6)).replays == [
        PairId(offset, 0) for offset in (3, 4, 5)
    ]
    assert offsets(store, "s") == [5, 6]


def test_whoever_was_superseded_can_shorten_nothing(backend: Backend) -> None:
    old, new = backend.open(), backend.open()
    old_epoch = old.claim(0, 1).epoch
    old.append(0, old_epoch, 3, appends("s", 1, 2))
    new.claim(0, 1)
    with pytest.raises(Superseded) as superseded:
        old.shorten(0, old_epoch, {"s": 2})
    assert superseded.value.partitions == {0}
    assert offsets(new, "s") == [1, 2]


def test_a_store_that_lost_writes_or_everything_shortens_nothing(backend: Backend) -> None:
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    store.append(0, epoch, 3, appends("s", 1, 2))
    fail_over = backend.remember()
    store.append(0, epoch, 5, appends("s", 3, 4))
    fail_over()
    with pytest.raises(Unavailable, match="lost its newest writes"):
        store.shorten(0, epoch, {"s": 2})
    assert offsets(store, "s") == [1, 2]
    backend.empty()
    with pytest.raises(Unavailable, match="redis"):
        store.shorten(0, epoch, {"s": 2})


def test_the_position_is_what_a_successor_finds(backend: Backend) -> None:
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    store.append(0, epoch, 3, [])
    assert backend.open().claim(0, 1).position == 3


def test_the_position_never_goes_back(backend: Backend) -> None:
    store = backend.open()
    store.append(0, store.claim(0, 1).epoch, 9, [])
    successor = backend.open()
    epoch = successor.claim(0, 1).epoch
    successor.append(0, epoch, 4, appends("s", 3))
    successor.append(0, epoch, 6, appends("s", 5))
    assert backend.open().claim(0, 1).position == 9


def test_whoever_was_superseded_can_write_nothing(backend: Backend) -> None:
    old, new = backend.open(), backend.open()
    old_epoch = old.claim(0, 1).epoch
    old.append(0, old_epoch, 3, appends("s", 2))
    new.claim(0, 1)
    with pytest.raises(Superseded) as superseded:
        old.append(0, old_epoch, 5, appends("s", 4))
    assert superseded.value.partitions == {0}
    assert offsets(new, "s") == [2]
    assert backend.open().claim(0, 1).position == 3


def test_only_those_superseded_are_named(backend: Backend) -> None:
    old, new = backend.open(), backend.open()
    epochs = {partition: old.claim(partition, 1).epoch for partition in range(3)}
    old.verify(epochs)
    new.claim(1, 1)
    with pytest.raises(Superseded) as superseded:
        old.verify(epochs)
    assert superseded.value.partitions == {1}
    old.verify({})


def test_a_store_that_was_emptied_takes_nothing_until_it_is_claimed_anew(backend: Backend) -> None:
    store = backend.open()
    epoch = store.claim(0, 1_000).epoch
    store.append(0, epoch, 3, appends("s", 2))
    backend.empty()
    with pytest.raises(Unavailable, match="redis"):
        store.append(0, epoch, 4, appends("s", 3))
    with pytest.raises(Unavailable, match="emptied"):
        store.verify({0: epoch})
    assert offsets(store, "s") == []
    claim = store.claim(0, 1_000)
    assert claim.position is None
    store.append(0, claim.epoch, 4, appends("s", 3))
    assert offsets(store, "s") == [3]


def test_a_store_that_lost_its_newest_writes_takes_nothing_until_claimed_anew(
    backend: Backend,
) -> None:
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    store.append(0, epoch, 3, appends("s", 2))
    fail_over = backend.remember()
    store.append(0, epoch, 4, appends("s", 3))
    fail_over()
    with pytest.raises(Unavailable, match="lost its newest writes"):
        store.append(0, epoch, 5, appends("s", 4))
    assert offsets(store, "s") == [2]
    assert store.claim(0, 1).position == 3


def test_a_window_that_is_as_the_caller_holds_it_is_not_damaged(backend: Backend) -> None:
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    for position, new, length in ((3, [1, 2], 0), (6, [3, 4, 5], 2), (7, [6], WINDOW)):
        appended = store.append(0, epoch, position, appends("s", *new), {"s": length})
        assert appended == Appended([], [])
    assert offsets(store, "s") == [3, 4, 5, 6]


@pytest.mark.parametrize("kept", [[1, 2], [1, 2, 3, 4]], ids=["two pairs", "full"])
@pytest.mark.parametrize("loss", ["window", "pair"])
def test_a_damaged_window_is_named_and_its_position_goes_with_it(
    backend: Backend, loss: str, kept: list[int]
) -> None:
    """Both come back by `restore`; a worker that ends before leaves nothing half true."""
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    store.append(0, epoch, 5, [*appends("s", *kept), *appends("t", 0)])
    backend.lose_window("s") if loss == "window" else backend.lose_pair("s")
    new = [*appends("s", 5), *appends("t", 6)]
    assert store.append(0, epoch, 7, new, {"s": len(kept), "t": 1}) == Appended([], ["s"])
    assert offsets(store, "s") == []
    assert offsets(store, "t") == [0, 6]
    held = [*kept, 5][-WINDOW:]
    store.restore(0, epoch, {"s": [pair(offset) for offset in held]})
    assert offsets(store, "s") == held
    assert store.append(0, epoch, 8, appends("s", 7), {"s": len(held)}) == Appended([], [])
    assert backend.open().claim(0, 1).position == 8


def test_a_worker_that_ends_before_it_restores_leaves_no_position(backend: Backend) -> None:
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    store.append(0, epoch, 3, appends("s", 1, 2))
    backend.lose_window("s")
    store.append(0, epoch, 4, appends("s", 3), {"s": 2})
    assert backend.open().claim(0, 1).position is None


def test_a_window_that_holds_what_the_caller_does_not_is_damaged(backend: Backend) -> None:
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    store.append(0, epoch, 10, appends("s", 1, 2, 3, 9))
    assert store.append(0, epoch, 11, appends("s", 4), {"s": WINDOW}).damaged == ["s"]


def test_whoever_was_superseded_can_restore_nothing(backend: Backend) -> None:
    old, new = backend.open(), backend.open()
    epoch = old.claim(0, 1).epoch
    new.claim(0, 1)
    with pytest.raises(Superseded):
        old.restore(0, epoch, {"s": [pair(1)]})
    assert offsets(new, "s") == []


def test_many_windows_are_restored(backend: Backend) -> None:
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    many = {f"s{i}": [pair(4 * i + j) for j in range(4)] for i in range(3_000)}
    store.append(0, epoch, 12_000, [])
    store.restore(0, epoch, many)
    assert offsets(store, "s2999") == [11_996, 11_997, 11_998, 11_999]
    assert len(store.streams([0])[0]) == 3_000
    assert backend.open().claim(0, 1).position == 12_000


def test_streams_are_those_that_have_a_window(backend: Backend) -> None:
    store = backend.open()
    assert store.streams([0, 1]) == {0: [], 1: []}
    for partition, streams in ((0, ["s", "w:*{0}:w:x", "ü"]), (1, ["s"]), (10, ["t"])):
        epoch = store.claim(partition, 1).epoch
        for offset, stream in enumerate(streams):
            store.append(partition, epoch, offset + 1, appends(stream, offset))
    found = store.streams([0, 1])
    assert {partition: sorted(streams) for partition, streams in found.items()} == {
        0: sorted(["s", "w:*{0}:w:x", "ü"]),
        1: ["s"],
    }


def test_a_mark_is_found_by_the_next_claim(backend: Backend) -> None:
    store = backend.open()
    claim = store.claim(0, 1)
    assert claim.meta_init is None
    store.mark(0, claim.epoch, "θ1")
    assert backend.open().claim(0, 1).meta_init == "θ1"
    assert backend.open().claim(1, 1).meta_init is None
    successor = backend.open()
    successor.mark(0, successor.claim(0, 1).epoch, "")
    assert backend.open().claim(0, 1).meta_init == ""


def test_whoever_was_superseded_can_mark_nothing(backend: Backend) -> None:
    old, new = backend.open(), backend.open()
    epoch = old.claim(0, 1).epoch
    new.mark(0, new.claim(0, 1).epoch, "new")
    with pytest.raises(Superseded) as superseded:
        old.mark(0, epoch, "old")
    assert superseded.value.partitions == {0}
    assert backend.open().claim(0, 1).meta_init == "new"
    backend.empty()
    with pytest.raises(Unavailable, match="emptied"):
        old.mark(0, epoch, "old")


def test_many_appends_are_one(backend: Backend) -> None:
    store = backend.open()
    epoch = store.claim(0, 1).epoch
    many = [Append(f"s{number % 500}", pair(number)) for number in range(5_000)]
    assert store.append(0, epoch, 5_000, many) == Appended([], [])
    assert offsets(store, "s123") == [3_123, 3_623, 4_123, 4_623]


def test_other_encoders_and_other_dimensions_have_windows_of_their_own(
    redis_backend: RedisBackend,
) -> None:
    """Vectors are not encoded: every θ for vectors has the encoder "identity"."""
    store = redis_backend.open()
    store.append(0, store.claim(0, 1).epoch, 3, appends("s", 2))
    for other in (redis_backend.open(encoder="e2"), redis_backend.open(dims=(2, 1))):
        assert other.claim(0, 1).position is None
        assert other.load(0, ["s"])["s"] == []


def test_a_mark_and_streams_of_other_encoders(redis_backend: RedisBackend) -> None:
    """The mark says of what θ mappings are, whatever the features; streams are of one's own."""
    store = redis_backend.open()
    epoch = store.claim(0, 1).epoch
    store.append(0, epoch, 3, appends("s", 2))
    store.mark(0, epoch, "θ1")
    other = redis_backend.open(encoder="e2")
    assert other.claim(0, 1).meta_init == "θ1"
    assert other.streams([0]) == {0: []}
    assert store.streams([0]) == {0: ["s"]}


def test_a_tenure_ends_those_under_other_encoders_too(redis_backend: RedisBackend) -> None:
    old = redis_backend.open(encoder="e1")
    epoch = old.claim(0, 1).epoch
    redis_backend.open(encoder="e2").claim(0, 1)
    with pytest.raises(Superseded):
        old.verify({0: epoch})


def test_unchanged_windows_expire_and_epochs_and_positions_do_not(
    redis_backend: RedisBackend,
) -> None:
    store = redis_backend.open(ttl_s=500)
    store.append(0, store.claim(0, 1).epoch, 3, appends("s", 2))
    ttls = {key.rsplit(b":", 1)[1]: redis_backend.ttl(key) for key in redis_backend.all_keys()}
    assert ttls.keys() == {b"epoch", b"position", b"s"}
    assert 490 < ttls[b"s"] <= 500
    assert ttls[b"epoch"] == ttls[b"position"] == -1


GOOD_X, GOOD_Y = bytes(4 * DIM), bytes(4)
DAMAGED_ENTRIES: dict[str, dict[str, bytes]] = {
    "x too long": {"x": GOOD_X + bytes(4), "y": GOOD_Y, "t": b"1"},
    "x of no whole number": {"x": GOOD_X[:-1], "y": GOOD_Y, "t": b"1"},
    "y too short": {"x": GOOD_X, "y": b"", "t": b"1"},
    "no x": {"y": GOOD_Y, "t": b"1"},
    "no time": {"x": GOOD_X, "y": GOOD_Y},
    "time in words": {"x": GOOD_X, "y": GOOD_Y, "t": b"now"},
    "time of 30 digits": {"x": GOOD_X, "y": GOOD_Y, "t": b"9" * 30},
}


@pytest.mark.parametrize("fields", DAMAGED_ENTRIES.values(), ids=DAMAGED_ENTRIES)
def test_a_damaged_entry_is_left_out_and_its_window_written_again(
    redis_backend: RedisBackend, fields: dict[str, bytes]
) -> None:
    store = redis_backend.open()
    store.append(0, store.claim(0, 1).epoch, 4, appends("s", 1, 2))
    redis_backend.add_entry("s", "4-0", fields)
    successor = redis_backend.open()
    epoch = successor.claim(0, 1).epoch
    assert offsets(successor, "s") == [1, 2]
    assert successor.append(0, epoch, 6, appends("s", 5), {"s": 2}).damaged == ["s"]
    successor.restore(0, epoch, {"s": [pair(1), pair(2), pair(5)]})
    assert offsets(successor, "s") == [1, 2, 5]
    assert redis_backend.open().claim(0, 1).position == 6


def test_an_entry_with_a_place_beyond_64_bits_is_left_out(redis_backend: RedisBackend) -> None:
    store = redis_backend.open()
    store.append(0, store.claim(0, 1).epoch, 4, appends("s", 1))
    fields = {"x": GOOD_X, "y": GOOD_Y, "t": b"1"}
    redis_backend.add_entry("s", f"4-{2**64 - 1}", fields)
    assert offsets(store, "s") == [1]


@pytest.mark.parametrize("value", [b"", b"x", b"\xff", b"topic1 1", b"topic1 a b", b"1 2 3 4"])
def test_damaged_keys_stop_no_worker(redis_backend: RedisBackend, value: bytes) -> None:
    """What only tells more is taken as not known; what says where to read from is asked for."""
    store = redis_backend.open()
    store.append(0, store.claim(0, 1).epoch, 4, appends("s", 1))
    store.remember({0: LastRead("topic1", 1, 7)})
    store.keep_homes({"s": Home(0, 5)})
    redis_backend.set_keys(b":last-read:", value)
    redis_backend.set_keys(b":home:", value)
    assert store.homes(["s"]) == {}
    assert store.claim(0, 1).last_read is None
    redis_backend.set_keys(b":epoch", value)
    with pytest.raises(Unavailable):
        store.verify({0: 1})
    with pytest.raises(Unavailable):
        store.claim(0, 1)
    redis_backend.set_keys(b":epoch", b"1")
    redis_backend.set_keys(b":position", value)
    with pytest.raises(Unavailable, match=r"position holds .* no number"):
        store.claim(0, 1)


def test_another_programs_keys_are_passed_over(redis_backend: RedisBackend) -> None:
    store = redis_backend.open()
    store.append(0, store.claim(0, 1).epoch, 4, appends("s", 1))
    redis_backend.copy_key(b":w:s", b"\xff")
    assert store.streams([0])[0] == ["s"]


def test_a_damaged_key_is_unavailable_and_the_position_stays(redis_backend: RedisBackend) -> None:
    store = redis_backend.open()
    epoch = store.claim(0, 1).epoch
    store.append(0, epoch, 3, appends("s", 2))
    key = next(key for key in redis_backend.all_keys() if key.endswith(b":s"))
    with redis.Redis.from_url(redis_backend._url) as client:
        client.set(key, "not a stream")
    with pytest.raises(Unavailable, match="WRONGTYPE"):
        store.append(0, epoch, 5, appends("s", 4))
    assert redis_backend.open().claim(0, 1).position == 3


def test_nothing_listening_is_unavailable() -> None:
    layout = WindowLayout("p", "g", "i", "e", WINDOW, DIM, 1)
    store = RedisWindowStore("redis://127.0.0.1:1/0", 0.2, layout)
    with pytest.raises(Unavailable, match="claim: ConnectionError"):
        store.claim(0, 1)
    with pytest.raises(Unavailable):
        store.load(0, ["s"])
    with pytest.raises(Unavailable):
        store.verify({0: 1})
    store.close()


VENDOR_ERRORS = sorted(
    (
        error
        for error in vars(vendor).values()
        if isinstance(error, type) and issubclass(error, vendor.RedisError)
    ),
    key=lambda error: error.__name__,
)


@pytest.mark.parametrize("error", [*VENDOR_ERRORS, ConnectionResetError, TimeoutError, OSError])
def test_no_error_of_the_client_escapes(error: type[Exception]) -> None:
    raised = error.__new__(error, "why")  # some want arguments of their own
    meaning = meaning_of(raised)
    expected = Refused if meaning and meaning.kind == "refused" else Unavailable
    with pytest.raises(expected) as translation, redis_errors_translated("ask"):
        raise raised
    assert isinstance(translation.value, Unavailable | Refused)
    assert translation.value.service == "redis"
    assert f"ask: {error.__name__}" in translation.value.detail
    assert isinstance(translation.value.__cause__, error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (vendor.ReadOnlyError("You can't write against a read only replica."), "elsewhere"),
        (vendor.MasterDownError("Link with MASTER is down"), "elsewhere"),
        (vendor.ResponseError("NOREPLICAS Not enough good replicas to write."), "elsewhere"),
        (vendor.BusyLoadingError("Redis is loading the dataset in memory"), "unwell"),
        (vendor.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "unwell"),
        (vendor.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "unwell"),
        (vendor.NoPermissionError("User w has no permissions to run 'set'"), "refused"),
        (vendor.ResponseError("ACL failure in script: User w has no permissions"), "refused"),
        (vendor.AuthenticationError("invalid username-password pair"), "refused"),
        (vendor.ResponseError("DB index is out of range"), "refused"),
        (vendor.ConnectionError("Connection closed by server."), None),
        (vendor.ResponseError("WRONGTYPE Operation against a key"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_what_redis_says_is_told_apart(error: Exception, kind: str | None) -> None:
    meaning = meaning_of(error)
    assert (meaning.kind if meaning else None) == kind


def test_a_bug_is_not_taken_for_an_unavailable_service() -> None:
    with pytest.raises(ZeroDivisionError), redis_errors_translated("ask"):
        raise ZeroDivisionError
