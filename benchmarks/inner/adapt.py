"""`python -m benchmarks adapt`: streams adapted per second by our inner loops, and by other
people's.

Everyone gets the same θ, rates and pairs. Before anything is timed, everyone's result is compared
with the right one, which is autograd's, one stream after another, in float64; who computes
something else has no figures. Then everyone runs in a process of their own on one core, taking
turns.
"""

import statistics
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.inner.contender import ADAPT_ONLY, CONTENDERS, DOCUMENTED, OURS, PEERS
from benchmarks.inner.peers import What
from benchmarks.inner.problem import Sizes
from benchmarks.output import Benchmark, NoFigures, Report, Say
from benchmarks.process import Gone, Process
from benchmarks.timing import ratios, take_turns
from model.evaluate.machine import spread

LIBRARIES = ("torch", "higher", "torchopt", "jax", "jaxlib")
ANSWER_TIMEOUT_S = 120.0
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}


@dataclass(frozen=True, slots=True)
class Case:
    """What one table of the page compares, and how large it is."""

    what: What
    streams: int
    dim: int  # D and E


GRID = tuple(Case("adapt", b, d) for d in (128, 512, 2048) for b in (1, 32, 256, 1024))


@dataclass(frozen=True, slots=True)
class AdaptPlan:
    """What is measured, and how much of it."""

    cases: tuple[Case, ...] = (*GRID, Case("gradient", 32, 512))
    names: tuple[str, ...] = tuple(CONTENDERS)
    device: str = "cpu"
    support: int = 16
    query: int = 16
    hidden_dim: int = 128
    inner_steps: int = 5
    turns: int = 3
    seconds: float = 0.15  # of running, in each turn; one run at least
    slow_s: float = 1.0  # A contender whose run takes longer has its first one for its only turn

    @property
    def compared_by(self) -> str:
        """Where a device does the work, CPU time says nothing."""
        return "streams_per_cpu_s" if self.device == "cpu" else "streams_per_s"


QUICK = AdaptPlan(
    cases=(Case("adapt", 3, 6), Case("gradient", 4, 6)),
    names=("loop", "materialised", "hidden"),
    support=4,
    query=3,
    hidden_dim=8,
    inner_steps=2,
    turns=1,
    seconds=0.02,
)

Turns = dict[str, list[dict[str, Any]]]


def adapt_figures(plan: AdaptPlan, say: Say) -> Report:
    """Measures everything. Raises NoFigures without the device."""
    device = _device(plan.device)
    with ExitStack() as stack:
        seats = {name: stack.enter_context(_seat(name, plan.device)) for name in plan.names}
        cases = [_measured(plan, case, seats, say) for case in plan.cases]
    return {"machine": device, "compared_by": plan.compared_by, "cases": cases}


def wrong_results(report: Report) -> list[str]:
    """Returns a line for each of our own contenders that failed, or whose result was not right."""
    return [
        f"{case['what']}, {case['streams']} streams, d = {case['dim']}, {name}: {entry['refused']}"
        for case in report["cases"]
        for name, entry in case["entries"].items()
        if name in OURS and ("failed" in entry or entry.keys() >= {"refused", "disagreement"})
    ]


def _device(device: str) -> dict[str, str]:
    if device == "cpu":
        return {}
    if not torch.cuda.is_available():
        raise NoFigures(f"no {device} device here")
    return {"device": torch.cuda.get_device_name()}


def _seat(name: str, device: str) -> Process:
    module = "benchmarks.inner.contender"
    return Process(module, name, device, timeout_s=ANSWER_TIMEOUT_S, environment=ONE_THREAD)


def _measured(plan: AdaptPlan, case: Case, seats: dict[str, Process], say: Say) -> Report:
    """Returns one case: everyone's figures, and ours over theirs."""
    say(f"{case.what}, {case.streams} streams, d = {case.dim}")
    sizes = Sizes(
        streams=case.streams,
        support=plan.support,
        query=plan.query,
        source_dim=case.dim,
        hidden_dim=plan.hidden_dim,
        target_dim=case.dim,
        inner_steps=plan.inner_steps,
    )
    request = {"prepare": case.what, "sizes": asdict(sizes), "seconds": plan.seconds}
    entries = {
        name: _asked(seat, request)
        for name, seat in seats.items()
        if case.what == "adapt" or name not in ADAPT_ONLY
    }
    first = {name: entry.pop("first") for name, entry in entries.items() if "first" in entry}
    slow = {name: [run] for name, run in first.items() if run["run_s"] > plan.slow_s}
    again = {"measure": plan.seconds}
    quick = {name: partial(_asked, seats[name], again) for name in first if name not in slow}
    able: Turns = {}
    for name, taken in (take_turns(quick, plan.turns) | slow).items():
        refusal = next((answer for answer in taken if "refused" in answer), None)
        if refusal or not taken:
            entries[name] |= refusal or {}
            continue
        able[name] = taken
        for figure in ("streams_per_cpu_s", "streams_per_s"):
            entries[name][figure] = spread([turn[figure] for turn in taken])
    return asdict(case) | _compared(plan.compared_by, entries, able)


def _asked(seat: Process, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return seat.ask(request)
    except Gone as reason:
        return {"refused": str(reason), "failed": True}


def _compared(figure: str, entries: dict[str, dict[str, Any]], turns: Turns) -> Report:
    """Adds ratios of those who have figures."""
    speeds = {name: [turn[figure] for turn in taken] for name, taken in turns.items()}
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    fastest, documented = (
        max((name for name in among if name in medians), key=medians.__getitem__, default=None)
        for among in (tuple(PEERS), DOCUMENTED)
    )
    for name in OURS:
        if name in speeds:
            over = {peer: ratios(speeds[name], speeds[peer]) for peer in PEERS if peer in speeds}
            entries[name]["over"] = over
            for key, peer in (("over_fastest", fastest), ("over_documented", documented)):
                if peer is not None:
                    entries[name][key] = over[peer]
    return {"fastest_peer": fastest, "fastest_documented": documented, "entries": entries}


BENCHMARK = Benchmark("adapt", AdaptPlan(), QUICK, LIBRARIES, adapt_figures, wrong_results)
