from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.machine import busy_ticks
from benchmarks.stream.latency import nearest_rank
from benchmarks.stream.worker_process import counters
from benchmarks.timing import ratios, rounded, take_turns
from model.evaluate.machine import cpu_model, spread

SCRAPE = """\
# HELP adaptd_adaptations_total Streams adapted.
# TYPE adaptd_adaptations_total counter
adaptd_adaptations_total{outcome="adapted"} 30.0
adaptd_adaptations_total{outcome="worse"} 2.0
# HELP adaptd_turn_stage_seconds Length of each stage.
# TYPE adaptd_turn_stage_seconds histogram
adaptd_turn_stage_seconds_bucket{le="+Inf",stage="adapt"} 4.0
adaptd_turn_stage_seconds_count{stage="adapt"} 4.0
adaptd_turn_stage_seconds_sum{stage="adapt"} 1.5
# HELP adaptd_ready Ready.
# TYPE adaptd_ready gauge
adaptd_ready 1.0
"""


def test_a_spread_has_the_median_and_both_ends() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_ratios_compare_neighbours_in_time() -> None:
    assert ratios([10.0, 40.0], [5.0, 10.0]) == {"median": 3.0, "min": 2.0, "max": 4.0}


def test_a_ratio_to_nothing_is_infinite() -> None:
    assert ratios([1.0], [0.0])["median"] == float("inf")


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 50), (0.501, 51), (0.99, 99), (1.0, 100)]
)
def test_quantile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert nearest_rank(range(100, 0, -1), share) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_at_least_that_share_does_not_exceed_a_quantile(values: list[float], share: float) -> None:
    limit = nearest_rank(values, share)
    assert limit in values
    assert sum(value <= limit for value in values) >= share * len(values) - 1e-6


def test_rounding_keeps_significant_digits() -> None:
    assert (rounded(123456.0), rounded(0.00123456), rounded(0.0)) == (123500.0, 0.001235, 0.0)


def test_a_busy_machine_is_neither_idle_nor_waiting_for_disks() -> None:
    assert busy_ticks("cpu  1 2 4 1000 1000 8 16 32 0 0\ncpu0 9 9 9 9 9 9 9 9 9 9\n") == 63


def test_counters_are_summed_over_their_labels_and_kept_by_label() -> None:
    found = counters(SCRAPE)
    assert found["adaptd_adaptations_total"] == 32.0
    assert found["adaptd_adaptations_total{worse}"] == 2.0
    assert found["adaptd_turn_stage_seconds_sum{adapt}"] == 1.5
    assert "adaptd_ready" not in found


def test_the_cpu_has_a_name_where_the_kernel_tells(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert cpu_model(cpuinfo) is None
    cpuinfo.write_text("processor\t: 0\nmodel name\t: A Fast One\n")
    assert cpu_model(cpuinfo) == "A Fast One"
    cpuinfo.write_text("processor\t: 0\n")
    assert cpu_model(cpuinfo) is None


def test_contenders_take_turns_until_it_is_enough() -> None:
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
    taken = take_turns(contenders, 3, enough=lambda done: done == 2)
    assert calls == ["a", "b", "a", "b"]
    assert {name: len(found) for name, found in taken.items()} == {"a": 2, "b": 2}
