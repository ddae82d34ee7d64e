"""The form of `python -m benchmarks learners`' output, and that who computes something else is
refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from benchmarks.inner import learner_contenders
from benchmarks.inner.learner_contenders import Problem, contenders, problem
from benchmarks.inner.learners import KINDS, QUICK, disagreements, learner_figures
from benchmarks.inner.peers import CannotTakePart
from benchmarks.machine import fresh_peak_kib, peak_kib
from model.meta.recipe import LearnerKind


def test_it_prints_figures_of_every_contender(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("learners", "--quick", "--out", tmp_path / "figures.json") == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert json.loads((tmp_path / "figures.json").read_text()) == report
    assert report["bench"] == "learners"
    assert {"cpu", "cores", "torch", "python", "higher", "torchopt"} <= report["machine"].keys()
    entries = report["learners"]["maml"]
    assert set(entries) == {"ours", "torch.func"}
    assert entries["ours"]["ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    for entry in entries.values():
        assert entry["disagreement"] <= 1e-5
        assert entry["steps_per_s"]["median"] > 0
        assert entry["peak_mib"]["median"] >= 0
    assert "torch.func" in printed.err


@pytest.mark.parametrize("kind", KINDS)
def test_functional_torch_gives_our_outer_gradient(kind: LearnerKind) -> None:
    found = disagreements(replace(QUICK, names=("torch.func",)), kind)
    assert found["torch.func"]["disagreement"] < 1e-9


@pytest.mark.parametrize("library", ["torchopt", "higher"])
@pytest.mark.parametrize("kind", ["maml", "fomaml", "reptile", "meta-sgd", "anil"])
def test_so_do_other_libraries_where_they_are_installed(library: str, kind: LearnerKind) -> None:
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    found = disagreements(replace(QUICK, names=(library,)), kind)
    assert found[library]["disagreement"] < 1e-9


def test_another_gradient_has_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = learner_contenders.with_torch_func

    def wrong(given: Problem) -> tuple[torch.Tensor, ...]:
        return tuple(1.001 * g for g in honest(given))

    monkeypatch.setattr(learner_contenders, "with_torch_func", wrong)
    entry = learner_figures(
        replace(QUICK, names=("torch.func",), repetitions=0), lambda line: None
    )["learners"]["maml"]
    assert entry["torch.func"]["refused"] == "its outer gradient is 1.0e-03 from ours"
    assert "ratio" not in entry["torch.func"]


def test_peak_memory_is_what_was_held_since() -> None:
    del [torch.ones(200 * 2**18)][:]  # 200 MiB, before
    before = fresh_peak_kib()
    del [torch.ones(50 * 2**18)][:]
    assert 49 < (peak_kib() - before) / 1024 < 60


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    given = problem("maml", QUICK.sizes, torch.float64)
    for name in ("torchopt", "higher"):
        with pytest.raises(CannotTakePart, match=f"pip install {name}"):
            contenders("maml", QUICK.sizes, torch.float64)[name](given)


def test_a_process_that_fails_gives_no_figures(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert run("learners", "--quick") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no figures: maml, ours: its process ended (1)" in printed.err
