"""`python -m benchmarks judging`: what is timed, and that it prints figures."""

import json
from collections.abc import Callable

import pytest

from benchmarks.inner.judging import judging_turns
from model.inner.cost_rule import Shape


def test_it_prints_figures_of_every_form(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("judging", "--quick") == 0
    printed = capsys.readouterr()
    cases = json.loads(printed.out)["cases"]
    assert [case["form"] for case in cases] == ["hidden", "full"]
    for case in cases:
        assert min(case["adapted_us"], case["learned_us"], case["judged_us"]) > 0
        assert case["judged_over_adapted"]["min"] > 0.0
    assert "CPU time of one stream's adaptation" in " ".join(printed.err.split())


def test_only_what_is_read_learns_again_and_only_the_last_has_ridge() -> None:
    turns = judging_turns(Shape(16, 32, 16, 8, 2), "hidden", streams=2)
    assert [all(cut.wanted for cut in turn.cuts) for turn in turns.values()] == [False, True, True]
    ridges = [turn.adaptations()[0].rival is not None for turn in turns.values()]
    assert ridges == [False, False, True]
