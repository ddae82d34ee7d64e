"""Contenders that take turns, and numbers out of their times."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from model.evaluate.machine import spread

T = TypeVar("T")


def take_turns(
    contenders: Mapping[str, Callable[[], T]],
    turns: int,
    enough: Callable[[int], bool] = lambda done: False,
) -> dict[str, list[T]]:
    """Calls every contender once a turn, one after another, so that a noisy minute is not one
    contender's alone. Ends early once `enough`, asked before each turn with the number of turns
    that are done, says so. Returns every contender's results in order."""
    taken: dict[str, list[T]] = {name: [] for name in contenders}
    for done in range(turns):
        if enough(done):
            break
        for name, call in contenders.items():
            taken[name].append(call())
    return taken


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Returns the spread of ours over theirs, each with its neighbour in time, because noise comes
    in stretches; as many as both have."""
    return spread([a / b if b else math.inf for a, b in zip(ours, theirs, strict=False)])


def rounded(value: float, digits: int = 4) -> float:
    """Returns the value to so many significant digits."""
    return float(f"{value:.{digits}g}")


class Stopwatch:
    """Wall and CPU time of the calls run under it, and how many things they did."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self.count = 0

    def run(self, call: Callable[[], T], count: int = 1) -> T:
        """Adds one call, which does `count` things; returns its result."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu
        self.count += count
        return result

    def figures(self, of: str) -> dict[str, float]:
        """Returns how many there were, how many a second, and the CPU time of one."""
        return {
            f"{of}s": self.count,
            f"{of}s_per_s": rounded(self.count / self.wall_s),
            f"cpu_us_per_{of}": rounded(1e6 * self.cpu_s / self.count),
        }


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Lets torch use so many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
