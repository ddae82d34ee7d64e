"""The form of `python -m benchmarks retrieval`'s output, and that it refuses to compare what
differs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.methods import retrieval
from benchmarks.methods.retrieval import QUICK, by_ours, inputs


def test_it_prints_figures_that_torchmetrics_confirms(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("retrieval", "--quick", "--out", tmp_path / "figures.json") == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert json.loads((tmp_path / "figures.json").read_text()) == report
    assert report["bench"] == "retrieval"
    assert report["parameters"]["candidates"] == 256
    assert {"cpu", "cores", "torch", "numpy", "torchmetrics"} <= report["machine"].keys()
    assert set(report["cases"]) == {"one", "graded"}
    for case in report["cases"].values():
        assert set(case["results"]) == set(retrieval.MEASURES)
        assert set(case["torchmetrics_cpu_ms"]) == {"functions", "modules"}
        assert case["ratio"]["min"] <= case["ratio"]["median"] <= case["ratio"]["max"]
        assert case["ratio"]["median"] > 0
    assert "torchmetrics" in printed.err


def test_results_that_differ_are_no_figures(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(*arguments: Any) -> dict[str, float]:
        return by_ours(*arguments) | {"mrr": 0.99}

    monkeypatch.setattr(retrieval, "by_ours", wrong)
    assert run("retrieval", "--quick") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "mrr: ours 0.99" in printed.err


def test_scores_have_no_ties_and_every_query_its_own() -> None:
    for case in retrieval.CASES:
        score, grade = inputs(QUICK, case)
        assert len(set(score.ravel().tolist())) == score.size
        assert score.min() > 0
        assert (grade.diagonal() == 3).all()
        assert ((grade > 0).sum() > len(grade)) == (case == "graded")
