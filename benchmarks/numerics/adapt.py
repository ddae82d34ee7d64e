"""`python -m benchmarks adapt`: streams adapted per second by our inner loops, and by other
people's.

Everyone gets the same θ, rates and pairs. Before anything is timed, everyone's result is compared
with the right one, which is autograd's, one stream after another, in float64; who computes
something else has no figures. Then everyone runs in a process of their own on one core, taking
turns, so that a noisy minute is not one contender's alone.
"""

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from benchmarks.numerics.adapt_definitions import DEFINITIONS
from benchmarks.numerics.adapt_seat import Gone, Seat
from benchmarks.numerics.adapt_table import as_tables
from benchmarks.numerics.learner_problem import Sizes
from model.evaluate.machine import machine, spread

LIBRARIES = ("torch", "higher", "torchopt", "jax", "jaxlib")
DOCUMENTED = ("loop", "higher", "torchopt", "torch.func", "jax")
PEERS = (*DOCUMENTED, "jax chunked")
OURS = (
    "materialised",
    "hidden",
    "hidden, steps",
    "hidden cached",
    "hidden cached, steps",
    "hidden, weights",
    "hidden cached, weights",
)
ADAPT_ONLY = OURS[2:]
"""An outer gradient runs through the projections and needs no weights: there is one form."""


@dataclass(frozen=True, slots=True)
class Case:
    """One table."""

    what: Literal["adapt", "gradient"]
    streams: int
    dim: int
    """D and E."""


GRID = tuple(Case("adapt", b, d) for d in (128, 512, 2048) for b in (1, 32, 256, 1024))


@dataclass(frozen=True, slots=True)
class Plan:
    """One benchmark."""

    cases: tuple[Case, ...] = (*GRID, Case("gradient", 32, 512))
    names: tuple[str, ...] = (*PEERS, *OURS)
    device: str = "cpu"
    support: int = 16
    query: int = 16
    hidden_dim: int = 128
    inner_steps: int = 5
    turns: int = 3
    seconds: float = 0.15
    """Of running, in each turn; one run at least."""
    slow_s: float = 1.0
    """A contender whose run takes longer has its first one for its only turn."""

    @property
    def compared_by(self) -> str:
        """Where a device does the work, CPU time says nothing."""
        return "streams_per_cpu_s" if self.device == "cpu" else "streams_per_s"

    def sizes(self, case: Case) -> Sizes:
        """As processes take them."""
        return Sizes(
            streams=case.streams,
            support=self.support,
            query=self.query,
            source_dim=case.dim,
            hidden_dim=self.hidden_dim,
            target_dim=case.dim,
            inner_steps=self.inner_steps,
        )


QUICK = Plan(
    cases=(Case("adapt", 3, 6), Case("gradient", 4, 6)),
    names=("loop", "materialised", "hidden"),
    support=4,
    query=3,
    hidden_dim=8,
    inner_steps=2,
    turns=1,
    seconds=0.02,
)
"""Shows that everything works; its figures mean little."""

Entries = dict[str, dict[str, Any]]
Turns = dict[str, list[dict[str, float]]]


def bench(plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything, as one JSON-like object."""
    began = time.monotonic()
    with ExitStack() as stack:
        seats = {name: stack.enter_context(Seat(name, plan.device)) for name in plan.names}
        cases = [_measured(plan, case, seats, say) for case in plan.cases]
    return {
        "bench": "adapt",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": dataclasses.asdict(plan),
        "compared_by": plan.compared_by,
        "definitions": DEFINITIONS,
        "machine": machine(LIBRARIES) | _device(plan.device),
        "cases": cases,
        "seconds": round(time.monotonic() - began, 1),
    }


def _measured(
    plan: Plan, case: Case, seats: dict[str, Seat], say: Callable[[str], None]
) -> dict[str, Any]:
    """One case: everyone's figures, and ours over theirs."""
    began = time.monotonic()
    say(f"{case.what}, {case.streams} streams, d = {case.dim}")
    request = {
        "prepare": case.what,
        "sizes": dataclasses.asdict(plan.sizes(case)),
        "seconds": plan.seconds,
    }
    entries = {
        name: _asked(seat, request)
        for name, seat in seats.items()
        if case.what == "adapt" or name not in ADAPT_ONLY
    }
    turns: Turns = {
        name: [first] if first["run_s"] > plan.slow_s else []
        for name, entry in entries.items()
        if (first := entry.pop("first", None))
    }
    in_turn = [name for name, taken in turns.items() if not taken]
    for _ in range(plan.turns):
        for name in in_turn:
            answer = _asked(seats[name], {"measure": plan.seconds})
            if "refused" in answer:
                entries[name] |= answer
            else:
                turns[name].append(answer)
    able = {name: t for name, t in turns.items() if t and "refused" not in entries[name]}
    for name, taken in able.items():
        for figure in ("streams_per_cpu_s", "streams_per_s"):
            entries[name][figure] = spread([turn[figure] for turn in taken])
    took = {"seconds": round(time.monotonic() - began, 1)}
    return dataclasses.asdict(case) | took | _compared(plan.compared_by, entries, able)


def _asked(seat: Seat, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return seat.ask(request)
    except Gone as reason:
        return {"refused": str(reason), "failed": True}


def _compared(figure: str, entries: Entries, turns: Turns) -> dict[str, Any]:
    """Ratios of those who have figures."""
    fastest, documented = (_fastest(figure, turns, among) for among in (PEERS, DOCUMENTED))
    for name in OURS:
        if name not in turns:
            continue
        over = {peer: _ratio(figure, turns[name], turns[peer]) for peer in PEERS if peer in turns}
        entries[name]["over"] = over
        for key, peer in (("over_fastest", fastest), ("over_documented", documented)):
            if peer is not None:
                entries[name][key] = over[peer]
    return {"fastest_peer": fastest, "fastest_documented": documented, "entries": entries}


def _fastest(figure: str, turns: Turns, among: tuple[str, ...]) -> str | None:
    medians = {
        name: statistics.median(turn[figure] for turn in turns[name])
        for name in among
        if name in turns
    }
    return max(medians, key=lambda name: medians[name], default=None)


def _ratio(
    figure: str, ours: list[dict[str, float]], theirs: list[dict[str, float]]
) -> dict[str, float]:
    """Of turns that both had."""
    return spread([a[figure] / b[figure] for a, b in zip(ours, theirs, strict=False)])


def _device(device: str) -> dict[str, Any]:
    if device == "cpu":
        return {}
    import torch

    return {"device": torch.cuda.get_device_name()}


def wrong(report: dict[str, Any]) -> list[str]:
    """Our own contenders that failed, or whose results were not right."""
    return [
        f"{case['what']}, {case['streams']} streams, d = {case['dim']}, {name}: {entry['refused']}"
        for case in report["cases"]
        for name, entry in case["entries"].items()
        if name in OURS and ("failed" in entry or entry.keys() >= {"refused", "disagreement"})
    ]


def command(quick: bool, out: Path | None, device: str = "cpu") -> int:
    """Print the figures as JSON on stdout and as tables on stderr; the exit code: 1 if a contender
    of ours fails or is wrong, or there is no such device."""
    console = Console(stderr=True)
    if device != "cpu" and not _has_cuda():
        console.print(f"benchmarks: no figures: no {device} device here", markup=False)
        return 1
    plan = dataclasses.replace(QUICK if quick else Plan(), device=device)
    report = bench(plan, lambda line: console.print(line, markup=False))
    for table in as_tables(report):
        console.print(table)
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if out is not None:
        out.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    for line in wrong(report):
        console.print(f"benchmarks: {line}", markup=False)
    return 1 if wrong(report) else 0


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
