"""The whole benchmark, small. No figure is judged: this is not a quiet machine."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.services


def positive(spread: dict[str, float]) -> bool:
    return 0 < spread["min"] <= spread["median"] <= spread["max"]


def test_a_quick_run_prints_figures_and_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "bench", "stream", "--quick", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report == json.loads(out.read_text())
    assert report["machine"]["cores"] >= 1
    assert {"python", "kafka", "valkey", "torch", "adaptd"} <= set(report["versions"])
    assert [size["source_bytes"] for size in report["sizes"]] == [1024, 4096]
    for size in report["sizes"]:
        for worker in (size["adaptd"], size["do_nothing"]):
            assert positive(worker["events_per_s"])
            assert positive(worker["cpu_us_per_event"]["worker"])
            assert worker["event_to_publish_ms"]["newest"]["mappings"][0] > 0
        assert size["adaptd"]["fallbacks_per_event"]["median"] < 0.05
        assert size["adaptd"]["wall_us_per_event_by_stage"]["decode"] > 0
        assert positive(size["ratios"]["cpu_us_per_event"])
