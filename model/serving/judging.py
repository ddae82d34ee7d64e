"""The judge: which candidate of each stream is published, by pairs that none has learned from.

B = streams in batch, N = pairs of a stream (padded), S = support pairs, Q = query pairs,
Y = candidates, E = target dim

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

Ridge regression and orthogonal Procrustes are linear maps in closed form, and know nothing of θ.
One of them stands among the candidates: that with the smaller centred cosine distance, on average
(`nearer_linear`), unless Procrustes has more than AT_MOST times the squared error. The average is
over the pairs that judge and, of a support of LEAST_HALVED pairs, over the support's too, each by
the fit to the other half. Neither is right for most data, so none of the two is the incumbent.
Beside a θ that was meta-trained Procrustes is left out: on no data that we tried it found more than
the better of what is published and ridge, and a further challenger sometimes wins by chance.

The mean of the support is no candidate. It has no direction, so its cosine distance is 1: it would
be clearly better in both measures only where all others point away from the target.

Four pairs do not see everything. Where θ′ begins, the support's own pairs speak for ridge
regression too: how many of them find their target as the nearest of the support's? Ridge regression
is asked by leaving each pair out, θ′ has learned from it, so the comparison favours θ′. If ridge
regression still finds more, by more than MORE_FOUND standard errors, it takes the place of θ′.

A pair whose source lies in the support does not judge (`model.serving.repeats`): who memorises the
support would win. Of the support only pairs count whose source no other pair has. Fewer than three
pairs say too little about chance, and the first stays.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.values.episode import Candidate, QueryEvidence
from model.values.gate import CLEARLY, LEAST_PAIRS, OF_THREE

MOST_ERRORS = 99.0
MORE_FOUND = 1.0
AT_MOST = 2.0
"""So many times the squared error of ridge regression Procrustes may have."""
LEAST_HALVED = 8
Ahead = Sequence[Sequence[float]]
"""By how many standard errors each candidate (row) is ahead of each other (column)."""


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
    ahead_squared: float
    """By how many standard errors the winner is ahead of the nearest other candidate."""
    ahead_cosine: float
    finite: bool
    """Whether θ′ is."""
    evidence: QueryEvidence


class Standing(NamedTuple):
    """How the candidates of each stream stand to each other."""

    order: tuple[Candidate, ...]
    """From the first incumbent to the last challenger; RIDGE is the place of both linear maps."""
    ahead_2YYB: Tensor
    """By how many standard errors the first is ahead of the second, in squared error and in centred
    cosine distance."""
    healthy_YB: Tensor
    """Whether it may be published."""
    losses_2YBQ: Tensor
    """The squared error and the centred cosine distance of each query pair."""
    judges_BQ: Tensor
    rotates_B: Tensor
    """Where Procrustes stands in the place of ridge regression."""
    more_found_B: Tensor
    """By how many standard errors ridge regression, leaving each out, finds more of the support's
    pairs than θ′; 0 where that is not asked."""


class HalvesCosines(NamedTuple):
    """The centred cosine distance of each support pair by the fit to the other half."""

    ridge_BS: Tensor
    procrustes_BS: Tensor
    counts_BS: Tensor
    """Pairs that count: those whose source no other pair has, of supports that are large enough."""


class SupportMissed(NamedTuple):
    """1 for each support pair whose own target is not found as the nearest of the support's."""

    adapted_BS: Tensor
    ridge_BS: Tensor
    """By the fit to all other pairs."""
    single_BS: Tensor
    """Pairs whose source no other pair has."""


def order_of(*, trained: bool, ridge: bool) -> tuple[Candidate, ...]:
    """Returns the candidates from the first incumbent to the last challenger. Linear
    maps stand beside each other, for they have one place."""
    if not ridge:
        return (Candidate.ADAPTED, Candidate.THETA)
    if trained:
        return (Candidate.ADAPTED, Candidate.THETA, Candidate.RIDGE)
    return (Candidate.RIDGE, Candidate.PROCRUSTES, Candidate.ADAPTED, Candidate.THETA)


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


def standing(
    order: Sequence[Candidate],
    measures: Mapping[Candidate, Measures],
    judges_BQ: Tensor,
    support: SupportMissed | None = None,
    halves: HalvesCosines | None = None,
) -> Standing:
    """Returns how the candidates of `order` stand to each other on the pairs that judge, and on the
    `support` or its `halves` where that is asked.

    Where `measures` have Procrustes, the better of the linear maps stands in ridge's place.
    """
    rotates_B = torch.zeros_like(judges_BQ[:, 0])
    if Candidate.PROCRUSTES in measures:
        ridge, procrustes = measures[Candidate.RIDGE], measures[Candidate.PROCRUSTES]
        linear, rotates_B = nearer_linear(ridge, procrustes, judges_BQ, halves)
        measures = {**measures, Candidate.RIDGE: linear}
    places = tuple(name for name in order if name is not Candidate.PROCRUSTES)
    found = [measures[name] for name in places]
    losses_2YBQ = torch.stack(
        [torch.stack([m.squared_BQ for m in found]), torch.stack([m.cosine_BQ for m in found])]
    )
    ahead_2YYB = errors_ahead(losses_2YBQ.unsqueeze(2), losses_2YBQ.unsqueeze(1), judges_BQ)
    healthy_YB = torch.stack([m.healthy_B for m in found])
    more_found_B = torch.zeros_like(ahead_2YYB[0, 0, 0])
    if support is not None:
        more_found_B = errors_ahead(support.ridge_BS, support.adapted_BS, support.single_BS)
    return Standing(places, ahead_2YYB, healthy_YB, losses_2YBQ, judges_BQ, rotates_B, more_found_B)


def asks_support(order: Sequence[Candidate]) -> bool:
    """Returns whether the support speaks for ridge regression: where it challenges θ′."""
    return order[0] is Candidate.ADAPTED and Candidate.RIDGE in order


def halves_cosines(ridge: Measures, procrustes: Measures, single_BS: Tensor) -> HalvesCosines:
    """Returns what halves say, given the measures of support pairs by the fits to other halves."""
    counts_BS = single_BS & (single_BS.sum(1, keepdim=True) >= LEAST_HALVED)
    return HalvesCosines(ridge.cosine_BQ, procrustes.cosine_BQ, counts_BS)


def nearer_linear(
    ridge: Measures,
    procrustes: Measures,
    judges_BQ: Tensor,
    halves: HalvesCosines | None = None,
) -> tuple[Measures, Tensor]:
    """Returns the measures of each stream's better linear map, and where that is Procrustes (B)."""
    gain_BQ = ridge.cosine_BQ - procrustes.cosine_BQ
    spare_BQ = AT_MOST * ridge.squared_BQ - procrustes.squared_BQ
    gain_B, spare_B = (t.masked_fill(~judges_BQ, 0.0).sum(1) for t in (gain_BQ, spare_BQ))
    if halves is not None:
        gain_BS = halves.ridge_BS - halves.procrustes_BS
        counts_BS = halves.counts_BS & gain_BS.isfinite()
        gain_B = gain_B + gain_BS.masked_fill(~counts_BS, 0.0).sum(1)
    nearer_B = ((gain_B > 0.0) & (spare_B > 0.0)) | ~ridge.healthy_B
    rotates_B = procrustes.healthy_B & nearer_B
    rotates_B1 = rotates_B.unsqueeze(1)
    linear = Measures(
        torch.where(rotates_B1, procrustes.squared_BQ, ridge.squared_BQ),
        torch.where(rotates_B1, procrustes.cosine_BQ, ridge.cosine_BQ),
        procrustes.healthy_B | ridge.healthy_B,
    )
    return linear, rotates_B


def errors_ahead(one_BQ: Tensor, other_BQ: Tensor, judges_BQ: Tensor) -> Tensor:
    """Returns how far the one's losses lie below the other's (B): the mean of the paired
    differences, in its own standard errors; those OF_THREE pairs count for less. 0 where fewer
    than LEAST_PAIRS judge.

    More axes may stand before B.
    """
    gain_BQ = (other_BQ - one_BQ).masked_fill(~judges_BQ, 0.0)
    n_B = judges_BQ.sum(1)
    mean_B = gain_BQ.sum(-1) / n_B.clamp(min=1)
    scatter_BQ = (gain_BQ - mean_B.unsqueeze(-1)).masked_fill(~judges_BQ, 0.0)
    # by its size first: squares of small numbers underflow
    size_B = scatter_BQ.abs().sum(-1).clamp(min=torch.finfo(gain_BQ.dtype).tiny)
    variance_B = (scatter_BQ / size_B.unsqueeze(-1)).square().sum(-1) / (n_B - 1).clamp(min=1)
    error_B = size_B * (variance_B / n_B.clamp(min=1)).sqrt()
    ahead_B = torch.where(mean_B == 0.0, mean_B, mean_B / error_B)
    ahead_B = torch.where(n_B == LEAST_PAIRS, OF_THREE * ahead_B, ahead_B)
    return ahead_B.masked_fill(n_B < LEAST_PAIRS, 0.0)


def verdict_of(
    order: Sequence[Candidate],
    healthy_Y: Sequence[bool],
    ahead_2YY: Sequence[Ahead],
    more_found: float = 0.0,
) -> tuple[Candidate, float, float]:
    """Returns one stream's winner, and by how many standard errors it is ahead of the nearest other
    candidate that may be published, in squared error and in centred cosine distance.

    In hundredths, and at most MOST_ERRORS either way. Negative where it is behind, though not
    clearly in both, or ridge regression wins because it has found `more_found` standard errors more
    of the support; NaN where there is no other. θ wins where no candidate is finite.
    """
    squared_YY, cosine_YY = ahead_2YY
    best = 0
    for y in range(1, len(order)):
        clearly = squared_YY[y][best] > CLEARLY and cosine_YY[y][best] > CLEARLY
        if order[y] is Candidate.RIDGE and order[best] is Candidate.ADAPTED:
            clearly = clearly or more_found > MORE_FOUND
        if healthy_Y[y] and (clearly or not healthy_Y[best]):
            best = y
    if not healthy_Y[best]:
        return Candidate.THETA, math.nan, math.nan
    others = [y for y in range(len(order)) if y != best and healthy_Y[y]]
    squared, cosine = (min((a[best][y] for y in others), default=math.nan) for a in ahead_2YY)
    return order[best], _bounded(squared), _bounded(cosine)


def judged(
    losses: PairLosses,
    real: tuple[Tensor, Tensor],
    candidates: Standing,
) -> list[Judged]:
    """Returns what was found of every stream, in few transfers from the device.

    `real` are the real pairs of support (B, S) and query (B, Q); mean losses without pairs are NaN.
    """
    reals = (real[0], real[0], real[1], real[1], real[1])
    means_5B = [_mean(loss, real) for loss, real in zip(losses, reals, strict=True)]
    size = len(candidates.order)
    adapted = candidates.order.index(Candidate.ADAPTED)
    flags = [candidates.rotates_B[None], candidates.more_found_B[None], candidates.healthy_YB]
    found = [torch.stack(means_5B), *(f.to(means_5B[0].dtype) for f in flags)]
    rows = torch.cat([*found, candidates.ahead_2YYB.flatten(0, 2)]).T.tolist()
    losses_2YBQ = candidates.losses_2YBQ.cpu().numpy()
    judges_BQ = candidates.judges_BQ.cpu().numpy()
    streams = []
    for stream, row in enumerate(rows):
        healthy_Y, ahead = [bool(flag) for flag in row[7 : 7 + size]], row[7 + size :]
        lines = [ahead[at : at + size] for at in range(0, len(ahead), size)]
        a, b, c, d, e, rotates, more_found = row[:7]
        verdict = verdict_of(candidates.order, healthy_Y, (lines[:size], lines[size:]), more_found)
        winner = verdict[0]
        best = candidates.order.index(winner)
        squared_Q, cosine_Q = losses_2YBQ[:, best, stream]
        evidence = QueryEvidence(squared_Q, cosine_Q, judges_BQ[stream])
        if winner is Candidate.RIDGE and rotates:
            winner = Candidate.PROCRUSTES
        streams.append(Judged(a, b, c, d, e, winner, *verdict[1:], healthy_Y[adapted], evidence))
    return streams


def _bounded(errors: float) -> float:
    if math.isnan(errors):
        return errors
    return round(max(-MOST_ERRORS, min(MOST_ERRORS, errors)), 2)


def _mean(loss_BN: Tensor, real_BN: Tensor) -> Tensor:
    return loss_BN.masked_fill(~real_BN, 0.0).sum(1) / real_BN.sum(1)


def _inverse_root(squares: Tensor) -> Tensor:
    """1/√, and finite for 0: what has no length has no direction."""
    return squares.clamp(min=torch.finfo(squares.dtype).tiny).rsqrt()
