"""`python -m benchmarks forms`: what the cost rule picks, beside what is faster, over a grid of
shapes.

R = rows (measured times), L = learned numbers in one vector (the rule's constants)

Which form of the inner loop costs less depends on the shape of mapping and window
(`model.inner.cost_rule`). Here both forms do a turn of every shape of a grid, on one thread, and
the rule's pick is held against the faster one. `--fit` measures the same, fits the rule's constants
to it and prints them: every shape gives two times, each a sum of counted work times constants.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.inner.turn import Measured, least, turns_of
from benchmarks.output import Benchmark, Report, Say
from benchmarks.timing import rounded, torch_threads
from model.inner.cost_rule import COSTS, QUERY, Costs, Shape, both_ns, counted

DIMS = ((16, 16), (64, 16), (64, 64), (256, 256), (512, 512), (2048, 64), (2048, 2048))  # D and E
SUPPORTS, STEPS = (16, 32, 64), (1, 5, 10)
WITHIN = 0.1  # A pick that costs no more than this beyond the best is as good as the best
CONTESTED = 1.5  # forms further apart than this are told apart by any rule

Entry = dict[str, Any]
Times = Mapping[Shape, Measured]


def grid() -> tuple[Shape, ...]:
    """Returns all of D and E, H, S and K; where D is 2048, which is dear to measure and far from
    even, only the corners of S and K."""
    every = itertools.product(DIMS, (32, 128, 512), SUPPORTS, STEPS)
    return tuple(
        Shape(d, h, e, s, k)
        for (d, e), h, s, k in every
        if d < 2048 or (s != SUPPORTS[1] and k != STEPS[1])
    )


@dataclass(frozen=True, slots=True)
class FormsPlan:
    """What is measured, and how much of it."""

    shapes: tuple[Shape, ...] = grid()
    streams: int = 48
    """In a turn, of one new pair each; so many that chunks of either form are whole."""
    query: int = QUERY
    repetitions: int = 24
    seconds: float = 0.2  # of CPU for one shape; two repetitions are made anyway


QUICK = FormsPlan(
    shapes=(Shape(16, 16, 16, 16, 2), Shape(64, 16, 128, 16, 1)),
    streams=4,
    repetitions=2,
    seconds=0.02,
)


def form_figures(plan: FormsPlan, say: Say, *, fit: bool = False) -> Report:
    """Measures everything; with `fit`, the constants are those fitted to this machine, and the
    report also says what picks lose whose own dims were left out of the fit."""
    times = times_of(plan, say)
    costs = fitted_costs(times) if fit else COSTS
    shapes = [beside(shape, found, costs) for shape, found in times.items()]
    found = {"costs_ns": costs._asdict(), "shapes": shapes, "summary": summary(shapes)}
    return found | ({"left_out": left_out(times)} if fit else {})


def times_of(plan: FormsPlan, say: Say) -> dict[Shape, Measured]:
    """Returns both forms' times of every shape, on one thread."""
    times = {}
    with torch_threads(1):
        for at, shape in enumerate(plan.shapes):
            if at % 20 == 0:
                say(f"shape {at + 1} of {len(plan.shapes)}")
            turns = turns_of(shape, plan.streams, plan.query)
            times[shape] = Measured(**least(turns, plan.repetitions, plan.seconds))
    return times


def beside(shape: Shape, found: Measured, costs: Costs = COSTS) -> Entry:
    """Returns what the rule picks, and what is faster; times in µs per stream.

    `regret` is what the pick costs beyond the faster form, as a share of that one's cost;
    `regret_read` the same where all mappings are read, which the rule does not ask about."""
    hidden_ns, full_ns = both_ns(shape, costs)
    picked = "hidden" if hidden_ns < full_ns else "full"
    hidden_s, read_s, full_s = found

    def regret(hidden_s: float) -> float:
        return rounded((hidden_s if picked == "hidden" else full_s) / min(hidden_s, full_s) - 1.0)

    return {
        **shape._asdict(),
        **{f"{name[:-2]}_us": rounded(seconds * 1e6) for name, seconds in found._asdict().items()},
        "predicted_hidden_us": rounded(hidden_ns / 1e3),
        "predicted_full_us": rounded(full_ns / 1e3),
        "faster": "hidden" if hidden_s < full_s else "full",
        "picked": picked,
        "apart": rounded(max(hidden_s, full_s) / min(hidden_s, full_s)),
        "regret": regret(hidden_s),
        "regret_read": regret(read_s),
    }


def summary(entries: Sequence[Entry]) -> dict[str, Any]:
    """Returns the shares over all shapes; over those where the forms are close; where all mappings
    are read; and of no rule at all."""

    def always(form: str) -> dict[str, Any]:
        lost = [0.0 if e["faster"] == form else rounded(e["apart"] - 1.0) for e in entries]
        return pick_figures([e | {"regret": r} for e, r in zip(entries, lost, strict=True)])

    return {
        "within": WITHIN,
        "all": pick_figures(entries),
        "contested": pick_figures([entry for entry in entries if entry["apart"] < CONTESTED]),
        "read": pick_figures(entries, "regret_read"),
        "always_hidden": always("hidden"),
        "always_full": always("full"),
    }


def pick_figures(entries: Sequence[Entry], regret: str = "regret") -> dict[str, Any]:
    """Returns how many picks are as good as the best, and the worst one."""
    if not entries:
        return {"shapes": 0}
    worst = max(entries, key=lambda entry: float(entry[regret]))
    return {
        "shapes": len(entries),
        "share_within": rounded(sum(e[regret] <= WITHIN for e in entries) / len(entries)),
        "worst_regret": worst[regret],
        "worst_shape": {name: worst[name] for name in Shape._fields},
    }


def left_out(times: Times) -> dict[str, Any]:
    """Returns `pick_figures` where a shape's D and E were left out of the fit that picks for it."""
    entries = []
    for dims in sorted({(shape.source_dim, shape.target_dim) for shape in times}):
        mine = {s: found for s, found in times.items() if (s.source_dim, s.target_dim) == dims}
        others = {s: found for s, found in times.items() if s not in mine}
        if others:
            costs = fitted_costs(others)
            entries += [beside(shape, found, costs) for shape, found in mine.items()]
    return pick_figures(entries)


def fitted_costs(times: Times) -> Costs:
    """Returns constants in ns, none below 0, to three digits: least squares of relative errors, so
    that a shape of 100 µs counts as much as one of 100 ms. Raises ValueError without any times."""
    if not times:
        raise ValueError("no times to fit to")
    from scipy.optimize import nnls  # only here: it comes with the `bench` extra, by way of JAX

    rows = np.array([row for shape in times for row in counted(shape)], float)
    found = (s * 1e9 for measured in times.values() for s in (measured.hidden_s, measured.full_s))
    counts_RL = rows / np.array(list(found))[:, None]
    scale_L = counts_RL.max(0)
    scale_L[scale_L == 0.0] = 1.0
    least_L, _ = nnls(counts_RL / scale_L, np.ones(len(counts_RL)))
    return Costs(*(rounded(float(constant), 3) for constant in least_L / scale_L))


BENCHMARK = Benchmark("forms", FormsPlan(), QUICK, ("torch", "numpy"), form_figures)
