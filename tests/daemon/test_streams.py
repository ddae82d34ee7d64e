"""Streams in memory: their windows hold the newest pairs in order, whatever is replayed; those that
changed long ago rather go, the busy are spared, and slots are used again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.turn.streams import REMEMBERED, LastPublication, StreamId, Streams
from daemon.turn.window import Pair, PairId, WindowShape
from model.serving.windows import EpisodeWindows, RawWindows
from model.values.episode import Adaptation, Episode
from model.values.gate import Outcome

SHAPE = WindowShape(support_size=5, query_size=3, min_support=2, source_dim=3, target_dim=2)
A = StreamId(0, "a")

ids = st.builds(PairId, st.integers(0, 40), st.integers(0, 3))


class Seen:
    """Streams over windows whose engine only looks at the episodes it gets."""

    def __init__(self, slots: int = 6) -> None:
        self.episodes: list[Episode] = []
        raw = RawWindows(slots, SHAPE.size, SHAPE.source_dim, SHAPE.target_dim)
        self.streams = Streams(SHAPE, EpisodeWindows(raw, self._look), slots)

    def _look(self, episodes: Sequence[Episode], _: Sequence[bool]) -> Sequence[Adaptation]:
        self.episodes += episodes
        return []

    def offsets(self, stream_id: StreamId) -> tuple[list[int], list[int]]:
        """Of the support pairs and of the query pairs of a cut."""
        self.streams.adapt([self.streams.cut(stream_id)])
        episode = self.episodes[-1]
        assert np.array_equal(episode.y_support_SE, -episode.x_support_SD[:, :2])
        assert np.array_equal(episode.y_query_QE, -episode.x_query_QD[:, :2])
        return (
            episode.x_support_SD[:, 0].astype(int).tolist(),
            episode.x_query_QD[:, 0].astype(int).tolist(),
        )


def pair(pair_id: PairId) -> Pair:
    """A pair whose features tell where it came from."""
    x_D = np.array([pair_id.offset, pair_id.place, 1], np.float32)
    return Pair(pair_id, x_D, -x_D[:2], time_ms=1_000 + pair_id.offset)


def pairs(*offsets: int) -> list[Pair]:
    return [pair(PairId(offset, 0)) for offset in offsets]


def held(keys: str) -> Streams:
    streams = Seen().streams
    streams.add({StreamId(ord(key) % 2, key): () for key in keys})
    return streams


def keys(streams: Streams) -> str:
    return "".join(stream_id.key for stream_id in streams)


@given(order=st.lists(st.lists(ids, max_size=12), max_size=6))
def test_only_what_rises_above_all_before_it_is_taken_and_the_newest_remain(
    order: list[list[PairId]],
) -> None:
    seen, risen = Seen(), [PairId(-1, -1)]
    seen.streams.add({A: ()})
    for batch in order:
        (slid,) = seen.streams.slide([(A, [pair(pair_id) for pair_id in batch])])
        new = []
        for pair_id in batch:
            if pair_id > risen[-1]:
                risen.append(pair_id)
                new.append(pair_id)
        assert [pair.id for pair in slid.new] == new
        assert slid.ready == (len(risen) - 1 > SHAPE.min_support)
    stream = seen.streams[A]
    assert stream.newest == risen[-1]
    assert stream.pairs == min(len(risen) - 1, SHAPE.size)
    if seen.streams.ready(A):
        support, query = seen.offsets(A)
        assert support + query == [pair_id.offset for pair_id in risen[1:][-SHAPE.size :]]


@given(count=st.integers(3, 60), restart_after=st.integers(0, 60))
def test_a_stream_restored_from_its_pairs_goes_on_as_if_it_had_stayed(
    count: int, restart_after: int
) -> None:
    stayed, restored = Seen(), Seen()
    stayed.streams.add({A: ()})
    for offset in range(count):
        stayed.streams.slide([(A, pairs(offset))])
    restored.streams.add({A: pairs(*range(min(count, restart_after)))[-SHAPE.size :]})
    restored.streams.slide([(A, pairs(*range(count)))])  # the first of them replays
    assert restored.offsets(A) == stayed.offsets(A)
    assert restored.streams[A].newest_time_ms == stayed.streams[A].newest_time_ms == 999 + count


def test_streams_that_slide_in_one_batch_stay_apart() -> None:
    seen, b = Seen(), StreamId(0, "b")
    seen.streams.add({A: pairs(0, 1), b: ()})
    seen.streams.slide([(b, pairs(2)), (A, pairs(3)), (b, pairs(4, 5)), (A, pairs(6))])
    assert seen.offsets(A) == ([0, 1], [3, 6])
    assert seen.offsets(b) == ([2, 4], [5])


def test_a_slot_used_again_shows_nothing_of_the_stream_before() -> None:
    seen, b = Seen(slots=1), StreamId(1, "b")
    seen.streams.add({A: pairs(*range(8))})
    assert seen.streams.drop(0) == [A]
    seen.streams.add({b: pairs(20, 21, 22)})
    assert seen.offsets(b) == ([20, 21], [22])


def test_of_two_the_less_recently_changed_goes() -> None:
    streams = held("ab")
    streams.slide([(StreamId(1, "a"), ())])
    assert streams.evict(1, busy=lambda _id: False) == 1
    assert keys(streams) == "a"


def returned_share(order: Iterable[int], most: int) -> float:
    """The share of a second half of events whose stream had been evicted."""
    streams, events = Seen(slots=most + 1).streams, list(order)
    returned = 0
    for at, number in enumerate(events):
        stream_id = StreamId(0, str(number))
        if stream_id in streams:
            streams.slide([(stream_id, ())])
        else:
            returned += streams.add({stream_id: ()}) * (at >= len(events) // 2)
        streams.evict(most, busy=lambda _id: False)
    return returned / (len(events) - len(events) // 2)


def test_a_few_more_streams_than_fit_cost_little_though_they_come_in_rounds() -> None:
    assert returned_share([*range(110)] * 12, most=100) < 0.35
    assert returned_share([*range(100)] * 12, most=100) == 0.0


def test_busy_streams_stay_while_others_pass_through() -> None:
    rng = np.random.default_rng(0)
    mixed = [int(rng.integers(50)) if rng.random() < 0.9 else 1_000 + at for at in range(4_000)]
    assert returned_share(mixed, most=100) < 0.1


def test_the_only_idle_one_of_many_is_found() -> None:
    streams = Seen(slots=500).streams
    for number in range(400):
        streams.add({StreamId(0, str(number)): ()})
    assert streams.evict(0, busy=lambda stream_id: stream_id.key != "321") == 1
    assert StreamId(0, "321") not in streams


def test_the_busy_are_spared_and_the_next_idle_goes_instead() -> None:
    streams = held("abcd")
    assert streams.evict(2, busy=lambda stream_id: stream_id.key in "ab") == 2
    assert keys(streams) == "ab"


def test_when_all_are_busy_none_goes() -> None:
    streams = held("abcd")
    assert streams.evict(1, busy=lambda _id: True) == 0
    assert keys(streams) == "abcd"


@pytest.mark.parametrize("most", [4, 5])
def test_as_many_as_may_stay_do(most: int) -> None:
    streams = held("abcd")
    assert streams.evict(most, busy=lambda _id: False) == 0
    assert len(streams) == 4


def test_a_partition_is_dropped_whole_and_alone() -> None:
    streams = held("abcd")
    assert streams.drop(1) == [StreamId(1, "a"), StreamId(1, "c")]
    assert keys(streams) == "bd"
    assert StreamId(0, "b") in streams
    assert StreamId(1, "a") not in streams
    assert streams.drop(7) == []


def test_an_evicted_stream_comes_back_with_what_was_published_of_it() -> None:
    streams = held("b")
    streams.add({A: ()})
    published = LastPublication(7.0, Outcome.RIDGE)
    stream = streams[A]
    stream.last, stream.fresh, stream.unpublished_since_ms = published, 3, 1_234
    streams.evict(1, busy=lambda stream_id: stream_id != A)
    streams.add({A: pairs(4, 5)})
    back = streams[A]
    assert (back.last, back.fresh, back.unpublished_since_ms) == (published, 3, 1_234)
    assert (back.pairs, back.newest) == (2, PairId(5, 0))


def test_what_is_remembered_of_evicted_streams_goes_with_the_partition() -> None:
    streams = held("bdac")
    for stream_id in streams:
        streams[stream_id].last = LastPublication(7.0, Outcome.ADAPTED)
    streams.evict(0, busy=lambda _id: False)
    streams.drop(0)
    streams.add({StreamId(ord(key) % 2, key): () for key in "bdac"})
    assert [streams[each].last is not None for each in streams] == [False, False, True, True]


def test_no_more_evicted_streams_are_remembered_than_a_multiple_of_the_slots() -> None:
    streams = Seen(slots=2).streams
    for number in range(20):
        streams.add({StreamId(0, str(number)): ()})
        streams[StreamId(0, str(number))].last = LastPublication(number, Outcome.ADAPTED)
        streams.evict(0, busy=lambda _id: False)
    remembered = []
    for number in range(20):
        streams.add({StreamId(0, str(number)): ()})
        remembered.append(streams[StreamId(0, str(number))].last is not None)
        streams.drop(1)
        streams._remove([StreamId(0, str(number))])
    assert remembered == [False] * (20 - 2 * REMEMBERED) + [True] * (2 * REMEMBERED)


def test_an_unknown_stream_takes_no_pairs() -> None:
    with pytest.raises(KeyError):
        held("a").slide([(StreamId(0, "z"), ())])


def test_memory_is_told_for_the_streams_that_are_held() -> None:
    per_stream = SHAPE.size * (SHAPE.source_dim + SHAPE.target_dim) * 4
    assert held("abc").window_bytes == 3 * per_stream
