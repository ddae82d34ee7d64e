"""`python -m benchmarks adapt`: who agrees, who is refused, what ratios are made of."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pytest
import torch

from benchmarks.inner import adapt, contender
from benchmarks.inner.adapt import BENCHMARK, QUICK, Case, adapt_figures
from benchmarks.inner.contender import (
    ADAPT_ONLY,
    CONTENDERS,
    OURS,
    Answers,
    check_memory,
    prepare,
    timed_runs,
)
from benchmarks.inner.peers import CannotTakePart, Timed, What
from benchmarks.inner.problem import (
    Given,
    Sizes,
    disagreement,
    given,
    right_gradient,
    right_weights,
)
from benchmarks.process import Gone, Process
from model.mappings.mlp import Mlp, apply, apply_batched

TINY = Sizes(
    streams=36, support=4, query=3, source_dim=6, hidden_dim=16, target_dim=5, inner_steps=3
)
CASES: list[tuple[What, str]] = [("adapt", name) for name in CONTENDERS]
CASES += [("gradient", name) for name in CONTENDERS if name not in ADAPT_ONLY]
LIBRARIES = {"higher": "higher", "torchopt": "torchopt", "jax": "jax", "jax chunked": "jax"}


def test_it_prints_figures_of_every_contender(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("adapt", "--quick", "--out", tmp_path / "figures.json") == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert json.loads((tmp_path / "figures.json").read_text()) == report
    assert report["bench"] == "adapt"
    assert {"cpu", "cores", "python", "torch", "higher", "torchopt", "jax"} <= set(
        report["machine"]
    )
    assert [case["what"] for case in report["cases"]] == ["adapt", "gradient"]
    for case in report["cases"]:
        assert set(case["entries"]) == set(QUICK.names)
        assert case["fastest_peer"] == case["fastest_documented"] == "loop"
        for entry in case["entries"].values():
            assert entry["disagreement"] <= 1e-5
            assert entry["streams_per_s"]["median"] > 0
            assert entry["streams_per_cpu_s"]["median"] > 0
        for name in ("materialised", "hidden"):
            ratios = case["entries"][name]["over"]
            assert ratios == {"loop": case["entries"][name]["over_fastest"]}
            assert ratios["loop"]["median"] > 0
    assert "hidden" in printed.err


@pytest.mark.parametrize(("what", "name"), CASES)
def test_everyone_computes_the_same(what: What, name: str) -> None:
    if name in LIBRARIES and find_spec(LIBRARIES[name]) is None:
        pytest.skip(f"{name} is not installed")
    ready = prepare(name, what, TINY, "cpu", seconds=0.02)
    assert ready.facts["disagreement"] < 2e-6
    assert timed_runs(ready, 0.0)["runs"] == 1


def test_theta_moves_and_learns() -> None:
    problem = given(TINY).to(torch.float64)
    moved = right_weights(problem)
    for before, after in zip(problem.theta, moved, strict=True):
        assert ((after - before).abs().flatten(1).amax(1) > 1e-3 * before.abs().max()).all()
    before_BSE = apply(problem.theta, problem.x_BSD, "tanh")
    after_BSE = apply_batched(moved, problem.x_BSD, "tanh")
    assert (after_BSE - problem.y_BSE).norm() < 0.9 * (before_BSE - problem.y_BSE).norm()


def test_the_right_gradient_is_the_slope() -> None:
    problem = given(replace(TINY, streams=3)).to(torch.float64)
    learned = (*problem.theta, problem.rates_K4)
    g = torch.Generator().manual_seed(1)
    along = [torch.randn(t.shape, generator=g, dtype=torch.float64) for t in learned]

    def loss(step: float) -> float:
        tensors = [t + step * u for t, u in zip(learned, along, strict=True)]
        moved = right_weights(problem._replace(theta=Mlp(*tensors[:4]), rates_K4=tensors[4]))
        o_BQE = apply_batched(moved, problem.x_BQD, "tanh")
        return float((o_BQE - problem.y_BQE).square().mean())

    slope = sum(float((a * b).sum()) for a, b in zip(right_gradient(problem), along, strict=True))
    assert (loss(1e-5) - loss(-1e-5)) / 2e-5 == pytest.approx(slope, rel=1e-6)


def test_disagreement_is_beside_the_largest_number_of_the_tensor() -> None:
    right = (torch.tensor([2.0, -4.0]).double(), torch.tensor([0.5]).double())
    assert disagreement((right[0].float(), right[1].float()), right) == 0.0
    assert disagreement((torch.tensor([2.0, -4.1]), torch.tensor([0.5])), right) == pytest.approx(
        0.025
    )
    assert torch.isnan(
        torch.tensor(disagreement((torch.tensor([2.0, float("nan")]), right[1]), right))
    )


@pytest.mark.parametrize("factor", [1.0001, float("nan")])
@pytest.mark.parametrize("name", ["torch.func", "materialised"])
def test_another_result_has_no_figures(
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    factor: float,
) -> None:
    honest = CONTENDERS[name]

    def wrong(problem: Given, what: What) -> Timed:
        timed, found = honest(problem, what)
        return Timed(timed, lambda r, streams: tuple(factor * t for t in found(r, streams)))

    monkeypatch.setitem(CONTENDERS, name, wrong)
    monkeypatch.setattr(adapt, "Process", InThisProcess)
    plan = replace(QUICK, cases=QUICK.cases[:1], names=("loop", "torch.func", "materialised"))
    monkeypatch.setattr(adapt, "BENCHMARK", replace(BENCHMARK, quick=plan))
    assert run("adapt", "--quick") == (1 if name in OURS else 0)
    printed = capsys.readouterr()
    entries = json.loads(printed.out)["cases"][0]["entries"]
    apart = "nan" if factor != factor else "1.0e-04"
    assert entries[name]["refused"] == f"its result is {apart} from the right one"
    assert not {"over", "streams_per_s", "streams_per_cpu_s"} & set(entries[name])
    assert name not in entries["materialised"].get("over", {})
    assert f"none: its result is {apart}" in " ".join(printed.err.split())


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    for what, name in CASES:
        if name in LIBRARIES:
            with pytest.raises(CannotTakePart, match=f"pip install {LIBRARIES[name]}"):
                prepare(name, what, TINY, "cpu", 0.02)


def test_ratios_are_of_neighbours_and_the_slow_have_one_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    speeds = {
        "loop": [100.0, 50.0, 100.0],
        "jax": [120.0],
        "jax chunked": [300.0, 300.0, 200.0],
        "hidden": [900.0, 600.0, 600.0],
    }
    turns = {name: iter(of_turns) for name, of_turns in speeds.items()}
    monkeypatch.setattr(adapt, "_seat", lambda name, _: Scripted(turns[name], name == "jax"))
    plan = replace(QUICK, cases=QUICK.cases[:1], names=tuple(speeds), turns=3)
    case = adapt_figures(plan, lambda line: None)["cases"][0]
    assert (case["fastest_peer"], case["fastest_documented"]) == ("jax chunked", "jax")
    hidden = case["entries"]["hidden"]
    assert hidden["over"]["loop"] == {"median": 9.0, "min": 6.0, "max": 12.0}
    assert hidden["over_fastest"] == {"median": 3.0, "min": 2.0, "max": 3.0}
    assert hidden["over_documented"] == {"median": 7.5, "min": 7.5, "max": 7.5}
    assert "over" not in case["entries"]["jax"]


def test_who_does_one_stream_after_another_is_timed_on_some() -> None:
    sizes = replace(TINY, streams=4096)
    some = prepare("loop", "adapt", sizes, "cpu", seconds=0.005)
    assert 1 <= some.streams < 4096
    assert prepare("materialised", "adapt", sizes, "cpu", seconds=0.005).streams == 4096


def test_nobody_takes_more_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    large = replace(TINY, streams=1024, hidden_dim=128, source_dim=2048, target_dim=2048)
    monkeypatch.setattr(contender, "available_bytes", lambda: 100e9)
    with pytest.raises(CannotTakePart, match=r"it would need 8\.6 GB, of 8\.0"):
        check_memory("torch.func", large, "cpu")
    for name in ("loop", "jax chunked", "hidden"):
        check_memory(name, large, "cpu")
    monkeypatch.setattr(contender, "available_bytes", lambda: 1e9)
    with pytest.raises(CannotTakePart, match=r"of 1\.0"):
        check_memory("hidden", large, "cpu")


def test_a_process_that_ends_is_told_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with Process("benchmarks.inner.contender", "loop", "cpu") as process:
        for _ in range(2):
            with pytest.raises(Gone, match=r"its process ended \(1\)"):
                process.ask({"measure": 0.0})


def test_ours_failing_is_a_failure(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert run("adapt", "--quick") == 1
    assert "materialised: its process ended (1)" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_device_there_are_no_figures(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("adapt", "--quick", "--device", "cuda") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no cuda device here" in printed.err


@pytest.mark.gpu
def test_contenders_in_torch_run_on_a_device(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("adapt", "--quick", "--device", "cuda") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["compared_by"] == "streams_per_s"
    assert report["machine"]["device"]


def test_the_default_plan_is_the_whole_grid() -> None:
    grid = {(c.streams, c.dim) for c in adapt.AdaptPlan().cases if c.what == "adapt"}
    assert grid == {(b, d) for b in (1, 32, 256, 1024) for d in (128, 512, 2048)}
    assert Case("gradient", 32, 512) in adapt.AdaptPlan().cases
    assert set(adapt.AdaptPlan().names) == set(CONTENDERS)


class InThisProcess:
    """A contender without a process."""

    def __init__(self, module: str, name: str, device: str, **options: object) -> None:
        self._answer = Answers(name, device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._answer(request)


class Scripted:
    """A contender whose figures are given."""

    def __init__(self, speeds: Iterator[float], slow: bool) -> None:
        self._speeds, self._slow = speeds, slow

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if "prepare" in request:
            first = self._turn() if self._slow else {"run_s": 0.1}
            return {"disagreement": 1e-7, "streams_in_a_run": 3, "first": first}
        return self._turn()

    def _turn(self) -> dict[str, Any]:
        speed, run_s = next(self._speeds), 60.0 if self._slow else 0.1
        return {"run_s": run_s, "streams_per_s": speed, "streams_per_cpu_s": speed}
