"""Every stream's own linear head in closed form, and the loss that it leaves on the query.

T = streams in batch, S = support pairs (padded), Q = query pairs (padded), D = source dim,
E = target dim

Streams have maps of their own, so that features of a source and its target cannot be pulled
together across streams; but features are good when a few pairs tell a stream's map. As in R2D2
(Bertinetto et al. 2019, arXiv:1805.08136, eq. 5) the head is ridge regression on the support, in
the dual, with a learned penalty λ, here on x̃ = [x/√D, 1]:

    o = x̃_query·X̃ᵀ·(X̃·X̃ᵀ + λI)⁻¹·Y

and the gradient of the loss on the query goes through the solution to both sides' features.

A target that is given is to be met: infonce, and the mse as a share of the targets' variance, both
less the mean of the support's targets, so that what all targets have in common makes no two of
them alike. A target that is trained is to be told from others only, and infonce is all there is,
in both directions of search: an encoder that gave one feature for everything would have the loss
of guessing, and an mse would reward just that. Which targets are the same is then for their
contents to say: by features, all would be, and nothing left to tell apart.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.losses import NEVER, Loss, value
from model.meta.episodes import EpisodeBatch

LEAST_PENALTY = 1e-3
"""The smallest λ: below it float32 would no longer solve the support's equations."""


@dataclass(frozen=True, slots=True)
class HeadLoss:
    """The loss that streams' heads leave on their queries."""

    target_is_trained: bool
    temperature: float = 0.1
    mse: float = 1.0
    """The weight of the mse beside infonce, where targets are given."""

    def __call__(self, batch: EpisodeBatch, same_TQQ: Tensor, log_penalty: Tensor) -> Tensor:
        """Return the loss of every stream (T); `same_TQQ` is true where two queries have targets of
        the same content, `log_penalty` is log λ."""
        o_TQE, real_TQ = predictions(batch, log_penalty), batch.real_query_TQ
        if self.target_is_trained:
            return _both_ways(o_TQE, batch.y_query_TQE, real_TQ, same_TQQ, self.temperature)
        mean_T1E = support_mean(batch.y_support_TSE, batch.real_support_TS)
        o_TQE, y_TQE = o_TQE - mean_T1E, batch.y_query_TQE - mean_T1E
        variance = _variance(batch.y_support_TSE - mean_T1E, batch.real_support_TS)
        mse_T = value(Loss("mse"), o_TQE, y_TQE, real_TQ) / variance
        infonce_T = value(Loss("infonce", self.temperature), o_TQE, y_TQE, real_TQ)
        return infonce_T + self.mse * mse_T


def predictions(batch: EpisodeBatch, log_penalty: Tensor) -> Tensor:
    """Fit every stream's head on its support. Return its outputs on the query (T, Q, E)."""
    penalty = log_penalty.exp().clamp(min=LEAST_PENALTY)
    x_TSD = _with_one(batch.x_support_TSD).masked_fill(~batch.real_support_TS[:, :, None], 0.0)
    y_TSE = batch.y_support_TSE.masked_fill(~batch.real_support_TS[:, :, None], 0.0)
    # over λ: no eigenvalue is below 1, and padded pairs are rows of the identity
    kernel_TSS = torch.bmm(x_TSD, x_TSD.mT) / penalty + torch.eye(x_TSD.shape[1])
    factor_TSS, _ = torch.linalg.cholesky_ex(kernel_TSS)
    dual_TSE = torch.cholesky_solve(y_TSE, factor_TSS)
    return _with_one(batch.x_query_TQD) @ (x_TSD.mT @ dual_TSE) / penalty


def support_mean(y_TSE: Tensor, real_TS: Tensor) -> Tensor:
    """Return the mean target over each stream's real pairs (T, 1, E)."""
    total_T1E = y_TSE.masked_fill(~real_TS[:, :, None], 0.0).sum(1, keepdim=True)
    return total_T1E / real_TS.sum(1).clamp(min=1)[:, None, None]


def _both_ways(
    o_TQE: Tensor, y_TQE: Tensor, real_TQ: Tensor, same_TQQ: Tensor, temperature: float
) -> Tensor:
    """Return InfoNCE per stream (T), the mean of predictions searching among targets and of targets
    searching among predictions."""
    u_TQE, v_TQE = (
        functional.normalize(f_TQE.masked_fill(~real_TQ[:, :, None], 0.0), dim=2, eps=1e-6)
        for f_TQE in (o_TQE, y_TQE)
    )
    own_QQ = torch.eye(real_TQ.shape[1], dtype=torch.bool)
    candidates_TQQ = (~same_TQQ | own_QQ) & real_TQ[:, None, :] & real_TQ[:, :, None]
    logits_TQQ = (torch.bmm(u_TQE, v_TQE.mT) / temperature).masked_fill(~candidates_TQQ, NEVER)
    loss_TQ = torch.zeros_like(logits_TQQ[:, 0])
    for direction in (1, 2):
        found_TQ = logits_TQQ.log_softmax(direction).diagonal(dim1=1, dim2=2)
        loss_TQ = loss_TQ - 0.5 * found_TQ.masked_fill(~real_TQ, 0.0)
    return loss_TQ.sum(1) / real_TQ.sum(1).clamp(min=1)


def _variance(residual_TSE: Tensor, real_TS: Tensor) -> Tensor:
    """Return the variance of one target number over all streams' real pairs, a scalar above 0."""
    squares = residual_TSE.masked_fill(~real_TS[:, :, None], 0.0).square().sum()
    return (squares / (real_TS.sum() * residual_TSE.shape[2]).clamp(min=1)).clamp(min=1e-6)


def _with_one(x_TND: Tensor) -> Tensor:
    scaled_TND = x_TND / float(x_TND.shape[2]) ** 0.5
    return torch.cat([scaled_TND, torch.ones_like(x_TND[:, :, :1])], 2)
