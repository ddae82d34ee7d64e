"""Ridge regression's penalty, chosen for each stream by leaving every pair out once, from Grams.

B = streams in batch, S = support pairs (padded), Y = candidates (penalties)

    minimise over W, c:  Σ |W·x + c − y|² + λ·|W|²

In the dual, with K and C the Grams of sources and of targets, each less its support mean, and
α = (K + λI)⁻¹·(y − ȳ), the error at pair i of the fit to all other pairs is (Allen 1974)

    e_i = α_i / ([(K + λI)⁻¹]_ii − 1/(n·λ)),   Σ |e_i|² = Σ [(K + λI)⁻¹·C·(K + λI)⁻¹]_ii / (…)²

so no fit is made twice, and targets count by C alone. λ is measured in the mean diagonal of K, κ:
scaling sources changes no prediction. The smallest candidate is a floor: with few pairs the error
alone would shrink every prediction to the mean. 1·1ᵀ/n is added to K/κ, which changes no result,
because K and y − ȳ are at right angles to it: the inverse then has no entry of size 1/λ to cancel.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.neighbours import missed

PENALTIES = (0.001, 0.01, 0.15)
"""λ in units of κ."""
TIE = 1e-3
"""A larger penalty must lower the squared error by more than this share: two pairs' errors, say,
are the same by every penalty, and rounding shall not choose."""


class Dual(NamedTuple):
    """The fit: W = αᵀ·X̃/κ with α = inverse·Ỹ; weights of a new pair are k/κ·inverse."""

    inverse_BSS: Tensor
    """(K/κ + 1·1ᵀ/n + λ/κ·I)⁻¹; NaN where it cannot be computed."""
    unit_B: Tensor
    """κ, or 1 where that is 0 or no number."""
    missed_BS: Tensor
    """1 for each pair which the fit to all others maps nearer to another pair's target, else 0."""


def fit_dual(k_BSS: Tensor, c_BSS: Tensor, real_BS: Tensor) -> Dual:
    """Returns the fit with the best penalty of each stream. Padded rows and columns must be 0."""
    one_BS = real_BS.to(k_BSS.dtype)
    n_B = one_BS.sum(1).clamp(min=1.0)
    share_BS = one_BS / n_B.unsqueeze(1)
    unit_B = mean_diagonal(k_BSS, n_B)
    base_BSS = k_BSS / unit_B.view(-1, 1, 1) + one_BS.unsqueeze(2) * share_BS.unsqueeze(1)
    unit_c_BSS = c_BSS / mean_diagonal(c_BSS, n_B).view(-1, 1, 1)
    penalties_Y = torch.tensor(PENALTIES, dtype=k_BSS.dtype, device=k_BSS.device)
    inverse_YBSS = _inverses(base_BSS, penalties_Y)
    constant_YBS = share_BS / (1.0 + penalties_Y).view(-1, 1, 1)
    best_B = _best(_left_out(inverse_YBSS, unit_c_BSS, constant_YBS, real_BS))
    streams_B = torch.arange(len(k_BSS), device=best_B.device)
    inverse_BSS, constant_BS = (t[best_B, streams_B] for t in (inverse_YBSS, constant_YBS))
    own_BS = inverse_BSS.diagonal(dim1=1, dim2=2) - constant_BS
    # what the fit to all others makes of pair i, y_i − e_i, onto every target
    onto_BSS = unit_c_BSS - torch.bmm(inverse_BSS, unit_c_BSS) / own_BS.unsqueeze(2)
    squares_BS = unit_c_BSS.diagonal(dim1=1, dim2=2)
    return Dual(inverse_BSS, unit_B, missed(onto_BSS, squares_BS, real_BS))


def mean_diagonal(gram_BSS: Tensor, n_B: Tensor) -> Tensor:
    """Returns a size to divide the Grams of n pairs by: 1 where the mean is 0 or no number."""
    mean_B = gram_BSS.diagonal(dim1=1, dim2=2).sum(1) / n_B
    usable_B = mean_B.isfinite() & (mean_B >= torch.finfo(mean_B.dtype).tiny)
    return torch.where(usable_B, mean_B, 1.0)


def _inverses(base_BSS: Tensor, penalties_Y: Tensor) -> Tensor:
    identity_SS = torch.eye(base_BSS.shape[1], dtype=base_BSS.dtype, device=base_BSS.device)
    factor_YBSS, info_YB = torch.linalg.cholesky_ex(
        base_BSS + penalties_Y.view(-1, 1, 1, 1) * identity_SS
    )
    failed_YB = (info_YB != 0) | ~base_BSS.sum((1, 2)).isfinite()
    failed_YB11 = failed_YB.unsqueeze(2).unsqueeze(3)
    inverse_YBSS = torch.cholesky_inverse(torch.where(failed_YB11, identity_SS, factor_YBSS))
    return inverse_YBSS.masked_fill(failed_YB11, torch.nan)


def _left_out(inverse_YBSS: Tensor, c_BSS: Tensor, constant_YBS: Tensor, real_BS: Tensor) -> Tensor:
    """Σ |e_i|² (Y, B); infinite where it cannot be computed, as for one pair."""
    alpha_YBS = (torch.matmul(inverse_YBSS, c_BSS) * inverse_YBSS).sum(3).clamp(min=0.0)
    own_YBS = inverse_YBSS.diagonal(dim1=2, dim2=3) - constant_YBS
    total_YB = (alpha_YBS / own_YBS.square()).masked_fill(~real_BS, 0.0).sum(2)
    return torch.where(total_YB.isfinite(), total_YB, torch.inf)


def _best(scores_YB: Tensor) -> Tensor:
    best_B, index_B = scores_YB[0], torch.zeros_like(scores_YB[0], dtype=torch.long)
    for index, score_B in enumerate(scores_YB[1:], 1):
        better_B = score_B < best_B * (1.0 - TIE)
        best_B = torch.where(better_B, score_B, best_B)
        index_B = torch.where(better_B, index, index_B)
    return index_B
