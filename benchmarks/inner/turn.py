"""One shape of mapping and window: what a turn costs in each form of the inner loop.

B = streams in batch, D = source dim, E = target dim

A turn is what the daemon does to streams that got one new pair each: `append` of the pairs and
`adapt` of the windows. Both forms are an engine's own windows (`Engine.windows`), and run on one
thread, taking turns: a noisy moment then is not one form's alone. What counts is the least CPU
time, as noise only ever adds.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from benchmarks.timing import take_turns
from model.inner.cost_rule import QUERY, Shape
from model.meta.fresh import fresh_theta_of_kind
from model.serving.engine import STREAMS_PER_CHUNK, Engine
from model.serving.hidden_windows import HiddenWindows
from model.serving.windows import EpisodeWindows
from model.values.arrays import FloatArray
from model.values.episode import Adaptation, Cut

Form = Literal["hidden", "full"]

LARGE_WEIGHTS = 1 << 17
"""Numbers. Beyond, in full, calls hardly show and one chunk of streams tells as much as many."""
ONE_CHUNK = STREAMS_PER_CHUNK["cpu"]
HOPELESS = 3.0  # A form that costs so many times the other's is not run again


class Measured(NamedTuple):
    """CPU seconds per stream and turn, the least; `hidden_read`: all factors are read."""

    hidden_s: float
    hidden_read_s: float
    full_s: float


@dataclass(frozen=True, slots=True)
class Turn:
    """One new pair for every stream, and what it is adapted to."""

    windows: EpisodeWindows | HiddenWindows
    cuts: list[Cut]
    pairs: tuple[list[FloatArray], list[FloatArray]]

    @classmethod
    def of(
        cls,
        shape: Shape,
        form: Form,
        streams: int,
        query: int = QUERY,
        *,
        trained: bool = False,
        ridge: bool = False,
    ) -> "Turn":
        """Makes one of full windows; what it makes is not read. A `trained` θ is random too, but
        taken for meta-trained: θ′ is the incumbent. With `ridge`, ridge regression challenges."""
        dims = (shape.source_dim, shape.hidden_dim, shape.target_dim)
        theta = fresh_theta_of_kind(dims, activation="gelu", steps=shape.steps, seed=0)
        if trained:
            theta = replace(theta, facts={})
        engine = Engine(
            theta, "cpu", support_capacity=shape.support, query_capacity=query, ridge=ridge
        )
        windows = engine.windows(streams, form=form)
        for seed in range(1, 1 + shape.support + query):
            windows.append(range(streams), *_pairs(shape, streams, seed))
        cuts = [Cut(slot, shape.support, query, wanted=False) for slot in range(streams)]
        return cls(windows, cuts, _pairs(shape, streams, seed=0))

    def read(self) -> "Turn":
        """Returns the same turn, in which all factors are read; the windows know it before."""
        cuts = [cut._replace(wanted=True) for cut in self.cuts]
        return Turn(self.windows, cuts, self.pairs)

    def adaptations(self) -> list[Adaptation]:
        """Returns what comes of the windows as they are."""
        return list(self.windows.adapt(self.cuts))

    def __call__(self) -> float:
        """Does the turn once more; returns CPU seconds per stream."""
        began = time.process_time()
        self.windows.append([cut.slot for cut in self.cuts], *self.pairs)
        for cut, adaptation in zip(self.cuts, self.windows.adapt(self.cuts), strict=True):
            if cut.wanted and adaptation.factored is not None:
                adaptation.factored()
        return (time.process_time() - began) / len(self.cuts)


def turns_of(shape: Shape, streams: int, query: int = QUERY) -> dict[str, Turn]:
    """Returns the shape's turn in every form, named as in `Measured`."""
    weights = shape.hidden_dim * (shape.source_dim + shape.target_dim)
    few = min(streams, ONE_CHUNK) if weights > LARGE_WEIGHTS else streams
    hidden = Turn.of(shape, "hidden", streams, query)
    full = Turn.of(shape, "full", few, query)
    return {"hidden_s": hidden, "hidden_read_s": hidden.read(), "full_s": full}


def least(
    turns: Mapping[str, Callable[[], float]], repetitions: int, seconds: float
) -> dict[str, float]:
    """Returns the least that each gave, in so many repetitions (two at least) or in the first that
    take so many CPU seconds. A first round makes ready what lasts and counts only for those that
    are hopeless by it."""
    first = {name: turn() for name, turn in turns.items()}
    bound, began = HOPELESS * min(first.values()), time.process_time()
    taken = take_turns(
        {name: turn for name, turn in turns.items() if first[name] <= bound},
        max(repetitions, 2),
        lambda done: done > 1 and time.process_time() - began > seconds,
    )
    return first | {name: min(found) for name, found in taken.items()}


def _pairs(shape: Shape, streams: int, seed: int) -> tuple[list[FloatArray], list[FloatArray]]:
    """Targets that no mapping explains, so that no loss falls to where products are too coarse."""
    rng = np.random.default_rng(seed)
    x_BD, y_BE = (
        rng.standard_normal((streams, dim), np.float32)
        for dim in (shape.source_dim, shape.target_dim)
    )
    return list(x_BD), list(y_BE)
