"""What the engine takes and returns: an Episode in, an Adaptation out. No torch here.

S = support pairs, Q = query pairs, D = source dim, E = target dim, H = hidden units
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.values.arrays import FloatArray
from model.values.low_rank import LowRank


class Cut(NamedTuple):
    """Which slot of the windows' memory to adapt, and how many of its newest pairs are which.

    The newest `query` pairs are the query, the `support` pairs before them the support.
    """

    slot: int
    support: int
    query: int
    wanted: bool = True
    """Whether the adapted mapping will probably be published. When False the engine puts off making
    its tensors and factors."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A stream's window cut in two: the older support to adapt on, the newest query to judge on.

    All arrays are float32. Q may be 0: the adaptation's query losses are then NaN.
    """

    x_support_SD: FloatArray
    y_support_SE: FloatArray
    x_query_QD: FloatArray
    y_query_QE: FloatArray


class Candidate(Enum):
    """One mapping that could be published for a stream."""

    ADAPTED = "adapted"
    """θ′."""
    THETA = "theta"
    """θ unadapted."""
    RIDGE = "ridge"
    """Ridge regression."""
    PROCRUSTES = "procrustes"
    """Orthogonal Procrustes about 0, with scale."""

    @property
    def is_linear(self) -> bool:
        """Whether it is a linear map fitted to the window in closed form."""
        return self in (Candidate.RIDGE, Candidate.PROCRUSTES)


class QueryEvidence(NamedTuple):
    """What the judge measured of the winner on each query pair; Q is the engine's capacity."""

    squared_Q: FloatArray
    """The squared error."""
    cosine_Q: FloatArray
    """The cosine distance, seen from the support's mean target."""
    judges_Q: NDArray[np.bool_]
    """Which of these are pairs that judge."""

    def of(self, pairs: int) -> "QueryEvidence":
        """Returns what was measured of the first pairs."""
        return QueryEvidence(self.squared_Q[:pairs], self.cosine_Q[:pairs], self.judges_Q[:pairs])


@dataclass(frozen=True, slots=True)
class Adaptation:
    """One stream's candidates, with their losses and which of them the judge prefers.

    Losses are those of θ (before), θ′ (after) and ridge regression, each adapted to the support
    alone. The mappings to publish have then learned from the query as well: it has done its part.

    Most adapted mappings are never published, so `tensors` and `factored` may compute only when
    they are read. Then they can be read until the windows' memory that they come from changes
    (`model.serving.hidden_windows`).
    """

    tensors: Mapping[str, FloatArray]
    """θ′, adapted to support and query: w1 (H, D), b1 (H), w2 (E, H), b2 (E), float32. Adapted to
    the support alone where the other is not finite."""
    support_loss_before: float
    support_loss_after: float
    query_loss_before: float
    query_loss_after: float
    finite: bool
    """Whether θ′ is: its tensors, and its losses on the pairs there are."""
    query_loss_ridge: float = math.nan
    """The query loss of ridge regression on the same support (`model.serving.rival`)."""
    ridge: Mapping[str, FloatArray] | None = None
    """The linear map that is the winner, ridge regression or Procrustes, on support and query, as a
    mapping without activation; None where neither is."""
    rival: Mapping[str, FloatArray] | None = None
    """Ridge regression whoever won, made when it is read; None where it is left out."""
    factored: Callable[[], LowRank | None] | None = None
    """Returns θ′ as θ and thin factors, or None where those would round too much of it away; it is
    None itself where the inner loop has no such form."""
    winner: Candidate = Candidate.ADAPTED
    """What the judge prefers (`model.serving.judging`); a θ′ that is not finite never is."""
    judged_pairs: int = 0
    """How many query pairs it judged by: those whose source is not in the support."""
    evidence: QueryEvidence | None = None
    """What it judged by; None where an engine does not say."""
    ahead_squared: float = math.nan
    """By how many standard errors of the paired differences the winner is ahead of the nearest
    other candidate in squared error. Negative where it is behind, though not clearly in both
    measures; NaN where there is no other candidate that is finite."""
    ahead_cosine: float = math.nan
    """The same in centred cosine distance."""
