"""`python -m benchmarks forms`: what the cost rule picks, beside what is faster, over a grid of
shapes.

Which form of the inner loop costs less depends on the shape of mapping and window
(`model.inner.cost_rule`). Here both forms do a turn of every shape of a grid, on one thread, and
the rule's pick is held against the faster one. `python -m benchmarks.numerics.forms --fit` measures
the same, fits the rule's constants to it and prints them.
"""

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.numerics.forms_fit import fitted
from benchmarks.numerics.forms_regret import beside, left_out, summary
from benchmarks.numerics.forms_shape import DEFAULT_BUDGET, Budget, Measured, measured
from benchmarks.numerics.forms_table import as_table
from model.evaluate.machine import machine
from model.inner.cost_rule import COSTS, QUERY, Shape

DIMS = ((16, 16), (64, 16), (64, 64), (256, 256), (512, 512), (2048, 64), (2048, 2048))
"""D and E."""
SUPPORTS, STEPS = (16, 32, 64), (1, 5, 10)


def grid() -> tuple[Shape, ...]:
    """All of D and E, H, S and K; where D is 2048, which is dear to measure and far from even, only
    the corners of S and K."""
    every = itertools.product(DIMS, (32, 128, 512), SUPPORTS, STEPS)
    return tuple(
        Shape(d, h, e, s, k)
        for (d, e), h, s, k in every
        if d < 2048 or (s != SUPPORTS[1] and k != STEPS[1])
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """One benchmark."""

    shapes: tuple[Shape, ...] = grid()
    streams: int = 48
    """In a turn, of one new pair each; so many that chunks of either form are whole."""
    query: int = QUERY
    budget: Budget = DEFAULT_BUDGET


QUICK = Plan(
    shapes=(Shape(16, 16, 16, 16, 2), Shape(64, 16, 128, 16, 1)),
    streams=4,
    budget=Budget(repetitions=2, seconds=0.02),
)
"""Shows that everything works; its figures mean little."""


def bench(plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything, as one JSON-like object."""
    began = time.monotonic()
    times = times_of(plan, say)
    shapes = [beside(shape, found) for shape, found in times.items()]
    return {
        "bench": "forms",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": dataclasses.asdict(plan) | {"budget": plan.budget._asdict()},
        "machine": machine(("torch", "numpy")),
        "costs_ns": COSTS._asdict(),
        "shapes": shapes,
        "summary": summary(shapes),
        "seconds": round(time.monotonic() - began, 1),
    }


def times_of(plan: Plan, say: Callable[[str], None]) -> dict[Shape, Measured]:
    """Both forms' times of every shape, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = {}
        for at, shape in enumerate(plan.shapes):
            if at % 20 == 0:
                say(f"shape {at + 1} of {len(plan.shapes)}")
            times[shape] = measured(shape, plan.budget, plan.streams, plan.query)
        return times
    finally:
        torch.set_num_threads(threads)


def command(quick: bool, out: Path | None) -> int:
    """Print the figures as JSON on stdout and as a table on stderr; the exit code, 0."""
    console = Console(stderr=True)
    report = bench(QUICK if quick else Plan(), lambda line: console.print(line, markup=False))
    console.print(as_table(report))
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if out is not None:
        out.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0


def fit(plan: Plan) -> dict[str, Any]:
    """Constants fitted to this machine, and what picks by them lose on the grid."""
    times = times_of(plan, lambda line: None)
    costs = fitted(times)
    shapes = [beside(shape, found, costs) for shape, found in times.items()]
    return {"costs_ns": costs._asdict(), "summary": summary(shapes), "left_out": left_out(times)}


def main(arguments: list[str] | None = None) -> int:
    """The command line of this module alone."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.numerics.forms", description=__doc__
    )
    parser.add_argument("--fit", action="store_true", help="fit the rule's constants, print them")
    parser.add_argument("--quick", action="store_true", help="a small run")
    parser.add_argument("--out", type=Path, help="a file for the JSON, besides stdout")
    asked = parser.parse_args(arguments)
    if not asked.fit:
        return command(asked.quick, asked.out)
    text = json.dumps(fit(QUICK if asked.quick else Plan()), indent=2)
    if asked.out is not None:
        asked.out.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
