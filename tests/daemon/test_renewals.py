"""Renewals wait, begin and finish once, and never crowd out the streams that changed."""

from __future__ import annotations

import pytest

from daemon.turn.renewals import Renewals, room_for_renewals


def test_a_renewal_is_begun_once_and_finished_once() -> None:
    renewals = Renewals(["a", "b", "c"])
    assert renewals.begin(2) == ["a", "b"]
    assert (renewals.left, renewals.begun) == (3, 2)
    assert renewals.finish("a")
    assert not renewals.finish("a")
    assert renewals.finish("c"), "it is published although it only waited"
    assert renewals.begin(2) == []
    assert (renewals.left, renewals.begun) == (1, 1)


@pytest.mark.parametrize(
    ("changed", "begun", "room"),
    [(0, 0, 8), (3, 0, 5), (8, 0, 2), (8, 1, 1), (8, 2, 0), (100, 5, 0)],
)
def test_renewals_have_what_changed_streams_leave_and_a_quarter_of_a_batch_in_any_case(
    changed: int, begun: int, room: int
) -> None:
    assert room_for_renewals(8, changed, begun) == room
