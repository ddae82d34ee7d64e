"""The whole benchmark, small. No figure is judged: this is not a quiet machine."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stream.plan import QUICK

HAS_LIBRDKAFKA = importlib.util.find_spec("confluent_kafka") is not None
EXPECTED = set(QUICK.scenarios) - (set() if HAS_LIBRDKAFKA else {"librdkafka"})


def positive(spread: dict[str, float]) -> bool:
    return 0 < spread["min"] <= spread["median"] <= spread["max"]


@pytest.mark.services
def test_a_quick_run_prints_figures_and_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "stream", "--quick", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report == json.loads(out.read_text())
    assert report["machine"]["cores"] >= 1
    assert {"python", "kafka", "valkey", "torch", "adaptd"} <= set(report["machine"])
    assert set(report["scenarios"]) == EXPECTED
    for name, worker in report["scenarios"].items():
        assert positive(worker["events_per_s"]), name
        assert positive(worker["cpu_us_per_event"]["worker"]), name
        assert ("difference" in worker) == (not name.startswith("do_nothing"))
    assert report["scenarios"]["every_event"]["wall_us_per_event_by_stage"]["decode"] > 0
    assert report["latency"]["mappings"][0] > 0
    assert positive(report["latency"]["oldest_p99_ms"])
    assert all(positive(ratio) for ratio in report["ratios"].values())
    assert set(report["ratios"]) == {
        "cpu_per_event_every_event_over_do_nothing",
        "events_per_s_every_event_over_usual",
        "events_per_s_all_published_over_usual",
    }


def test_an_unknown_scenario_is_named(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("stream", "--quick", "--only", "every_third") == 1
    assert "no scenario every_third" in capsys.readouterr().err


@pytest.mark.services
def test_a_backlog_drains_and_every_mapping_is_renewed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "cliffs", "--quick"],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["cliffs"]
    assert found["backlog"]["records"] == found["backlog"]["mappings"], "some were sent twice"
    assert found["swap"]["meanwhile_p99_ms"] > 0
