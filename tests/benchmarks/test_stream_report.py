"""Figures out of runs."""

from dataclasses import replace

import pytest

from benchmarks.stream.drain import Drain
from benchmarks.stream.latency import Paced, latency_figures
from benchmarks.stream.stream import drain_line, ratios_of, scenario_figures
from benchmarks.stream.worker_process import Sample

ADAPTED = "adaptd_adaptations_total"


def drain(events: int, cpu_s: float, mappings: int = 100) -> Drain:
    """In two seconds, with a quarter as many adaptations as events."""
    start = Sample(10.0, 500, {"worker": 1.0, "kafka": 2.0}, {ADAPTED: 40.0})
    cpu = {"worker": 1.0 + cpu_s, "kafka": 2.5}
    end = Sample(12.0, 500 + events, cpu, {ADAPTED: 40.0 + events / 4})
    return Drain(start, end, mappings, 700, 75_000.0, 1e-6)


def test_figures_are_per_event_of_the_steady_part() -> None:
    found = scenario_figures([drain(1_000, 0.1), drain(2_000, 0.4), drain(3_000, 1.2)])
    assert found["events_per_s"] == {"median": 1_000, "min": 500, "max": 1_500}
    assert found["cpu_us_per_event"]["worker"] == {"median": 200, "min": 100, "max": 400}
    assert found["cpu_us_per_event"]["kafka"]["min"] == pytest.approx(5e5 / 3_000, abs=0.1)
    assert found["mappings_per_event"]["median"] == 0.05
    assert found["adaptations_per_event"]["median"] == 0.25
    assert found["difference"] == 1e-6


def test_a_worker_without_metrics_has_no_adaptations() -> None:
    run = drain(1_000, 0.1)
    silent = replace(run, start=replace(run.start, counters={}), difference=None)
    assert not {"adaptations_per_event", "difference"} & set(scenario_figures([silent]))
    assert "adaptations" in drain_line("a", run)
    assert "adaptations" not in drain_line("a", silent)


def test_ratios_are_of_neighbours_and_of_what_was_run() -> None:
    ours, theirs = [drain(1_000, 0.2), drain(1_000, 0.6)], [drain(1_000, 0.1), drain(1_000, 0.2)]
    found = ratios_of({"every_fourth": ours, "do_nothing": theirs})
    assert found == {
        "cpu_per_event_every_fourth_over_do_nothing": {"median": 2.5, "min": 2.0, "max": 3.0}
    }


def test_a_scenario_that_was_run_once_is_compared_with_its_neighbour() -> None:
    found = ratios_of({"all_published": [drain(600, 1.0)], "usual": [drain(200, 1.0)] * 3})
    assert found["events_per_s_all_published_over_usual"]["median"] == 3.0


def test_latency_is_told_beyond_the_wait_for_a_batch() -> None:
    newest, oldest = [float(ms) for ms in range(100)], [float(ms) for ms in range(100, 200)]
    found = latency_figures([Paced(50.0, 3.0, 50, newest, oldest)])
    assert found["newest_p50_ms"]["median"] == 49
    assert found["oldest_p99_ms"]["median"] == 198
    assert found["p99_beyond_max_wait_ms"]["median"] == 148
    assert found["mappings"] == [100]
