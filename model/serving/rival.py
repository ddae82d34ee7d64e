"""The rival of every adaptation: ridge regression on the support's raw features, for many streams.

B = streams in batch, S = support pairs (padded), Q = query pairs (padded), D = source dim,
E = target dim, X = source or target dim

    minimise over W, c:  Σ |W·(x − x̄) + ȳ − y|² + λ|W|²      W = αᵀ·X̃,  (X̃X̃ᵀ + λI)·α = Ỹ

with X̃, Ỹ centred on the support's means (Hoerl and Kennard 1970, in the dual form). What a
stream's window supports without any meta-learning; a mapping that does worse than this on the
newest pairs is not worth publishing. Predictions need Gram matrices only: W (E × D) is made for
the streams that publish it. `model.baselines.ridge` is the same for one stream, in float64.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.inner.learner import Support
from model.mappings.mlp import Mlp
from model.values.arrays import FloatArray
from model.values.episode import Episode

PENALTY = 10.0
"""λ; `model.baselines.ridge` says how it was chosen."""


class Rival(NamedTuple):
    """Ridge regression of B streams, fitted in the dual form. Padded rows are 0."""

    x_BSD: Tensor
    """Less the support's mean."""
    alpha_BSE: Tensor
    x_mean_B1D: Tensor
    y_mean_B1E: Tensor


def fit(support: Support, penalty: float = PENALTY) -> Rival:
    """Fits ridge regression to every stream; one without pairs predicts 0.

    A stream's NaN or infinity stays its own.
    """
    real_BS1 = support.real_BS.unsqueeze(2)
    x_BSD, x_mean_B1D = _centred(support.x_BSD, real_BS1)
    y_BSE, y_mean_B1E = _centred(support.y_BSE, real_BS1)
    gram_BSS = torch.bmm(x_BSD, x_BSD.transpose(1, 2))
    gram_BSS = gram_BSS + penalty * torch.eye(gram_BSS.shape[1], device=gram_BSS.device)
    factor_BSS, _ = torch.linalg.cholesky_ex(gram_BSS)
    return Rival(x_BSD, torch.cholesky_solve(y_BSE, factor_BSS), x_mean_B1D, y_mean_B1E)


def predict(rival: Rival, x_BQD: Tensor) -> Tensor:
    """Returns each stream's predictions on its own inputs (B, Q, E)."""
    cross_BQS = torch.bmm(x_BQD - rival.x_mean_B1D, rival.x_BSD.transpose(1, 2))
    return torch.bmm(cross_BQS, rival.alpha_BSE) + rival.y_mean_B1E


def clearly_better(rival_BQ: Tensor, other_BQ: Tensor, real_BQ: Tensor) -> Tensor:
    """Returns whether the rival's losses are lower than the other's by more than chance (B).

    Query pairs are few and their losses scatter: the mean of the paired differences must exceed
    its own standard error. Two pairs at least; one says nothing.
    """
    gain_BQ = (other_BQ - rival_BQ).masked_fill(~real_BQ, 0.0)
    n_B = real_BQ.sum(1)
    mean_B = gain_BQ.sum(1) / n_B.clamp(min=1)
    scatter_BQ = (gain_BQ - mean_B.unsqueeze(1)).masked_fill(~real_BQ, 0.0)
    variance_B = scatter_BQ.square().sum(1) / (n_B - 1).clamp(min=1)
    error_B = (variance_B / n_B.clamp(min=1)).sqrt()
    return (n_B > 1) & (mean_B > error_B)


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


def of_episode(episode: Episode) -> dict[str, FloatArray]:
    """Fits one episode's support, and returns `as_mapping` of it as arrays."""
    x_1SD, y_1SE = (
        torch.from_numpy(t[np.newaxis]) for t in (episode.x_support_SD, episode.y_support_SE)
    )
    fitted = fit(Support(x_1SD, y_1SE, torch.ones(x_1SD.shape[:2], dtype=torch.bool)))
    return {name: tensor.numpy() for name, tensor in as_mapping(fitted, 0)._asdict().items()}


def _centred(t_BSX: Tensor, real_BS1: Tensor) -> tuple[Tensor, Tensor]:
    t_BSX = t_BSX.masked_fill(~real_BS1, 0.0)
    mean_B1X = t_BSX.sum(1, keepdim=True) / real_BS1.sum(1, keepdim=True).clamp(min=1)
    return (t_BSX - mean_B1X).masked_fill(~real_BS1, 0.0), mean_B1X
