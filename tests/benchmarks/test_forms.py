"""`python -m benchmarks forms`: what a turn does, how picks are judged, that it prints figures."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.inner import forms
from benchmarks.inner import turn as turn_module
from benchmarks.inner.forms import QUICK, FormsPlan, beside, grid, left_out, pick_figures, summary
from benchmarks.inner.turn import Measured, Turn, least
from model.inner.cost_rule import Costs, Shape

SHAPE = Shape(16, 32, 16, 16, 2)
FREE = Costs(0, 0, 0, 0, 0, 0, 0, 0)
"""The rule's constants where nothing costs anything."""
TAKES_HIDDEN, TAKES_FULL = FREE._replace(full_stream=1.0), FREE._replace(hidden_stream=1.0)


def test_it_prints_figures_of_every_shape(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("forms", "--quick", "--out", tmp_path / "figures.json") == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert json.loads((tmp_path / "figures.json").read_text()) == report
    assert report["bench"] == "forms"
    assert [tuple(e[name] for name in Shape._fields) for e in report["shapes"]] == list(
        QUICK.shapes
    )
    for entry in report["shapes"]:
        assert min(entry["hidden_us"], entry["hidden_read_us"], entry["full_us"]) > 0
        assert entry["picked"] in ("hidden", "full")
        assert (entry["regret"] == 0.0) == (entry["picked"] == entry["faster"])
    assert report["summary"]["all"]["shapes"] == len(QUICK.shapes)
    assert "the rule: within 10% of the best" in " ".join(printed.err.split())


def test_the_fit_prints_constants(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("forms", "--fit", "--quick") == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["costs_ns"]) == set(Costs._fields)
    assert report["left_out"]["shapes"] == report["summary"]["all"]["shapes"] == len(QUICK.shapes)


def test_both_forms_do_the_same_turn() -> None:
    hidden, full = (Turn.of(SHAPE, form, streams=3) for form in ("hidden", "full"))
    for turn in (hidden, full):
        assert turn() > 0.0
    in_hidden, in_full = (turn.windows.adapt(turn.read().cuts) for turn in (hidden, full))
    assert all(a.factored is not None for a in in_hidden)
    assert all(a.factored is None for a in in_full)
    for a, b in zip(in_hidden, in_full, strict=True):
        assert a.finite
        assert b.finite
        assert a.support_loss_after < a.support_loss_before
        assert a.query_loss_after == pytest.approx(b.query_loss_after, rel=1e-4)
        for name, tensor in a.tensors.items():
            np.testing.assert_allclose(tensor, b.tensors[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [Shape(16, 32, 16, 64, 10), Shape(2048, 128, 64, 16, 10)])
def test_no_stream_is_too_coarse_for_hidden_space(
    shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a stream is adapted again in full, and the time would be that of both."""
    turn = Turn.of(shape, "hidden", streams=4)
    monkeypatch.setattr(turn.windows, "_in_full", lambda episodes: pytest.fail("adapted in full"))
    turn()


def test_of_large_weights_full_does_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []
    true = Turn.of

    def noted(shape: Shape, form: turn_module.Form, streams: int, query: int) -> Turn:
        made.append((form, streams))
        return true(SHAPE, form, 2, query)

    monkeypatch.setattr(turn_module.Turn, "of", noted)
    turn_module.turns_of(SHAPE, 32)
    turn_module.turns_of(SHAPE._replace(hidden_dim=512, source_dim=512), 32)
    assert made == [("hidden", 32), ("full", 32), ("hidden", 32), ("full", 8)]


def test_the_least_time_counts_and_the_hopeless_have_one() -> None:
    scripts = {
        "a": iter([9.0, 4.0, 3.0, 5.0]),
        "b": iter([10.0, 2.0, 6.0, 7.0]),
        "c": iter([40.0]),
    }
    turns = {name: script.__next__ for name, script in scripts.items()}
    assert least(turns, repetitions=3, seconds=60.0) == {"a": 3.0, "b": 2.0, "c": 40.0}


def test_a_first_run_counts_for_the_hopeless_alone() -> None:
    scripts = {"a": iter([1.0, 2.0, 2.0]), "b": iter([2.0, 3.0, 3.0])}
    turns = {name: script.__next__ for name, script in scripts.items()}
    assert least(turns, repetitions=2, seconds=0.0) == {"a": 2.0, "b": 3.0}


@pytest.mark.parametrize(
    ("costs", "times", "regret", "regret_read"),
    [
        (TAKES_HIDDEN, Measured(10e-6, 30e-6, 20e-6), 0.0, 0.5),
        (TAKES_FULL, Measured(10e-6, 30e-6, 20e-6), 1.0, 0.0),
        (TAKES_HIDDEN, Measured(25e-6, 30e-6, 20e-6), 0.25, 0.5),
    ],
)
def test_regret_is_what_the_pick_costs_beyond_the_best(
    costs: Costs, times: Measured, regret: float, regret_read: float
) -> None:
    entry = beside(SHAPE, times, costs)
    assert entry["picked"] == ("hidden" if costs is TAKES_HIDDEN else "full")
    assert entry["faster"] == ("hidden" if times.hidden_s < times.full_s else "full")
    assert (entry["regret"], entry["regret_read"]) == (regret, regret_read)
    assert entry["hidden_us"] == pytest.approx(times.hidden_s * 1e6)


def test_shares_are_of_all_shapes_and_of_close_ones() -> None:
    found = [Measured(10.0, 10.0, full) for full in (9.5, 8.0, 4.0, 12.0, 40.0)]
    entries = [
        beside(SHAPE._replace(steps=k), times, TAKES_HIDDEN) for k, times in enumerate(found)
    ]
    figures = summary(entries)
    assert figures["all"]["shapes"] == 5
    assert figures["all"]["share_within"] == 0.6
    assert figures["all"]["worst_regret"] == 1.5
    assert figures["all"]["worst_shape"] == SHAPE._replace(steps=2)._asdict()
    assert figures["contested"]["shapes"] == 3
    assert figures["contested"]["share_within"] == pytest.approx(2 / 3, rel=1e-3)
    assert figures["always_hidden"] == figures["all"]
    assert figures["always_full"]["share_within"] == 0.6
    assert figures["always_full"]["worst_regret"] == 3.0
    assert pick_figures([]) == {"shapes": 0}


def test_dims_are_left_out_of_the_fit_that_picks_for_them() -> None:
    """Two families that contradict each other: either picks wrongly for the other."""
    small = [Shape(16, 32, 16, 16, k) for k in range(1, 9)]
    times = {shape: Measured(1e-4, 1e-4, 3e-4) for shape in small}
    times |= {s._replace(source_dim=17): Measured(3e-4, 3e-4, 1e-4) for s in small}
    found = left_out(times)
    assert found["shapes"] == 16
    assert found["share_within"] == 0.0
    assert found["worst_regret"] == 2.0
    assert left_out({small[0]: times[small[0]]}) == {"shapes": 0}


def test_the_grid_covers_what_was_asked() -> None:
    shapes = grid()
    assert len(shapes) == len(set(shapes)) == 5 * 3 * 9 + 2 * 3 * 4
    assert {s.source_dim for s in shapes if s.source_dim == s.target_dim} == {
        16,
        64,
        256,
        512,
        2048,
    }
    assert {s.hidden_dim for s in shapes} == {32, 128, 512}
    assert {s.support for s in shapes} == {16, 32, 64}
    assert {s.steps for s in shapes} == {1, 5, 10}
    assert FormsPlan().shapes == shapes


def test_threads_are_as_before() -> None:
    import torch

    before = torch.get_num_threads()
    forms.times_of(replace(QUICK, shapes=QUICK.shapes[:1]), lambda line: None)
    assert torch.get_num_threads() == before
