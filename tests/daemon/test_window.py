"""A window keeps the newest pairs in order, whatever is replayed, and cuts them by age."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.window import Pair, PairId, Window, WindowShape

SHAPE = WindowShape(support_size=5, query_size=3, min_support=2, source_dim=3, target_dim=2)

ids = st.builds(PairId, st.integers(0, 40), st.integers(0, 3))


def pair(id: PairId) -> Pair:
    """A pair whose features tell where it came from."""
    x_D = np.array([id.offset, id.place, 1], np.float32)
    return Pair(id, x_D, -x_D[:2], time_ms=1_000 + id.offset)


def pairs(count: int) -> list[Pair]:
    return [pair(PairId(offset, 0)) for offset in range(count)]


@given(fresh=st.sets(ids).map(sorted), data=st.data())
def test_replays_change_nothing_and_the_newest_pairs_remain(
    fresh: list[PairId], data: st.DataObject
) -> None:
    window = Window(SHAPE)
    for i, id in enumerate(fresh):
        assert window.slide(pair(id))
        for replay in data.draw(st.lists(st.sampled_from(fresh[: i + 1]), max_size=3)):
            assert not window.slide(pair(replay))
    assert window.ids() == fresh[-SHAPE.size :]
    assert len(window) == min(len(fresh), SHAPE.size)


@given(st.lists(ids))
def test_any_order_keeps_what_rises_above_all_before_it(order: list[PairId]) -> None:
    window, risen = Window(SHAPE), [PairId(-1, -1)]
    for id in order:
        assert window.slide(pair(id)) == (id > risen[-1])
        risen += [id] * (id > risen[-1])
    assert window.ids() == risen[1:][-SHAPE.size :]


@given(count=st.integers(0, 60), restart_after=st.integers(0, 60))
def test_a_window_restored_from_its_pairs_goes_on_as_if_it_had_stayed(
    count: int, restart_after: int
) -> None:
    all_pairs = pairs(count)
    restored = Window(SHAPE, all_pairs[:restart_after][-SHAPE.size :])
    for each in all_pairs:
        restored.slide(each)
    stayed = Window(SHAPE, all_pairs)
    assert restored.ids() == stayed.ids()
    if stayed.ready:
        assert np.array_equal(restored.cut().x_query_QD, stayed.cut().x_query_QD)
        assert np.array_equal(restored.cut().y_support_SE, stayed.cut().y_support_SE)


@pytest.mark.parametrize(
    ("held", "support", "query"),
    [(3, 2, 1), (4, 2, 2), (5, 2, 3), (6, 3, 3), (8, 5, 3), (50, 5, 3)],
)
def test_a_cut_takes_the_newest_as_query_and_the_older_as_support(
    held: int, support: int, query: int
) -> None:
    window = Window(SHAPE, pairs(held))
    episode = window.cut()
    offsets = [id.offset for id in window.ids()]
    assert episode.x_support_SD[:, 0].tolist() == offsets[:support]
    assert episode.x_query_QD[:, 0].tolist() == offsets[support:]
    assert len(episode.x_query_QD) == query
    assert np.array_equal(episode.y_support_SE, -episode.x_support_SD[:, :2])
    assert np.array_equal(episode.y_query_QE, -episode.x_query_QD[:, :2])
    assert {a.dtype for a in (episode.x_support_SD, episode.y_query_QE)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("held", [0, 1, 2])
def test_a_window_below_the_smallest_support_and_one_query_pair_is_not_ready(held: int) -> None:
    window = Window(SHAPE, pairs(held))
    assert not window.ready
    with pytest.raises(ValueError, match=f"{held} pairs"):
        window.cut()


def test_a_cut_is_a_view_that_stays_valid_until_the_next_slide() -> None:
    window = Window(SHAPE)
    for each in pairs(3 * SHAPE.slots):
        window.slide(each)
        if not window.ready:
            continue
        episode = window.cut()
        assert not episode.x_support_SD.flags.owndata
        seen = [*episode.x_support_SD[:, 0].tolist(), *episode.x_query_QD[:, 0].tolist()]
        assert seen == [id.offset for id in window.ids()]


def test_the_newest_of_a_window() -> None:
    window = Window(SHAPE)
    assert window.newest < PairId(0, 0)
    window.slide(pair(PairId(7, 1)))
    assert (window.newest, window.newest_time_ms) == (PairId(7, 1), 1_007)


def test_the_memory_of_a_window_is_as_announced() -> None:
    shape = replace(SHAPE, support_size=32, query_size=4)
    window = Window(shape)
    arrays = (window._x, window._y, window._ids, window._times)
    assert sum(array.nbytes for array in arrays) == shape.nbytes
