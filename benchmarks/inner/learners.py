"""`python -m benchmarks learners`: meta-training steps per second and peak memory of every learner,
beside the same in torch.func, torchopt and higher.

Everyone gets the same θ, rates and episodes. Before anything is timed, everyone's outer gradient
is compared with ours in float64; who computes something else has no ratio. Then everyone steps in
processes of their own, taking turns.

    python -m benchmarks.inner.learners    one contender's process, which answers one request

A step is the outer gradient and torch's Adam on it, float32, one thread. Memory is the peak of
resident memory while stepping, less what the process held just before (libraries loaded, inputs
made, one tiny step done), so that what other contenders' imports take is not in it.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.inner.learner_contenders import contenders, problem
from benchmarks.inner.peers import CannotTakePart
from benchmarks.inner.problem import Sizes, disagreement
from benchmarks.machine import fresh_peak_kib, peak_kib
from benchmarks.output import Benchmark, NoFigures, Report, Say
from benchmarks.process import Gone, Process, serve_requests
from benchmarks.timing import Stopwatch, ratios, rounded, take_turns
from model.evaluate.machine import spread
from model.meta.recipe import LearnerKind

KINDS: tuple[LearnerKind, ...] = ("maml", "fomaml", "reptile", "meta-sgd", "anil", "adam", "r2d2")
LIBRARIES = ("torch", "torchopt", "higher", "numpy")
AGREE = 1e-5  # how far an outer gradient may be from ours, beside its largest number
RUN_TIMEOUT_S = 300.0
FULL = Sizes()
TINY = Sizes(streams=2, support=3, query=2, source_dim=3, hidden_dim=4, target_dim=2, inner_steps=1)


@dataclass(frozen=True, slots=True)
class LearnersPlan:
    """What is measured, and how much of it."""

    kinds: tuple[LearnerKind, ...] = KINDS
    names: tuple[str, ...] = ("ours", "torch.func", "torchopt", "higher")
    sizes: Sizes = FULL
    repetitions: int = 3
    seconds: float = 2.0  # of stepping, in each process


QUICK = LearnersPlan(
    kinds=("maml",),
    names=("ours", "torch.func"),
    sizes=Sizes(2, 4, 3, source_dim=4, hidden_dim=8, target_dim=3, inner_steps=2),
    repetitions=1,
    seconds=0.05,
)


def learner_figures(plan: LearnersPlan, say: Say) -> Report:
    """Measures everything. Raises NoFigures when a process that was to measure fails."""
    return {"learners": {kind: _learner(plan, kind, say) for kind in plan.kinds}}


def _learner(plan: LearnersPlan, kind: LearnerKind, say: Say) -> dict[str, Any]:
    say(f"{kind}: comparing outer gradients, then stepping in turns")
    entries = disagreements(plan, kind)
    able = [name for name, entry in entries.items() if "refused" not in entry]
    turns = {name: partial(_in_a_process, plan, kind, name) for name in able}
    runs = take_turns(turns, plan.repetitions)
    for name in able if plan.repetitions else ():
        of, ours = (_by_figure(runs[whose]) for whose in (name, "ours"))
        entries[name] |= {figure: spread(values) for figure, values in of.items()}
        entries[name]["ratio"] = ratios(ours["steps_per_cpu_s"], of["steps_per_cpu_s"])
        if (mine_mib := statistics.median(ours["peak_mib"])) > 0:
            entries[name]["memory_ratio"] = rounded(statistics.median(of["peak_mib"]) / mine_mib)
    return entries


def _by_figure(runs: list[dict[str, float]]) -> dict[str, list[float]]:
    return {figure: [run[figure] for run in runs] for figure in runs[0]}


def disagreements(plan: LearnersPlan, kind: LearnerKind) -> dict[str, dict[str, Any]]:
    """Returns how far everyone's outer gradient is from ours, or why there is none."""
    given = problem(kind, plan.sizes, torch.float64)
    everyone = contenders(kind, plan.sizes, torch.float64)
    ours, found = everyone["ours"](given), dict[str, dict[str, Any]]()
    for name in plan.names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other libraries' deprecations
                apart = disagreement(everyone[name](given), ours)
        except CannotTakePart as reason:
            found[name] = {"refused": str(reason)}
            continue
        found[name] = {"disagreement": apart}
        if not apart <= AGREE:
            found[name]["refused"] = f"its outer gradient is {apart:.1e} from ours"
    return found


def _in_a_process(plan: LearnersPlan, kind: LearnerKind, name: str) -> dict[str, float]:
    request = {"kind": kind, "name": name, "sizes": asdict(plan.sizes), "seconds": plan.seconds}
    try:
        with Process("benchmarks.inner.learners", timeout_s=RUN_TIMEOUT_S) as process:
            return process.ask(request)
    except Gone as error:
        raise NoFigures(f"{kind}, {name}: {error}") from error


def step_figures(kind: LearnerKind, name: str, sizes: dict[str, int], seconds: float) -> Report:
    """Returns steps a second, by the clock and by this process's CPU time, and MiB on top."""
    warnings.simplefilter("ignore")  # other libraries' deprecations are not ours to show
    torch.set_num_threads(1)
    stepper(kind, name, TINY)()
    step, watch = stepper(kind, name, Sizes(**sizes)), Stopwatch()
    before = fresh_peak_kib()
    step()
    began = time.perf_counter()
    while watch.count < 3 or time.perf_counter() - began < seconds:
        watch.run(step)
    return {
        "steps_per_s": watch.count / watch.wall_s,
        "steps_per_cpu_s": watch.count / watch.cpu_s,
        "peak_mib": (peak_kib() - before) / 1024,
    }


def stepper(kind: LearnerKind, name: str, sizes: Sizes) -> Callable[[], None]:
    """Returns one meta-training step of the contender."""
    given = problem(kind, sizes, torch.float32)
    gradients = contenders(kind, sizes, torch.float32)[name]
    optimiser = torch.optim.Adam(given.learned, lr=1e-6)

    def step() -> None:
        for tensor, gradient in zip(given.learned, gradients(given), strict=True):
            tensor.grad = gradient
        optimiser.step()

    return step


BENCHMARK = Benchmark("learners", LearnersPlan(), QUICK, LIBRARIES, learner_figures)


if __name__ == "__main__":
    serve_requests(lambda request: step_figures(**request))
