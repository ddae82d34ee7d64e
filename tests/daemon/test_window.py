"""When a window is ready and how it is cut."""

from __future__ import annotations

import pytest

from daemon.turn.window import WindowShape

SHAPE = WindowShape(support_size=5, query_size=3, min_support=2, source_dim=3, target_dim=2)


@pytest.mark.parametrize(
    ("held", "support", "query"), [(3, 2, 1), (4, 2, 2), (5, 2, 3), (6, 3, 3), (8, 5, 3)]
)
def test_a_cut_takes_the_newest_as_query_and_the_older_as_support(
    held: int, support: int, query: int
) -> None:
    assert SHAPE.ready(held)
    assert SHAPE.query_of(held) == query
    assert held - query == support


@pytest.mark.parametrize("held", [0, 1, 2])
def test_a_window_below_the_smallest_support_and_one_query_pair_is_not_ready(held: int) -> None:
    assert not SHAPE.ready(held)
    with pytest.raises(ValueError, match=f"{held} pairs"):
        SHAPE.query_of(held)
