"""The rivals of every adaptation: linear maps fitted to the support's raw features, many at a time.

B = streams in batch, S = support pairs (padded), Q = query pairs (padded), N = pairs of a
stream, D = source dim, E = target dim, X = source or target dim

    minimise over W, c:  Σ |W·(x − x̄) + ȳ − y|² + λ|W|²      W = αᵀ·X̃,  (X̃X̃ᵀ + λI)·α = Ỹ

with X̃, Ỹ centred on the support's means (Hoerl and Kennard 1970, in the dual form) and λ chosen for
each stream by leaving pairs out (`model.inner.leave_one_out`). What a stream's window supports
without any meta-learning; a mapping that does clearly worse than this on the newest pairs is not
worth publishing. Predictions need Gram matrices only: W (E × D) is made for the streams that
publish it. `model.baselines.ridge` is the same for one stream, in float64.

The other rival is orthogonal Procrustes about 0 (`model.inner.rotation`), which has the same dual
form, without means: both X̃ and α are then combinations of the support's pairs.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.inner.learner import Support
from model.inner.leave_one_out import fit_dual
from model.inner.rotation import fit_rotation
from model.mappings.mlp import Mlp
from model.values.arrays import FloatArray
from model.values.episode import Candidate


class Rival(NamedTuple):
    """Linear maps of B streams, fitted in the dual form: f(x) = αᵀ·X·(x − x̄) + ȳ."""

    x_BSD: Tensor
    """Of ridge regression: sources less their mean, over the mean diagonal of their Gram."""
    alpha_BSE: Tensor
    x_mean_B1D: Tensor
    y_mean_B1E: Tensor


def fit(support: Support) -> Rival:
    """Returns ridge regression as `fit_leaving_out` fits it."""
    return fit_leaving_out(support)[0]


def fit_leaving_out(support: Support) -> tuple[Rival, Tensor]:
    """Fits ridge regression to every stream; one without pairs predicts 0.

    Returns it, and 1 for each pair (B, S) which the fit to all others maps nearer to another pair's
    target than to its own. A stream's NaN or infinity stays its own.
    """
    real_BS1 = support.real_BS.unsqueeze(2)
    x_BSD, x_mean_B1D = _centred(support.x_BSD, real_BS1)
    y_BSE, y_mean_B1E = _centred(support.y_BSE, real_BS1)
    k_BSS, c_BSS = (torch.bmm(t, t.transpose(1, 2)) for t in (x_BSD, y_BSE))
    dual = fit_dual(k_BSS, c_BSS, support.real_BS)
    alpha_BSE = torch.bmm(dual.inverse_BSS, y_BSE)
    fitted = Rival(x_BSD / dual.unit_B.view(-1, 1, 1), alpha_BSE, x_mean_B1D, y_mean_B1E)
    return fitted, dual.missed_BS


def fit_about_zero(support: Support) -> Rival:
    """Fits orthogonal Procrustes about 0, with scale; a stream without pairs predicts 0.

    A stream's NaN or infinity stays its own.
    """
    real_BS1 = support.real_BS.unsqueeze(2)
    x_BSD, y_BSE = (t.masked_fill(~real_BS1, 0.0) for t in (support.x_BSD, support.y_BSE))
    k_BSS, c_BSS = (torch.bmm(t, t.transpose(1, 2)) for t in (x_BSD, y_BSE))
    dual = fit_rotation(k_BSS, c_BSS, support.real_BS)
    no_means = (torch.zeros_like(t[:, :1]) for t in (x_BSD, y_BSE))
    return Rival(
        torch.bmm(dual.from_sources_BSS, x_BSD), torch.bmm(dual.from_targets_BSS, y_BSE), *no_means
    )


FITS: Mapping[Candidate, Callable[[Support], Rival]] = {
    Candidate.RIDGE: fit,
    Candidate.PROCRUSTES: fit_about_zero,
}
"""How each linear map is fitted."""


def predict(rival: Rival, x_BQD: Tensor) -> Tensor:
    """Returns each stream's predictions on its own inputs (B, Q, E)."""
    cross_BQS = torch.bmm(x_BQD - rival.x_mean_B1D, rival.x_BSD.transpose(1, 2))
    return torch.bmm(cross_BQS, rival.alpha_BSE) + rival.y_mean_B1E


def as_mapping(rival: Rival, stream: int) -> Mlp:
    """Returns one stream's f(x) = W·x + c as w2·(w1·x + b1) + b2.

    Its hidden dim is min(D, E), its activation none.
    """
    weight_ED = rival.alpha_BSE[stream].T @ rival.x_BSD[stream]
    bias_E = rival.y_mean_B1E[stream, 0] - weight_ED @ rival.x_mean_B1D[stream, 0]
    target_dim, source_dim = weight_ED.shape
    identity = torch.eye(min(source_dim, target_dim), device=weight_ED.device)
    zeros = torch.zeros_like(identity[0])
    if target_dim <= source_dim:
        return Mlp(weight_ED, bias_E, identity, zeros)
    return Mlp(identity, zeros, weight_ED, bias_E)


def of_pairs(
    x_ND: FloatArray, y_NE: FloatArray, judged: int, kind: Candidate = Candidate.RIDGE
) -> dict[str, FloatArray]:
    """Fits one stream's pairs, and returns `as_mapping` of it as arrays.

    It was judged by a fit to the first `judged` pairs, which is returned where that to all of them
    is not finite.
    """
    return whole_or_judged(_of_pairs(x_ND, y_NE, kind), 0, (x_ND, y_NE), judged, kind)


def whole_or_judged(
    fitted: Rival, stream: int, pairs: tuple[FloatArray, FloatArray], judged: int, kind: Candidate
) -> dict[str, FloatArray]:
    """Returns `as_mapping` of one stream as arrays, or of the fit to its first `judged` pairs where
    that to all of them, `fitted`, is not finite."""
    made = _as_arrays(fitted, stream)
    if all(math.isfinite(float(tensor.sum())) for tensor in made.values()):
        return made
    x_ND, y_NE = pairs
    return _as_arrays(_of_pairs(x_ND[:judged], y_NE[:judged], kind), 0)


def _of_pairs(x_ND: FloatArray, y_NE: FloatArray, kind: Candidate) -> Rival:
    x_1ND, y_1NE = (torch.from_numpy(t[np.newaxis]) for t in (x_ND, y_NE))
    return FITS[kind](Support(x_1ND, y_1NE, torch.ones(x_1ND.shape[:2], dtype=torch.bool)))


def _as_arrays(rival: Rival, stream: int) -> dict[str, FloatArray]:
    return {name: t.cpu().numpy() for name, t in as_mapping(rival, stream)._asdict().items()}


def _centred(t_BSX: Tensor, real_BS1: Tensor) -> tuple[Tensor, Tensor]:
    t_BSX = t_BSX.masked_fill(~real_BS1, 0.0)
    mean_B1X = t_BSX.sum(1, keepdim=True) / real_BS1.sum(1, keepdim=True).clamp(min=1)
    return (t_BSX - mean_B1X).masked_fill(~real_BS1, 0.0), mean_B1X
