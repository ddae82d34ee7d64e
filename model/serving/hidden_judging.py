"""A chunk of streams in hidden space: adapted in units of its pairs, and judged, by Grams alone.

B = streams in batch (a chunk), S = support pairs (padded), Q = query pairs (padded), N = pairs of a
stream (S + Q), D = source dim
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.hidden.descent import Descent
from model.inner.hidden.halves import Grams, halves_seen
from model.inner.hidden.judging import (
    Seen,
    adapted_seen,
    procrustes_seen,
    ridge_seen,
    theta_seen,
    too_far_out,
)
from model.inner.hidden.losses import RawTargets, losses_out_of_units, unreliable
from model.inner.hidden.memory import JudgingSpace, Workspace
from model.inner.hidden.projected import (
    Means,
    Projected,
    Terms,
    UsualProducts,
    in_units,
    less_bias,
    means_of,
    units_of,
)
from model.inner.hidden.result import mean_onto, pair_outputs
from model.inner.units import Units, UsualSources
from model.losses import Loss
from model.serving.judging import (
    Judged,
    Measures,
    PairLosses,
    SupportMissed,
    asks_support,
    halves_cosines,
    judged,
    measures_of,
    standing,
)
from model.theta.meta_init import Activation
from model.values.episode import Candidate

LEAST_BESIDE_BIAS = 2.0**-8
"""Of W1·x + b1 with sources of this size, a float32 keeps 16 bits of W1·x."""


@dataclass(frozen=True, slots=True)
class InnerLoop:
    """θ and its learner as hidden space has them, and what adaptations are judged by."""

    terms: Terms
    descend: Callable[[Projected, Workspace], Descent]
    activation: Activation
    loss: Loss
    """What losses are told in: mse or cosine."""
    order: tuple[Candidate, ...]
    """The candidates from the first incumbent to the last challenger (`model.serving.judging`)."""
    hidden_dim: int
    """H without idle units."""
    standardise: bool
    """Whether all sources are standardised (`model.inner.units`)."""
    usual: UsualSources | None
    """The sources that θ was trained on, where it tells; None where all are standardised."""
    keeps_small_sources: bool
    """Whether b1 is 0, so that W1·x + b1 holds the smallest W1·x exactly."""


class Descended(NamedTuple):
    """θ′ of a chunk, and what it was adapted to. Lasts until the workspace's next use."""

    raw: Projected
    """Projections of x and y themselves."""
    means: Means
    units: Units
    projected: Projected
    """Projections of pairs in those units, targets less b2."""
    descent: Descent


def descend_in_units(
    inner: InnerLoop, raw: Projected, onto_usual_BN: Tensor | None, workspace: Workspace
) -> Descended:
    """Adapts every stream to its support, in units of its pairs; `onto_usual_BN` are μ·x, where
    there is a usual mean μ."""
    terms, usual = inner.terms, None
    if inner.usual is not None and onto_usual_BN is not None:
        mean_D = inner.usual.mean_D
        usual = UsualProducts(
            onto_usual_BN, terms.w1 @ mean_D, mean_D.square().sum(), inner.usual.spread
        )
    means = means_of(raw, usual)
    dims = (terms.w1.shape[1], len(terms.w2))
    units = units_of(raw, means, dims, standardise=inner.standardise)
    projected = in_units(terms, raw, means, units)
    return Descended(raw, means, units, projected, inner.descend(projected, workspace))


class JudgingPairs(NamedTuple):
    """The pairs that judge."""

    query_BQ: Tensor
    """Those whose source is not in the support."""
    single_BS: Tensor
    """Support pairs whose source no other has."""


class JudgedChunk(NamedTuple):
    """What was found of each stream."""

    streams: list[Judged]
    coarse: list[bool]
    """Whether hidden space is too coarse for it: adapt and judge it in the target space."""


def judge_chunk(
    inner: InnerLoop, found: Descended, before_BN: Tensor, pairs: JudgingPairs, space: JudgingSpace
) -> JudgedChunk:
    """Judges θ′ beside θ, whose losses are `before_BN`, and the linear maps."""
    terms, loss, (raw, means, units, projected, descent) = inner.terms, inner.loss, found
    mean = means.target
    size = raw.g_BSN.shape[1]
    real_BS, real_BQ = raw.real_BN[:, :size], raw.real_BN[:, size:]
    made = pair_outputs(terms, projected, descent, space)
    om_BN = made.onto(mean_onto(projected, mean, units.target, made.c.a.shape[2]))
    targets = RawTargets(units.target, mean, om_BN, raw.yy_BN)
    after_BN = losses_out_of_units(terms, projected, made.own, loss, targets)
    finite_B = descent.healthy_B & after_BN[:, :size].sum(1).isfinite()
    every_B = torch.ones_like(finite_B)
    seen = {
        Candidate.ADAPTED: adapted_seen(terms, raw, projected, made.own, targets),
        Candidate.THETA: theta_seen(terms, raw, mean, inner.activation),
    }
    ridge_BQ, support = torch.full_like(after_BN[:, size:], torch.nan), None
    if Candidate.RIDGE in inner.order:
        seen[Candidate.RIDGE], ridge_BQ, missed_BS = ridge_seen(raw, mean, len(terms.w2), loss)
        if asks_support(inner.order):
            support = SupportMissed(made.support_missed(projected), missed_BS, pairs.single_BS)
    if Candidate.PROCRUSTES in inner.order:
        seen[Candidate.PROCRUSTES] = procrustes_seen(raw, mean)
    measures = {
        name: _measures(own, finite_B if name is Candidate.ADAPTED else every_B, real_BQ)
        for name, own in seen.items()
    }
    losses = PairLosses(
        before_BN[:, :size], after_BN[:, :size], before_BN[:, size:], after_BN[:, size:], ridge_BQ
    )
    halves = None
    if Candidate.PROCRUSTES in inner.order:
        grams = Grams(raw.g_BSN[:, :, :size], raw.gamma_BSN[:, :, :size], real_BS)
        ridge, rotation = (_measures(s, every_B, real_BS) for s in halves_seen(grams, grams))
        halves = halves_cosines(ridge, rotation, pairs.single_BS)
    stand = standing(inner.order, measures, pairs.query_BQ, support, halves)
    streams = judged(losses, (real_BS, real_BQ), stand)
    own_BN = after_BN
    if loss.kind == "mse":
        own_BN = after_BN / units.target.scale_B.square().unsqueeze(1)
    coarse_B = unreliable(terms, less_bias(terms, raw), loss, before_BN)
    coarse_B = coarse_B | unreliable(terms, projected, loss, own_BN) | too_far_out(raw, means)
    if not inner.keeps_small_sources:
        coarse_B = coarse_B | (units.source.scale_B < LEAST_BESIDE_BIAS)
    return JudgedChunk(streams, coarse_B.tolist())


def _measures(seen: Seen, own_B: Tensor, real_BQ: Tensor) -> Measures:
    return measures_of(seen.squared_BQ, *seen, own_B, real_BQ)
