"""The judge: which candidate of each stream is published, by pairs that none has learned from.

B = streams in batch, N = pairs of a stream (padded), S = support pairs, Q = query pairs,
E = target dim

The pairs are few and their losses scatter. So the candidates stand in an order, and one takes the
place of the one before only where it is clearly better: where the mean of the paired differences is
more than CLEARLY of its own standard errors, in two measures, both of them:

    squared error      |o − y|²                        right in length and in place
    centred cosine     1 − cos(o − m, y − m)           right in direction, seen from the mean m of
                                                       the support's targets

The first alone prefers whatever shrinks to the mean, of which no neighbour can be found; the second
alone does not see a wrong length or mean. A candidate that is not finite gives way to any that is.

A θ that was meta-trained begins with θ′, then come θ and ridge regression. A random θ adapts worse
than ridge regression on most data, which a few pairs are slow to tell: there ridge comes first.

A pair whose source lies in the support does not judge (`model.serving.repeats`): who memorises the
support would win. Fewer than two pairs say nothing about chance, and the first stays.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.values.episode import Candidate, QueryEvidence
from model.values.gate import CLEARLY

CANDIDATES = tuple(Candidate)


class Measures(NamedTuple):
    """One candidate's measures of each query pair, and whether it may be published at all."""

    squared_BQ: Tensor
    cosine_BQ: Tensor
    healthy_B: Tensor


class PairLosses(NamedTuple):
    """The loss of each pair by θ (before), by θ′ (after) and by ridge regression."""

    support_before_BS: Tensor
    support_after_BS: Tensor
    query_before_BQ: Tensor
    query_after_BQ: Tensor
    query_ridge_BQ: Tensor
    """NaN where ridge regression was not fitted."""


class Judged(NamedTuple):
    """One stream's losses, means over pairs, and what the judge found."""

    support_before: float
    support_after: float
    query_before: float
    query_after: float
    query_ridge: float
    winner: Candidate
    finite: bool
    """Whether θ′ is."""
    centred: bool
    """Whether θ′ was adapted to centred targets."""
    evidence: QueryEvidence


class Won(NamedTuple):
    """Each stream's winner, as its place in CANDIDATES, and its measures of each query pair."""

    place_B: Tensor
    squared_BQ: Tensor
    cosine_BQ: Tensor


def order_of(*, trained: bool, ridge: bool) -> tuple[Candidate, ...]:
    """Returns the candidates from the first incumbent to the last challenger."""
    if not ridge:
        return (Candidate.ADAPTED, Candidate.THETA)
    if trained:
        return (Candidate.ADAPTED, Candidate.THETA, Candidate.RIDGE)
    return (Candidate.RIDGE, Candidate.ADAPTED, Candidate.THETA)


def measures_of(
    squared_BQ: Tensor, oo_BQ: Tensor, oy_BQ: Tensor, yy_BQ: Tensor, own_B: Tensor, real_BQ: Tensor
) -> Measures:
    """Returns a candidate's measures from |o − y|², |o − m|², (o − m)·(y − m) and |y − m|².

    `own_B` says whether the candidate is finite by itself.
    """
    cosine_BQ = oy_BQ * _inverse_root(oo_BQ) * _inverse_root(yy_BQ)
    cosine_BQ = 1.0 - cosine_BQ.clamp(-1.0, 1.0)
    both_BQ = (squared_BQ + cosine_BQ).masked_fill(~real_BQ, 0.0)
    return Measures(squared_BQ, cosine_BQ, own_B & both_BQ.sum(1).isfinite())


def measured(
    o_BQE: Tensor, y_BQE: Tensor, mean_B1E: Tensor, own_B: Tensor, real_BQ: Tensor
) -> Measures:
    """Returns a candidate's measures from its outputs; `mean_B1E` is the support's mean target."""
    o, y = o_BQE - mean_B1E, y_BQE - mean_B1E
    squares = ((o - y).square().sum(2), o.square().sum(2), (o * y).sum(2), y.square().sum(2))
    return measures_of(*squares, own_B, real_BQ)


def winners(
    order: Sequence[Candidate], measures: Mapping[Candidate, Measures], judges_BQ: Tensor
) -> Won:
    """Returns each stream's winner; θ where none is finite."""
    incumbent, place_B = measures[order[0]], torch.zeros_like(judges_BQ.sum(1))
    place_B += CANDIDATES.index(order[0])
    for name in order[1:]:
        challenger = measures[name]
        wins_B = challenger.healthy_B & (
            ~incumbent.healthy_B
            | (
                clearly_better(challenger.squared_BQ, incumbent.squared_BQ, judges_BQ)
                & clearly_better(challenger.cosine_BQ, incumbent.cosine_BQ, judges_BQ)
            )
        )
        place_B = torch.where(wins_B, CANDIDATES.index(name), place_B)
        incumbent = Measures(
            torch.where(wins_B.unsqueeze(1), challenger.squared_BQ, incumbent.squared_BQ),
            torch.where(wins_B.unsqueeze(1), challenger.cosine_BQ, incumbent.cosine_BQ),
            challenger.healthy_B | incumbent.healthy_B,
        )
    place_B = torch.where(incumbent.healthy_B, place_B, CANDIDATES.index(Candidate.THETA))
    return Won(place_B, incumbent.squared_BQ, incumbent.cosine_BQ)


def clearly_better(one_BQ: Tensor, other_BQ: Tensor, judges_BQ: Tensor) -> Tensor:
    """Returns whether the one's losses are lower than the other's by more than chance (B)."""
    gain_BQ = (other_BQ - one_BQ).masked_fill(~judges_BQ, 0.0)
    n_B = judges_BQ.sum(1)
    mean_B = gain_BQ.sum(1) / n_B.clamp(min=1)
    scatter_BQ = (gain_BQ - mean_B.unsqueeze(1)).masked_fill(~judges_BQ, 0.0)
    # by its size first: squares of small numbers underflow
    size_B = scatter_BQ.abs().sum(1).clamp(min=torch.finfo(gain_BQ.dtype).tiny)
    variance_B = (scatter_BQ / size_B.unsqueeze(1)).square().sum(1) / (n_B - 1).clamp(min=1)
    error_B = size_B * (variance_B / n_B.clamp(min=1)).sqrt()
    return (n_B > 1) & (mean_B > CLEARLY * error_B)


def judged(
    losses: PairLosses,
    real: tuple[Tensor, Tensor],
    won: Won,
    judges_BQ: Tensor,
    finite_B: Tensor,
    centred_B: Tensor,
) -> list[Judged]:
    """Returns what was found of every stream, in two transfers from the device.

    `real` are the real pairs of support (B, S) and query (B, Q); mean losses without pairs are NaN.
    """
    reals = (real[0], real[0], real[1], real[1], real[1])
    means_5B = [_mean(loss, real) for loss, real in zip(losses, reals, strict=True)]
    flags = [flag.to(means_5B[0].dtype) for flag in (won.place_B, finite_B, centred_B)]
    measures = (won.squared_BQ, won.cosine_BQ, judges_BQ.to(won.squared_BQ.dtype))
    squared_BQ, cosine_BQ, own_BQ = torch.stack(measures).cpu().numpy()
    pairs = map(QueryEvidence, squared_BQ, cosine_BQ, own_BQ.astype(np.bool_))
    means = torch.stack([*means_5B, *flags], 1).tolist()
    return [
        Judged(a, b, c, d, e, CANDIDATES[int(winner)], bool(finite), bool(centred), own)
        for (a, b, c, d, e, winner, finite, centred), own in zip(means, pairs, strict=True)
    ]


def _mean(loss_BN: Tensor, real_BN: Tensor) -> Tensor:
    return loss_BN.masked_fill(~real_BN, 0.0).sum(1) / real_BN.sum(1)


def _inverse_root(squares: Tensor) -> Tensor:
    """1/√, and finite for 0: what has no length has no direction."""
    return squares.clamp(min=torch.finfo(squares.dtype).tiny).rsqrt()
