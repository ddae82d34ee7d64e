"""Transformations of recorded streams, which make data that no θ was tuned for. Pure.

N = pairs of a stream, D = source dim, E = target dim, X = source or target dim

Each takes sources (N, D), targets (N, E) and a random generator, which stands for the stream: what
is random (a direction, a matrix) is drawn once for each stream. Each returns new sources and
targets and leaves its arguments as they are. A deviation is that of a side's vectors from their
mean: √(mean |v − v̄|²).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.evaluate.episodes import GATE_PAIRS
from model.values.arrays import FloatArray

PairArrays = tuple[FloatArray, FloatArray]
"""Sources (N, D) and targets (N, E)."""
Transform = Callable[[FloatArray, FloatArray, np.random.Generator], PairArrays]
Scope = Literal["stream", "learned", "window"]
"""What is transformed: all pairs of the stream; all but the queries (θs learn from faulty pairs and
are judged on sound ones); or an episode's support and judged pairs alone, in this order."""

HEAVY_NOISE = 0.3
"""Scale of the heavy-tailed noise, as a share of the deviation of one target number."""
KEPT_SHARE = 0.25
"""Share of a sparse target's numbers that are not zero."""
SPREAD = 10.0
"""Anisotropic targets: dimensions are scaled from 1 / SPREAD to SPREAD."""


@dataclass(frozen=True, slots=True)
class Transformation:
    """A named transformation."""

    name: str
    apply: Transform
    scope: Scope = "stream"
    fewest_pairs: int = 0
    """Support sizes below this are left out: the transformation says nothing there."""


def unchanged(x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator) -> PairArrays:
    """Return the pairs as they are."""
    return x_ND, y_NE


def targets_scaled(
    x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator, *, factor: float
) -> PairArrays:
    """Multiply targets by a factor."""
    return x_ND, _single(y_NE * factor)


def unit_norm(x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator) -> PairArrays:
    """Divide each target by its norm, which is √E for emoji (x.177 in 32 dimensions)."""
    return x_ND, _single(y_NE / np.linalg.norm(y_NE, axis=1, keepdims=True))


def targets_shifted(
    x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator, *, deviations: float
) -> PairArrays:
    """Add to all targets one vector, of so many deviations and a random direction."""
    return x_ND, _shifted(y_NE, rng, deviations)


def sources_shifted(
    x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator, *, deviations: float
) -> PairArrays:
    """Add to all sources one vector, of so many deviations and a random direction."""
    return _shifted(x_ND, rng, deviations), y_NE


def mislabelled(
    x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator, *, share: float
) -> PairArrays:
    """Permute the targets of a random share of the pairs, so that each of them gets another's."""
    rows = rng.permutation(len(y_NE))[: round(share * len(y_NE))]
    wrong_NE = y_NE.copy()
    wrong_NE[rows] = y_NE[np.roll(rows, 1)]
    return x_ND, wrong_NE


def heavy_tailed(x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator) -> PairArrays:
    """Add noise to targets: Student's t of 2 degrees of freedom, whose variance is infinite."""
    scale = HEAVY_NOISE * _deviation(y_NE) / math.sqrt(y_NE.shape[1])
    return x_ND, _single(y_NE + scale * rng.standard_t(2.0, y_NE.shape))


def of_rank(
    x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator, *, rank: int
) -> PairArrays:
    """Project targets to a random subspace of `rank` dimensions."""
    basis_E = np.linalg.qr(rng.standard_normal((y_NE.shape[1], rank)))[0]
    return x_ND, _single(y_NE @ basis_E @ basis_E.T)


def sparse(x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator) -> PairArrays:
    """Keep of each target the quarter of its numbers that is furthest from 0; others become 0."""
    dropped = y_NE.shape[1] - round(KEPT_SHARE * y_NE.shape[1])
    sparse_NE = y_NE.copy()
    np.put_along_axis(sparse_NE, np.argsort(np.abs(y_NE), axis=1)[:, :dropped], 0.0, axis=1)
    return x_ND, sparse_NE


def anisotropic(x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator) -> PairArrays:
    """Multiply each target dimension by a factor of its own, from 0.1 to 10 in even ratios."""
    return x_ND, _single(y_NE * rng.permutation(np.geomspace(1 / SPREAD, SPREAD, y_NE.shape[1])))


def tanh_of_targets(x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator) -> PairArrays:
    """Return tanh of every target number."""
    return x_ND, np.tanh(y_NE)


def squares_of_targets(x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator) -> PairArrays:
    """Return the square of every target number: its sign is lost."""
    return x_ND, np.square(y_NE)


def judged_repeated(
    x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator, *, count: int
) -> PairArrays:
    """Put `count` of the judged pairs, which stand at the window's end, in place of its oldest
    pairs."""
    places = np.arange(len(x_ND))
    places[:count] = len(x_ND) - GATE_PAIRS + np.arange(count)
    return x_ND[places], y_NE[places]


def vocabulary(
    x_ND: FloatArray, y_NE: FloatArray, rng: np.random.Generator, *, size: int
) -> PairArrays:
    """Draw all pairs with replacement from `size` of them."""
    places = rng.choice(rng.permutation(len(x_ND))[:size], len(x_ND))
    return x_ND[places], y_NE[places]


def _shifted(v_NX: FloatArray, rng: np.random.Generator, deviations: float) -> FloatArray:
    direction_X = rng.standard_normal(v_NX.shape[1])
    length = deviations * _deviation(v_NX)
    return _single(v_NX + length * direction_X / np.linalg.norm(direction_X))


def _deviation(v_NX: FloatArray) -> float:
    return float(np.sqrt(np.square(v_NX - v_NX.mean(axis=0)).sum(axis=1).mean()))


def _single(array: NDArray[np.floating[Any]]) -> FloatArray:
    return np.asarray(array, np.float32)


TRANSFORMATIONS: tuple[Transformation, ...] = (
    Transformation("as it is", unchanged),
    Transformation("targets of unit norm", unit_norm),
    Transformation("targets x.01", partial(targets_scaled, factor=0.01)),
    Transformation("targets x100", partial(targets_scaled, factor=100.0)),
    Transformation("targets shifted by 1 sd", partial(targets_shifted, deviations=1.0)),
    Transformation("targets shifted by 3 sd", partial(targets_shifted, deviations=3.0)),
    Transformation("sources shifted by 1 sd", partial(sources_shifted, deviations=1.0)),
    Transformation("sources shifted by 3 sd", partial(sources_shifted, deviations=3.0)),
    Transformation("10 % mislabelled", partial(mislabelled, share=0.1), "learned"),
    Transformation("30 % mislabelled", partial(mislabelled, share=0.3), "learned"),
    Transformation("heavy-tailed noise", heavy_tailed, "learned"),
    Transformation("targets of rank 4", partial(of_rank, rank=4)),
    Transformation("sparse targets", sparse),
    Transformation("anisotropic targets", anisotropic),
    Transformation("tanh of targets", tanh_of_targets),
    Transformation("squares of targets", squares_of_targets),
    Transformation("2 of 4 judged repeated", partial(judged_repeated, count=2), "window"),
    Transformation("4 of 4 judged repeated", partial(judged_repeated, count=4), "window"),
    Transformation("12 concepts alone", partial(vocabulary, size=12), "window", 12),
    Transformation("24 concepts alone", partial(vocabulary, size=24), "window", 24),
)
"""The rows of the table "Data that nobody tuned", besides streams that change."""
