"""How well either linear map finds one half of a support when it is fitted to the other.

B = streams in batch, S = support pairs (padded), N = pairs of a stream (fitted ones first),
H = hidden units

Every second pair makes a half. Each half's fit is seen on the other half as the judge sees a whole
fit on the query (`model.inner.hidden.judging`). It costs a quarter of a whole fit.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.hidden.judging import Seen, procrustes_seen, ridge_seen
from model.inner.hidden.projected import Projected, means_of
from model.losses import MSE


class Grams(NamedTuple):
    """A support's products."""

    g_BSS: Tensor
    """Of sources."""
    gamma_BSS: Tensor
    """Of targets."""
    real_BS: Tensor


class HalvesSeen(NamedTuple):
    """What the fits to the other half make of each support pair; query axes are the support's."""

    ridge: Seen
    procrustes: Seen


def halves_seen(for_ridge: Grams, for_procrustes: Grams) -> HalvesSeen:
    """Returns what both maps make of each half. Ridge regression is centred: its Grams may be those
    of pairs less their mean, which keeps digits."""
    places = torch.arange(for_ridge.real_BS.shape[1], device=for_ridge.real_BS.device)
    even, odd = places[0::2], places[1::2]
    back = torch.cat([odd, even]).argsort()
    ridge, procrustes = [], []
    for fitted, left_out in ((even, odd), (odd, even)):
        one, other = (_half(grams, fitted, left_out) for grams in (for_ridge, for_procrustes))
        # of losses only what is seen is asked
        ridge.append(ridge_seen(one, means_of(one).target, 1, MSE).seen)
        procrustes.append(procrustes_seen(other, means_of(other).target))
    made = (
        Seen(*(torch.cat(parts, 1)[:, back] for parts in zip(*seen, strict=True)))
        for seen in (ridge, procrustes)
    )
    return HalvesSeen(*made)


def _half(grams: Grams, fitted: Tensor, left_out: Tensor) -> Projected:
    order = torch.cat([fitted, left_out])
    real_BN = grams.real_BS[:, order]
    g_BSN, gamma_BSN = (t[:, fitted][:, :, order] for t in grams[:2])
    yy_BN = grams.gamma_BSS.diagonal(dim1=1, dim2=2)[:, order]
    nothing_BNH = yy_BN.new_zeros((*yy_BN.shape, 0))
    return Projected(
        nothing_BNH, nothing_BNH, torch.zeros_like(yy_BN), g_BSN, gamma_BSN, yy_BN, real_BN
    )
