"""One contender of `python -m benchmarks adapt` in a process of its own, which does as it is told.

    python -m benchmarks.inner.contender "torch.func" cpu

    {"prepare": "adapt", "sizes": {...}, "seconds": 0.3}    a first run, compared with what is right
    {"measure": 0.3}                                        runs for so many seconds, at least one

The process keeps to one core and one thread, and so must every library in it; what a process does
before its first run (import, compile, project where that is cached) is in nobody's time. The answer
to "prepare" has the first run's figures.
"""

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from benchmarks.inner import ours, peers
from benchmarks.inner.peers import CannotTakePart, Timed, What
from benchmarks.inner.problem import (
    Given,
    Sizes,
    disagreement,
    given,
    right_gradient,
    right_weights,
)
from benchmarks.inner.with_jax import by_jax
from benchmarks.machine import available_bytes
from benchmarks.process import serve_requests
from benchmarks.timing import Stopwatch

Contender = Callable[[Given, What], Timed]

PEERS: dict[str, Contender] = {
    "loop": peers.loop,
    "higher": peers.by_higher,
    "torchopt": peers.by_torchopt,
    "torch.func": peers.by_torch_func,
    "jax": by_jax,
    "jax chunked": partial(by_jax, chunked=True),
}
OURS: dict[str, Contender] = {
    "materialised": ours.materialised,
    "hidden": ours.in_hidden_space,
    "hidden, steps": partial(ours.in_hidden_space, result="steps"),
    "hidden cached": partial(ours.in_hidden_space, cached=True),
    "hidden cached, steps": partial(ours.in_hidden_space, cached=True, result="steps"),
    "hidden, weights": partial(ours.in_hidden_space, result="weights"),
    "hidden cached, weights": partial(ours.in_hidden_space, cached=True, result="weights"),
}
CONTENDERS = PEERS | OURS
DOCUMENTED = tuple(PEERS)[:-1]
ADAPT_ONLY = tuple(OURS)[2:]
"""An outer gradient runs through the projections and needs no weights: there is one form."""
PER_STREAM = ("loop", "higher")
"""One stream after another: their time is that of some streams, times B."""
TIMES_WEIGHTS = {"torchopt": 4.0, "torch.func": 4.0, "jax": 2.5, "materialised": 2.7}
"""Peak memory of one run over that of θ′ of all streams, measured; 1 for others."""
MAX_BYTES = 8e9
AGREE = 1e-5  # how far a float32 result may be from the float64 one, beside its largest number
TINY = Sizes(streams=4, support=2, query=2, source_dim=3, hidden_dim=4, target_dim=3, inner_steps=2)
COMPARED = 8  # streams whose θ′ is compared, from the first to the last


class Prepared(NamedTuple):
    """A contender with its problem."""

    run: Callable[[], Any]
    streams: int  # of one run
    facts: dict[str, Any]


def prepare(name: str, what: What, sizes: Sizes, device: str, seconds: float) -> Prepared:
    """Does everything that comes before the clock starts. Raises CannotTakePart, also for a wrong
    result."""
    contender = CONTENDERS[name]
    if what == "adapt":
        check_memory(name, sizes, device)
        sizes = replace(sizes, query=0)
    problem = given(sizes).to(torch.device(device))
    if what == "adapt" and name in PER_STREAM:
        problem = problem.some(slice(0, _streams_in(contender, problem, seconds)))
    timed, streams, watch = contender(problem, what), problem.streams, Stopwatch()
    run = _synchronised(timed.run, device)
    chosen = torch.linspace(0, streams - 1, min(streams, COMPARED)).long().tolist()
    found = timed.found(watch.run(run, streams), chosen)
    some = problem.to(torch.device("cpu"))
    right = right_weights(some.some(chosen)) if what == "adapt" else right_gradient(some)
    apart = disagreement(found, tuple(right))
    if not apart <= AGREE:
        raise CannotTakePart(f"its result is {apart:.1e} from the right one", apart)
    facts = {"disagreement": apart, "streams_in_a_run": streams, "first": _figures(watch, 1)}
    return Prepared(run, streams, facts)


def timed_runs(ready: Prepared, seconds: float) -> dict[str, float]:
    """Returns streams a second, by the clock and by this process's CPU time."""
    watch, runs, began = Stopwatch(), 0, time.perf_counter()
    while not runs or time.perf_counter() - began < seconds:
        watch.run(ready.run, ready.streams)
        runs += 1
    return _figures(watch, runs)


def _figures(watch: Stopwatch, runs: int) -> dict[str, float]:
    rates = {"streams_per_s": watch.count / watch.wall_s}
    rates["streams_per_cpu_s"] = watch.count / watch.cpu_s
    return {"runs": runs, "run_s": watch.wall_s / runs, **rates}


def check_memory(name: str, sizes: Sizes, device: str) -> None:
    """Raises CannotTakePart rather than have the kernel end somebody's process."""
    weights = 4.0 * sizes.streams * sizes.hidden_dim * (sizes.source_dim + sizes.target_dim)
    need = weights * TIMES_WEIGHTS.get(name, 0.0 if name in PER_STREAM else 1.0)
    on_cpu = device == "cpu"
    limit = min(MAX_BYTES, available_bytes()) if on_cpu else torch.cuda.mem_get_info()[0]
    if need > limit:
        raise CannotTakePart(f"it would need {need / 1e9:.1f} GB, of {limit / 1e9:.1f}")


def _streams_in(contender: Contender, problem: Given, seconds: float) -> int:
    """Returns how many streams a per-stream contender does in so many seconds."""
    one, watch = contender(problem.some(slice(0, 1)), "adapt"), Stopwatch()
    one.run()
    watch.run(one.run)
    return max(1, min(problem.streams, int(seconds / watch.wall_s)))


def _synchronised(run: Callable[[], Any], device: str) -> Callable[[], Any]:
    """A run ends when the device has done it."""

    def run_to_its_end() -> Any:
        result = run()
        torch.cuda.synchronize()
        return result

    return run if device == "cpu" else run_to_its_end


def one_core() -> None:
    """Keeps this process and all threads of its libraries on one core."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def warm_up(name: str, device: str) -> None:
    """Has libraries load what they load in their first run."""
    whats: tuple[What, ...] = ("adapt",) if name in ADAPT_ONLY else ("adapt", "gradient")
    for what in whats:
        with contextlib.suppress(CannotTakePart):
            CONTENDERS[name](given(TINY).to(torch.device(device)), what).run()


class Answers:
    """Answers requests with one contender; has what the last "prepare" made ready."""

    def __init__(self, name: str, device: str) -> None:
        self._name, self._device = name, device
        self._ready: Prepared | None = None

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns figures, or why there are none. Raises ValueError when nothing is prepared."""
        if "prepare" not in request:
            if self._ready is None:
                raise ValueError("nothing is prepared")
            return timed_runs(self._ready, request["measure"])
        self._ready = None  # its memory, before the next one takes its own
        what, sizes, seconds = request["prepare"], Sizes(**request["sizes"]), request["seconds"]
        try:
            self._ready = prepare(self._name, what, sizes, self._device, seconds)
        except CannotTakePart as reason:
            apart = {"disagreement": reason.args[1]} if reason.args[1:] else {}
            return {"refused": str(reason.args[0])} | apart
        return self._ready.facts


def main(name: str, device: str) -> None:
    """Answers requests until stdin ends."""
    warnings.simplefilter("ignore")  # other libraries' deprecations are not ours to show
    one_core()
    warm_up(name, device)
    serve_requests(Answers(name, device))


if __name__ == "__main__":
    main(*sys.argv[1:])
