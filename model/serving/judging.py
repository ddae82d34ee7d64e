"""Losses per pair to what an Adaptation says: before and after, and whether ridge takes over.

B = streams in batch, N = pairs of a stream (padded), S = support pairs, Q = query pairs
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.serving import rival


class PairLosses(NamedTuple):
    """The loss of each pair by θ (before), by θ′ (after) and by ridge regression."""

    support_before_BS: Tensor
    support_after_BS: Tensor
    query_before_BQ: Tensor
    query_after_BQ: Tensor
    query_ridge_BQ: Tensor
    """NaN where ridge regression was not fitted."""


class MeanLosses(NamedTuple):
    """One stream's losses, means over pairs, and whether ridge should take θ′'s place."""

    support_before: float
    support_after: float
    query_before: float
    query_after: float
    query_ridge: float
    ridge_wins: bool


def judged(losses: PairLosses, real_BS: Tensor, real_BQ: Tensor) -> list[MeanLosses]:
    """Returns every stream's mean losses, NaN without pairs, in one transfer from the device."""
    reals = (real_BS, real_BS, real_BQ, real_BQ, real_BQ)
    means_5B = [_mean(loss, real) for loss, real in zip(losses, reals, strict=True)]
    clearly_B = rival.clearly_better(losses.query_ridge_BQ, losses.query_after_BQ, real_BQ)
    rows = torch.stack([*means_5B, clearly_B.to(means_5B[0].dtype)], 1).tolist()
    return [
        MeanLosses(a, b, c, d, e, _ridge_wins((a, b, c, d, e), bool(f)))
        for a, b, c, d, e, f in rows
    ]


def finite_losses(judged: MeanLosses, *, support: bool, query: bool) -> bool:
    """Returns whether θ's and θ′'s mean losses are finite, on the sides that have pairs."""
    having_pairs = judged[:2] * support + judged[2:4] * query
    return all(map(math.isfinite, having_pairs))


def _mean(loss_BN: Tensor, real_BN: Tensor) -> Tensor:
    return loss_BN.masked_fill(~real_BN, 0.0).sum(1) / real_BN.sum(1)


def _ridge_wins(losses_5: Sequence[float], clearly: bool) -> bool:
    """On the query, and never where a loss is NaN. A θ′ that is no worse than θ gives way to a
    ridge that is clearly better than it; another to one that is better than θ."""
    _, _, before, after, ridge = losses_5
    if after <= before:
        return clearly
    return ridge < before and ridge < after
