"""Where a tenure begins to read, and how far it may commit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.turn.ports import Bounds
from daemon.turn.tenure import Reset, Tenure, starting_offset

# the log holds offsets 10 to 99; commits and positions lie within it, before it and behind it
STARTS: list[tuple[int | None, int | None, Reset, bool, int]] = [
    # committed, position, reset, rebuild -> start
    (None, None, "earliest", True, 10),
    (None, None, "earliest", False, 10),
    (None, None, "latest", True, 100),
    (None, None, "latest", False, 100),
    (None, 50, "earliest", True, 10),
    (None, 50, "earliest", False, 10),
    (None, 50, "latest", True, 50),
    (None, 50, "latest", False, 50),
    (60, None, "earliest", True, 10),
    (60, None, "latest", True, 10),
    (60, None, "earliest", False, 60),
    (60, None, "latest", False, 60),
    (60, 60, "earliest", True, 60),
    (60, 90, "earliest", True, 60),
    (60, 50, "earliest", True, 50),
    (60, 50, "latest", False, 50),
    (60, 5, "earliest", True, 10),
    (5, 50, "earliest", True, 10),
    (5, None, "earliest", False, 10),
    (500, 500, "earliest", True, 100),
    (500, None, "latest", False, 100),
    (None, 500, "latest", True, 100),
]


@pytest.mark.parametrize(("committed", "position", "reset", "rebuild", "start"), STARTS)
def test_where_a_tenure_begins(
    committed: int | None, position: int | None, reset: Reset, rebuild: bool, start: int
) -> None:
    bounds = Bounds(beginning=10, end=100, committed=committed)
    assert starting_offset(bounds, position, reset, rebuild=rebuild) == start


@given(
    committed=st.integers(0, 120),
    position=st.none() | st.integers(0, 120),
    reset=st.sampled_from(["earliest", "latest"]),
)
def test_nothing_committed_or_kept_is_ever_skipped(
    committed: int, position: int | None, reset: Reset
) -> None:
    start = starting_offset(Bounds(10, 100, committed), position, reset, rebuild=True)
    assert 10 <= start <= 100
    assert start <= max(committed, 10)
    assert start <= max(position or 0, 10)


def test_an_offset_is_committed_once_nothing_before_it_is_owed() -> None:
    tenure = Tenure(epoch=1, start=5, committed=None)
    assert tenure.committable == 5
    tenure.next_offset = 9
    assert tenure.committable == 9
    tenure.hold("a", 6)
    tenure.hold("b", 7)
    tenure.hold("a", 8)
    assert tenure.committable == 6
    tenure.release("a")
    assert tenure.committable == 7
    tenure.hold("a", 9)
    assert tenure.committable == 7
    tenure.release("b")
    assert tenure.committable == 9
    tenure.release("a")
    tenure.release("never held")
    tenure.next_offset = 12
    assert tenure.committable == 12


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_the_oldest_owed_offset_bounds_the_commit(steps: list[tuple[str, bool]]) -> None:
    tenure, owed = Tenure(epoch=1, start=0, committed=None), dict[str, int]()
    for offset, (stream, release) in enumerate(steps):
        tenure.next_offset = offset + 1
        tenure.hold(stream, offset)
        owed.setdefault(stream, offset)
        if release:
            tenure.release(stream)
            del owed[stream]
        assert tenure.committable == min(owed.values(), default=offset + 1)
