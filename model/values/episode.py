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
    """θ′ of one stream and the losses of θ (before) and θ′ (after), see `model.losses`.

    `tensors` holds w1 (H, D), b1 (H), w2 (E, H), b2 (E), float32. `finite` is true when every
    tensor and every loss that has pairs is finite. `query_loss_ridge` is that of ridge regression
    on the same support (`model.serving.rival`). `ridge` is that mapping, linear (w1, b1, w2, b2
    with no activation), where it should take θ′'s place: clearly better than a θ′ that is no worse
    than θ, or better than θ where θ′ is not. `factored` makes θ′ as θ and thin factors, where the
    inner loop can tell it so. Tensors and factors may be made only when they are looked at, and
    only until the windows they come from go on (`model.serving.hidden_windows`): most mappings are
    never published.
    """

    tensors: Mapping[str, FloatArray]
    support_loss_before: float
    support_loss_after: float
    query_loss_before: float
    query_loss_after: float
    finite: bool
    query_loss_ridge: float = math.nan
    ridge: Mapping[str, FloatArray] | None = None
    factored: Callable[[], LowRank] | None = None
