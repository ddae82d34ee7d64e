"""Every stream's own linear head in closed form, and the loss that it leaves on the query.

B = streams in batch, S = support pairs (padded), Q = query pairs (padded), N = pairs of a stream
(padded), D = source dim, E = target dim

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

    def __call__(self, batch: EpisodeBatch, same_BQQ: Tensor, log_penalty: Tensor) -> Tensor:
        """Return the loss of every stream (B); `same_BQQ` is true where two queries have targets of
        the same content, `log_penalty` is log λ."""
        o_BQE, real_BQ = predictions(batch, log_penalty), batch.real_query_BQ
        if self.target_is_trained:
            return _both_ways(o_BQE, batch.y_query_BQE, real_BQ, same_BQQ, self.temperature)
        mean_B1E = support_mean(batch.y_support_BSE, batch.real_support_BS)
        o_BQE, y_BQE = o_BQE - mean_B1E, batch.y_query_BQE - mean_B1E
        variance = _variance(batch.y_support_BSE - mean_B1E, batch.real_support_BS)
        mse_B = value(Loss("mse"), o_BQE, y_BQE, real_BQ) / variance
        infonce_B = value(Loss("infonce", self.temperature), o_BQE, y_BQE, real_BQ)
        return infonce_B + self.mse * mse_B


def predictions(batch: EpisodeBatch, log_penalty: Tensor) -> Tensor:
    """Fit every stream's head on its support. Return its outputs on the query (B, Q, E)."""
    penalty = log_penalty.exp().clamp(min=LEAST_PENALTY)
    x_BSD = _with_one(batch.x_support_BSD).masked_fill(~batch.real_support_BS[:, :, None], 0.0)
    y_BSE = batch.y_support_BSE.masked_fill(~batch.real_support_BS[:, :, None], 0.0)
    # over λ: no eigenvalue is below 1, and padded pairs are rows of the identity
    kernel_BSS = torch.bmm(x_BSD, x_BSD.mT) / penalty + torch.eye(x_BSD.shape[1])
    factor_BSS, _ = torch.linalg.cholesky_ex(kernel_BSS)
    dual_BSE = torch.cholesky_solve(y_BSE, factor_BSS)
    return _with_one(batch.x_query_BQD) @ (x_BSD.mT @ dual_BSE) / penalty


def support_mean(y_BSE: Tensor, real_BS: Tensor) -> Tensor:
    """Return the mean target over each stream's real pairs (B, 1, E)."""
    total_B1E = y_BSE.masked_fill(~real_BS[:, :, None], 0.0).sum(1, keepdim=True)
    return total_B1E / real_BS.sum(1).clamp(min=1)[:, None, None]


def _both_ways(
    o_BQE: Tensor, y_BQE: Tensor, real_BQ: Tensor, same_BQQ: Tensor, temperature: float
) -> Tensor:
    """Return InfoNCE per stream (B), the mean of predictions searching among targets and of targets
    searching among predictions."""
    u_BQE, v_BQE = (
        functional.normalize(f_BQE.masked_fill(~real_BQ[:, :, None], 0.0), dim=2, eps=1e-6)
        for f_BQE in (o_BQE, y_BQE)
    )
    own_QQ = torch.eye(real_BQ.shape[1], dtype=torch.bool)
    candidates_BQQ = (~same_BQQ | own_QQ) & real_BQ[:, None, :] & real_BQ[:, :, None]
    logits_BQQ = (torch.bmm(u_BQE, v_BQE.mT) / temperature).masked_fill(~candidates_BQQ, NEVER)
    loss_BQ = torch.zeros_like(logits_BQQ[:, 0])
    for direction in (1, 2):
        found_BQ = logits_BQQ.log_softmax(direction).diagonal(dim1=1, dim2=2)
        loss_BQ = loss_BQ - 0.5 * found_BQ.masked_fill(~real_BQ, 0.0)
    return loss_BQ.sum(1) / real_BQ.sum(1).clamp(min=1)


def _variance(residual_BSE: Tensor, real_BS: Tensor) -> Tensor:
    """Return the variance of one target number over all streams' real pairs, a scalar above 0."""
    squares = residual_BSE.masked_fill(~real_BS[:, :, None], 0.0).square().sum()
    return (squares / (real_BS.sum() * residual_BSE.shape[2]).clamp(min=1)).clamp(min=1e-6)


def _with_one(x_BND: Tensor) -> Tensor:
    scaled_BND = x_BND / float(x_BND.shape[2]) ** 0.5
    return torch.cat([scaled_BND, torch.ones_like(x_BND[:, :, :1])], 2)
