"""One contender of `python -m benchmarks adapt` in a process of its own, which does as it is told.

    python -m benchmarks.numerics.adapt_run '{"contender": "torch.func", "device": "cpu"}'

A line on stdin is a JSON request, a line on stdout its answer, until stdin ends:

    {"prepare": "adapt", "sizes": {...}, "seconds": 0.3}    a first run, compared with what is right
    {"measure": 0.3}                                        runs for so many seconds, at least one

The process keeps to one core and one thread, and so must every library in it; what a process does
before its first run (import, compile, project where that is cached) is in nobody's time. The answer
to "prepare" has the first run's figures.
"""

import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.numerics import adapt_jax, adapt_ours, adapt_peers
from benchmarks.numerics.adapt_peers import CannotTakePart, Timed
from benchmarks.numerics.adapt_problem import (
    Given,
    disagreement,
    given,
    right_gradient,
    right_weights,
)
from benchmarks.numerics.learner_problem import Sizes

Contenders = dict[str, Callable[[Given], Timed]]

ADAPT: Contenders = {
    "loop": adapt_peers.adapt_loop,
    "higher": adapt_peers.adapt_higher,
    "torchopt": adapt_peers.adapt_torchopt,
    "torch.func": adapt_peers.adapt_torch_func,
    "jax": adapt_jax.adapt_jax,
    "jax chunked": adapt_jax.adapt_jax_chunked,
    "materialised": adapt_ours.adapt_materialised,
    "hidden": partial(adapt_ours.adapt_hidden, cached=False, result="factors"),
    "hidden, steps": partial(adapt_ours.adapt_hidden, cached=False, result="steps"),
    "hidden cached": partial(adapt_ours.adapt_hidden, cached=True, result="factors"),
    "hidden cached, steps": partial(adapt_ours.adapt_hidden, cached=True, result="steps"),
    "hidden, weights": partial(adapt_ours.adapt_hidden, cached=False, result="weights"),
    "hidden cached, weights": partial(adapt_ours.adapt_hidden, cached=True, result="weights"),
}
GRADIENT: Contenders = {
    "loop": adapt_peers.gradient_loop,
    "higher": adapt_peers.gradient_higher,
    "torchopt": adapt_peers.gradient_torchopt,
    "torch.func": adapt_peers.gradient_torch_func,
    "jax": adapt_jax.gradient_jax,
    "jax chunked": adapt_jax.gradient_jax_chunked,
    "materialised": adapt_ours.gradient_materialised,
    "hidden": adapt_ours.gradient_hidden,
}
PER_STREAM = ("loop", "higher")
"""One stream after another: their time is that of some streams, times B."""
TIMES_WEIGHTS = {"torchopt": 4.0, "torch.func": 4.0, "jax": 2.5, "materialised": 2.7}
"""Peak memory of one run over that of θ′ of all streams, measured; 1 for others."""
MAX_BYTES = 8e9
AGREE = 1e-5
"""How far a float32 result may be from the float64 one, beside its largest number."""
TINY = Sizes(streams=4, support=2, query=2, source_dim=3, hidden_dim=4, target_dim=3, inner_steps=2)
COMPARED = 8
"""Streams whose θ′ is compared, from the first to the last."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A contender with its problem."""

    run: Callable[[], Any]
    streams: int
    """Of one run."""
    facts: dict[str, Any]


def prepare(contender: str, what: str, sizes: Sizes, device: str, seconds: float) -> Ready:
    """Everything before the clock starts. Raises CannotTakePart, also for a wrong result."""
    table = ADAPT if what == "adapt" else GRADIENT
    if what == "adapt":
        check_memory(contender, sizes, device)
        sizes = replace(sizes, query=0)
    problem = given(sizes).to(torch.device(device))
    if what == "adapt" and contender in PER_STREAM:
        problem = problem.some(slice(0, _streams_in(table[contender], problem, seconds)))
    timed, streams = table[contender](problem), len(problem.x_BSD)
    chosen = torch.linspace(0, streams - 1, min(streams, COMPARED)).long().tolist()
    ready = Ready(_synchronised(timed.run, device), streams, {})
    result, first = measured_once(ready)
    found = timed.found(result, chosen)
    del result
    some = problem.to(torch.device("cpu"))
    right = right_weights(some.some(chosen)) if what == "adapt" else right_gradient(some)
    apart = disagreement(found, tuple(right))
    if not apart <= AGREE:
        raise CannotTakePart(f"its result is {apart:.1e} from the right one", apart)
    facts = {"disagreement": apart, "streams_in_a_run": streams, "first": first}
    return replace(ready, facts=facts)


def measure(ready: Ready, seconds: float) -> dict[str, float]:
    """Streams a second, by the clock and by this process's CPU time."""
    runs, began, cpu_began = 0, time.perf_counter(), time.process_time()
    while not runs or time.perf_counter() - began < seconds:
        ready.run()
        runs += 1
    return _figures(runs, ready.streams, began, cpu_began)


def measured_once(ready: Ready) -> tuple[Any, dict[str, float]]:
    """A run's result, and its figures."""
    began, cpu_began = time.perf_counter(), time.process_time()
    result = ready.run()
    return result, _figures(1, ready.streams, began, cpu_began)


def _figures(runs: int, streams: int, began: float, cpu_began: float) -> dict[str, float]:
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    streams *= runs
    return {
        "runs": runs,
        "run_s": wall_s / runs,
        "streams_per_s": streams / wall_s,
        "streams_per_cpu_s": streams / cpu_s,
    }


def check_memory(contender: str, sizes: Sizes, device: str) -> None:
    """Raise CannotTakePart rather than have the kernel end somebody's process."""
    weights = 4.0 * sizes.streams * sizes.hidden_dim * (sizes.source_dim + sizes.target_dim)
    least = 0.0 if contender in PER_STREAM else 1.0
    need = weights * TIMES_WEIGHTS.get(contender, least)
    limit = min(MAX_BYTES, free_bytes(device)) if device == "cpu" else free_bytes(device)
    if need > limit:
        raise CannotTakePart(f"it would need {need / 1e9:.1f} GB, of {limit / 1e9:.1f}")


def free_bytes(device: str, meminfo: Path = Path("/proc/meminfo")) -> float:
    """Memory that nobody uses, where the kernel tells."""
    if device != "cpu":
        return float(torch.cuda.mem_get_info()[0])
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    free_kib = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return float(free_kib[0]) * 1024 if free_kib else MAX_BYTES


def _streams_in(contender: Callable[[Given], Timed], problem: Given, seconds: float) -> int:
    """How many streams a per-stream contender does in so many seconds."""
    one = contender(problem.some(slice(0, 1)))
    one.run()
    began = time.perf_counter()
    one.run()
    return max(1, min(len(problem.x_BSD), int(seconds / (time.perf_counter() - began))))


def _synchronised(run: Callable[[], Any], device: str) -> Callable[[], Any]:
    """A run ends when the device has done it."""
    if device == "cpu":
        return run

    def run_to_its_end() -> Any:
        result = run()
        torch.cuda.synchronize()
        return result

    return run_to_its_end


def one_core() -> None:
    """Keep this process and all threads of its libraries on one core."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def warm_up(contender: str, device: str) -> None:
    """Have libraries load what they load in their first run."""
    tiny = given(TINY).to(torch.device(device))
    for table in (ADAPT, GRADIENT):
        if contender in table:
            with contextlib.suppress(CannotTakePart):
                table[contender](tiny).run()


def answered(
    contender: str, device: str, ready: Ready | None, request: dict[str, Any]
) -> tuple[Ready | None, dict[str, Any]]:
    """What is ready after a request, and the answer to it."""
    if "prepare" not in request:
        if ready is None:
            raise ValueError("nothing is prepared")
        return ready, measure(ready, request["measure"])
    sizes, seconds = Sizes(**request["sizes"]), request["seconds"]
    try:
        ready = prepare(contender, request["prepare"], sizes, device, seconds)
    except CannotTakePart as reason:
        apart = {"disagreement": reason.args[1]} if reason.args[1:] else {}
        return None, {"refused": str(reason.args[0])} | apart
    return ready, ready.facts


def main(contender: str, device: str) -> None:
    """Answer requests."""
    warnings.simplefilter("ignore")  # other libraries' deprecations are not ours to show
    one_core()
    warm_up(contender, device)
    ready: Ready | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if "prepare" in request:
            ready = None  # its memory, before the next one takes its own
        ready, answer = answered(contender, device, ready, request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
