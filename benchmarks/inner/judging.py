"""`python -m benchmarks judging`: what judging and learning again add to an adaptation's CPU time.

B = streams in batch

Turns over the same windows, which take turns in being timed, on one thread:

    adapted    the inner loop on the support, θ′ judged beside θ; no weights are made
    learned    the same, and what may be published: learned again from all pairs, weights or factors
    judged     the same, and ridge regression among the candidates

θ′ is the incumbent, as of a θ that was meta-trained. The first is less than an adaptation that is
published, for it makes no weights: the ratios to it are at least what judging and learning again
cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from benchmarks.inner.turn import Form, Turn
from benchmarks.output import Benchmark, Report, Say
from benchmarks.timing import ratios, rounded, take_turns, torch_threads
from model.inner.cost_rule import Shape
from model.values.episode import Candidate


@dataclass(frozen=True, slots=True)
class JudgingPlan:
    """Which adaptations are timed, and how often."""

    shapes: tuple[Shape, ...] = field(
        default=(Shape(64, 128, 32, 32, 5), Shape(512, 256, 64, 32, 5), Shape(512, 256, 64, 8, 1))
    )
    streams: int = 64
    turns: int = 15


def judging_figures(plan: JudgingPlan, say: Say) -> Report:
    """Times every shape in both forms. The first turn of each makes ready what lasts, and does not
    count."""
    cases = []
    with torch_threads(1):
        for shape in plan.shapes:
            for form in get_args(Form):
                cases.append(shape._asdict() | {"form": form} | _timed(shape, form, plan))
                say(f"{tuple(shape)} {form}: {cases[-1]['judged_over_adapted']['median']}")
    return {"cases": cases}


def judging_turns(shape: Shape, form: Form, streams: int) -> dict[str, Turn]:
    """Returns the turns that are compared."""
    plain = Turn.of(shape, form, streams, trained=True)
    judged = Turn.of(shape, form, streams, trained=True, ridge=True)
    return {"adapted": plain, "learned": plain.read(), "judged": judged.read()}


def _timed(shape: Shape, form: Form, plan: JudgingPlan) -> Report:
    turns = judging_turns(shape, form, plan.streams)
    taken = {n: found[1:] for n, found in take_turns(turns, plan.turns + 1).items()}
    won = [a.winner is Candidate.ADAPTED for a in turns["judged"].adaptations()]
    return {
        "won_by_adapted": rounded(sum(won) / len(won)),
        **{f"{name}_us": rounded(1e6 * min(found)) for name, found in taken.items()},
        "learned_over_adapted": ratios(taken["learned"], taken["adapted"]),
        "judged_over_adapted": ratios(taken["judged"], taken["adapted"]),
    }


QUICK = JudgingPlan((Shape(16, 32, 16, 8, 2),), streams=8, turns=3)
BENCHMARK = Benchmark("judging", JudgingPlan(), QUICK, ("adaptd", "torch"), judging_figures)
