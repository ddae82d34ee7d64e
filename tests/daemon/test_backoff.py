"""Waits grow with the failures, up to a bound, and differ from worker to worker."""

from __future__ import annotations

import pytest

from daemon.backoff import Backoff

BACKOFF = Backoff(first_s=0.5, longest_s=3.0)


@pytest.mark.parametrize(
    ("failures", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (1_000_000, 3.0)]
)
def test_a_wait_lies_between_half_and_all_of_one_that_doubles(
    failures: int, longest: float
) -> None:
    assert BACKOFF.wait_s(failures, 0.0) == longest / 2
    assert longest / 2 < BACKOFF.wait_s(failures, 0.999) < longest
