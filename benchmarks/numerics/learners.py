"""`python -m benchmarks learners`: meta-training steps per second and peak memory of every learner,
beside the same in torch.func, torchopt and higher.

Everyone gets the same θ, rates and episodes. Before anything is timed, everyone's outer gradient
is compared with ours in float64; who computes something else has no ratio. Then everyone steps in
processes of their own, taking turns, so that a noisy minute is not one contender's alone.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.numerics.learner_contenders import CannotTakePart, contenders
from benchmarks.numerics.learner_problem import Sizes, problem
from model.evaluate.machine import machine, spread
from model.meta.recipe import LearnerKind

KINDS: tuple[LearnerKind, ...] = ("maml", "fomaml", "reptile", "meta-sgd", "anil", "adam", "r2d2")
LIBRARIES = ("torch", "torchopt", "higher", "numpy")
AGREE = 1e-5
"""How far an outer gradient may be from ours, beside its largest number."""
RUN_TIMEOUT_S = 300.0

FULL = Sizes()
"""About those of the emoji tenants."""

DEFINITIONS = {
    "step": "the outer gradient of one batch of episodes, and torch's Adam on it; float32, one "
    "thread, MSE in both loops, tanh",
    "steps_per_s": "by the clock",
    "steps_per_cpu_s": "by the process's CPU time: the figure to compare on a machine with other "
    "work",
    "peak_mib": "peak resident memory while stepping, less what was resident just before",
    "ratio": "ours over theirs in steps_per_cpu_s; each repetition with its neighbour in time",
    "memory_ratio": "theirs over ours in peak_mib, of medians",
    "disagreement": "the largest difference between two outer gradients in float64, tensor by "
    "tensor, beside the tensor's largest number",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One benchmark."""

    kinds: tuple[LearnerKind, ...] = KINDS
    names: tuple[str, ...] = ("ours", "torch.func", "torchopt", "higher")
    sizes: Sizes = FULL
    repetitions: int = 3
    seconds: float = 2.0
    """Of stepping, in each process."""


QUICK = Plan(
    kinds=("maml",),
    names=("ours", "torch.func"),
    sizes=Sizes(
        streams=2, support=4, query=3, source_dim=4, hidden_dim=8, target_dim=3, inner_steps=2
    ),
    repetitions=1,
    seconds=0.05,
)
"""Shows that everything works; its figures mean little."""


class NoFigures(Exception):
    """A process that was to measure failed."""


def bench(plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything, as one JSON-like object. Raises NoFigures."""
    began = time.monotonic()
    learners = {kind: _learner(plan, kind, say) for kind in plan.kinds}
    return {
        "bench": "learners",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": dataclasses.asdict(plan),
        "definitions": DEFINITIONS,
        "machine": machine(LIBRARIES),
        "learners": learners,
        "seconds": round(time.monotonic() - began, 1),
    }


def _learner(plan: Plan, kind: LearnerKind, say: Callable[[str], None]) -> dict[str, Any]:
    say(f"{kind}: comparing outer gradients")
    entries = disagreements(plan, kind)
    able = [name for name, entry in entries.items() if "refused" not in entry]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in able}
    for _ in range(plan.repetitions):
        for name in able:
            runs[name].append(_in_a_process(plan, kind, name))
            say(f"{kind}, {name}: {runs[name][-1]['steps_per_cpu_s']:.1f} steps per CPU second")
    for name in able:
        entries[name] |= _figures(runs[name], runs["ours"])
    return entries


def disagreements(plan: Plan, kind: LearnerKind) -> dict[str, dict[str, Any]]:
    """How far everyone's outer gradient is from ours, or why there is none."""
    given = problem(kind, plan.sizes, torch.float64)
    everyone = contenders(kind, plan.sizes, torch.float64)
    ours = everyone["ours"](given)
    found: dict[str, dict[str, Any]] = {}
    for name in plan.names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other libraries' deprecations
                theirs = everyone[name](given)
        except CannotTakePart as reason:
            found[name] = {"refused": str(reason)}
            continue
        apart = max(
            float((a - b).abs().max() / a.abs().max()) for a, b in zip(ours, theirs, strict=True)
        )
        found[name] = {"disagreement": apart}
        if not apart <= AGREE:
            found[name]["refused"] = f"its outer gradient is {apart:.1e} from ours"
    return found


def _in_a_process(plan: Plan, kind: LearnerKind, name: str) -> dict[str, float]:
    arguments = {"kind": kind, "contender": name, "seconds": plan.seconds}
    arguments |= {"sizes": dataclasses.asdict(plan.sizes)}
    command = [sys.executable, "-m", "benchmarks.numerics.learner_run", json.dumps(arguments)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoFigures(f"{kind}, {name}: no result in {RUN_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        raise NoFigures(f"{kind}, {name}: {done.stderr.strip().splitlines()[-1:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _figures(runs: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        name: spread([run[name] for run in runs])
        for name in ("steps_per_s", "steps_per_cpu_s", "peak_mib")
    }
    speed = "steps_per_cpu_s"
    ratios = [mine[speed] / theirs[speed] for mine, theirs in zip(ours, runs, strict=True)]
    figures["ratio"] = spread(ratios)
    mine_mib = statistics.median(run["peak_mib"] for run in ours)
    if mine_mib > 0:
        figures["memory_ratio"] = float(f"{figures['peak_mib']['median'] / mine_mib:.4g}")
    return figures


def as_table(report: dict[str, Any]) -> Table:
    """For a terminal."""
    machine, sizes = report["machine"], report["parameters"]["sizes"]
    table = Table(
        title="meta-training steps per CPU second, and MiB on top (ours is how many times faster)",
        caption=f"{sizes}; {machine['cpu']}, torch {machine['torch']}, torchopt "
        f"{machine['torchopt']}, higher {machine['higher']}",
    )
    for heading in ("learner", "with", "steps/s", "MiB", "ours faster", "ours smaller"):
        table.add_column(heading)
    for kind, entries in report["learners"].items():
        for name, entry in entries.items():
            table.add_row(kind, name, *_cells(entry))
    return table


def _cells(entry: dict[str, Any]) -> list[str]:
    if "refused" in entry:
        return ["-", "-", "-", entry["refused"]]
    speed, memory = entry["steps_per_cpu_s"]["median"], entry["peak_mib"]["median"]
    smaller = f"{entry['memory_ratio']:.2f}x" if "memory_ratio" in entry else "-"
    return [f"{speed:.1f}", f"{memory:.1f}", f"{entry['ratio']['median']:.2f}x", smaller]


def command(quick: bool, out: Path | None) -> int:
    """Print the figures as JSON on stdout and as a table on stderr; the exit code."""
    console = Console(stderr=True)
    try:
        report = bench(QUICK if quick else Plan(), lambda line: console.print(line, markup=False))
    except NoFigures as error:
        console.print(f"benchmarks: no figures: {error}", markup=False)
        return 1
    console.print(as_table(report))
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if out is not None:
        out.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0
