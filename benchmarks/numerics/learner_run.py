"""One contender's outer steps in a process of its own: how fast, and how much memory.

    python -m benchmarks.numerics.learner_run '{"kind": "maml", "contender": "ours", ...}'

A step is the outer gradient and torch's Adam on it, float32, one thread. Memory is the peak of
resident memory while stepping, less what the process held just before (libraries loaded, inputs
made, one tiny step done), so that what other contenders' imports take is not in it.
"""

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.numerics.learner_contenders import contenders
from benchmarks.numerics.learner_problem import Sizes, problem
from model.meta.recipe import LearnerKind

TINY = Sizes(streams=2, support=3, query=2, source_dim=3, hidden_dim=4, target_dim=2, inner_steps=1)


def measure(kind: LearnerKind, contender: str, sizes: Sizes, seconds: float) -> dict[str, float]:
    """Steps a second, by the clock and by this process's CPU time, and MiB on top."""
    torch.set_num_threads(1)
    stepper(kind, contender, TINY)()
    step = stepper(kind, contender, sizes)
    before = fresh_peak_kib()
    step()
    steps, began, cpu_began = 0, time.perf_counter(), time.process_time()
    while steps < 3 or time.perf_counter() - began < seconds:
        step()
        steps += 1
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    return {
        "steps": steps,
        "steps_per_s": steps / wall_s,
        "steps_per_cpu_s": steps / cpu_s,
        "peak_mib": (peak_kib() - before) / 1024,
    }


def stepper(kind: LearnerKind, contender: str, sizes: Sizes) -> Callable[[], None]:
    """One meta-training step of the contender."""
    given = problem(kind, sizes, torch.float32)
    gradients = contenders(kind, sizes, torch.float32)[contender]
    optimiser = torch.optim.Adam(given.learned, lr=1e-6)

    def step() -> None:
        for tensor, gradient in zip(given.learned, gradients(given), strict=True):
            tensor.grad = gradient
        optimiser.step()

    return step


def peak_kib() -> int:
    """The most this process has held. Linux's ru_maxrss would begin with what its parent held."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fresh_peak_kib() -> int:
    """The same, once it is set back to what is held now, where the kernel does that (Linux)."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")
    return peak_kib()


def main(arguments: dict[str, Any]) -> None:
    """Print the figures as JSON."""
    warnings.simplefilter("ignore")  # other libraries' deprecations are not ours to show
    sizes = Sizes(**arguments.pop("sizes"))
    sys.stdout.write(json.dumps(measure(sizes=sizes, **arguments)) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
