"""What the engine takes and returns: an Episode in, an Adaptation out. No torch here.

S = support pairs, Q = query pairs, D = source dim, E = target dim, H = hidden units
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

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


@dataclass(frozen=True, slots=True)
class Adaptation:
    """One stream's adapted mapping θ′, with the losses of θ (before) and θ′ (after).

    Most adapted mappings are never published, so `tensors` and `factored` may compute only when
    they are read. Then they can be read until the windows' memory that they come from changes
    (`model.serving.hidden_windows`).
    """

    tensors: Mapping[str, FloatArray]
    """θ′: w1 (H, D), b1 (H), w2 (E, H), b2 (E), float32."""
    support_loss_before: float
    support_loss_after: float
    query_loss_before: float
    query_loss_after: float
    finite: bool
    """Whether every tensor, and every loss that has pairs, is finite."""
    query_loss_ridge: float = math.nan
    """The query loss of ridge regression on the same support (`model.serving.rival`)."""
    ridge: Mapping[str, FloatArray] | None = None
    """That regression as a mapping without activation, where it should be published in place of θ′:
    where it is clearly better than a θ′ that is no worse than θ, or better than θ where θ′ is not.
    """
    factored: Callable[[], LowRank] | None = None
    """Returns θ′ as θ and thin factors; None where the inner loop cannot express it so."""
