"""What the judge sees of each candidate, in hidden space: lengths and angles about the mean target.

B = streams in batch, S = support pairs (padded), Q = query pairs (padded), N = pairs of a stream
(support first; padded), H = hidden units, E = target dim, A = anchors

With m the mean of the support's targets, and o a candidate's output, the judge needs |o − m|²,
(o − m)·(y − m) and |y − m|² of each query pair (`model.serving.judging`).

*θ* is W2·h + b2, so all of them are products that pairs bring along: with M, r = W2ᵀy, t = y·b2 and
y·y of raw targets.

*θ′* was adapted to ŷ = (y − c)/s − b2 (`model.inner.units`) and comes as ô, its output less b2
(`model.inner.hidden.result`). Its output to users is s·(ô + b2) + c with c = w·m, so
o − m = s·(ô − m̂) with m̂ = (m − c)/s − b2.

*Ridge regression* predicts m + Σ_s w_ns·(y_s − m), with w_n = k_n/κ·inverse of
`model.inner.leave_one_out` and K, k_n the products of sources less the support's mean x̄:

    k_ns = (x_n − x̄)·(x_s − x̄) = g_ns − mean_s g_ns − mean_t g_ts + mean_st g_st

*Orthogonal Procrustes* predicts (G⁻¹·Y)ᵀ·z, with z and the products N of the rows
of G⁻¹·Y from `model.inner.rotation`: its square is zᵀ·N·z.

*When products are too coarse.* Means that stand far out leave little of what is centred: a rounding
error of a product is one of the mean's square. Beyond FAR_OUT times the variance that is too much:
below, a loss is told to about 0.1 %.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.hidden.activation import apply_sigma
from model.inner.hidden.losses import Outputs, RawTargets, cosine_losses
from model.inner.hidden.projected import Means, Projected, TargetMean, Terms, support_share
from model.inner.leave_one_out import fit_dual
from model.inner.rotation import fit_rotation
from model.losses import Loss
from model.mappings.mlp import AnyActivation

FAR_OUT = 1e3


class Seen(NamedTuple):
    """Products of one candidate's outputs o, of targets y, and of their support mean m."""

    oo_BQ: Tensor
    """|o − m|²."""
    oy_BQ: Tensor
    """(o − m)·(y − m)."""
    yy_BQ: Tensor
    """|y − m|²."""

    @property
    def squared_BQ(self) -> Tensor:
        """|o − y|²; rounding may leave less than nothing of it."""
        return (self.oo_BQ - 2.0 * self.oy_BQ + self.yy_BQ).clamp(min=0.0)


class RidgeSeen(NamedTuple):
    """What the judge sees of ridge regression."""

    seen: Seen
    loss_BQ: Tensor
    """Its loss on the query pairs."""
    missed_BS: Tensor
    """1 for each support pair that it does not find when that is left out, else 0."""


def theta_seen(terms: Terms, raw: Projected, mean: TargetMean, activation: AnyActivation) -> Seen:
    """Returns what the judge sees of θ unadapted; `raw` are projections of y itself."""
    size = raw.g_BSN.shape[1]
    h_BQH = apply_sigma(activation, raw.p_BNH[:, size:])
    f_BQH = torch.matmul(h_BQH, terms.m_HH)
    oo_BQ = (h_BQH * f_BQH).sum(2) + 2.0 * (h_BQH @ terms.w2b_H) + terms.bb
    oy_BQ = (h_BQH * raw.r_BNH[:, size:]).sum(2) + raw.t_BN[:, size:]
    om_BQ = (h_BQH * mean.r_B1H).sum(2) + mean.t_B.unsqueeze(1)
    my_BQ, mm_B1 = mean.y_BN[:, size:], mean.own_B.unsqueeze(1)
    return Seen(oo_BQ - 2.0 * om_BQ + mm_B1, oy_BQ - om_BQ - my_BQ + mm_B1, _around(raw, mean))


def adapted_seen(
    terms: Terms, raw: Projected, projected: Projected, outputs: Outputs, targets: RawTargets
) -> Seen:
    """Returns what the judge sees of θ′, which was adapted to `projected`."""
    size, (units, mean, om_BN, _) = raw.g_BSN.shape[1], targets
    s_B1 = units.scale_B.unsqueeze(1)
    w_B1 = units.share_B.unsqueeze(1)
    # m̂ = k·m − b2
    k_B1 = (1.0 - w_B1) / s_B1
    t_B1, own_B1 = mean.t_B.unsqueeze(1), mean.own_B.unsqueeze(1)
    o_BN = k_B1 * om_BN - outputs.ob_BN
    y_BN = k_B1 * ((mean.y_BN - w_B1 * own_B1) / s_B1 - t_B1) - projected.t_BN
    m_B1 = k_B1 * (k_B1 * own_B1 - 2.0 * t_B1) + terms.bb
    square_B1 = s_B1.square()
    oo_BQ, oy_BQ, o_BQ, y_BQ = (t[:, size:] for t in (outputs.oo_BN, outputs.oy_BN, o_BN, y_BN))
    return Seen(
        square_B1 * (oo_BQ - 2.0 * o_BQ + m_B1),
        square_B1 * (oy_BQ - o_BQ - y_BQ + m_B1),
        _around(raw, mean),
    )


def ridge_seen(raw: Projected, mean: TargetMean, target_dim: int, loss: Loss) -> RidgeSeen:
    """Returns what the judge sees of ridge regression on the support, and its loss.

    `loss` is mse or cosine. The mapping of a stream that publishes it is made from its raw pairs
    (`model.serving.rival.as_mapping`). A stream without pairs predicts 0.
    """
    size = raw.g_BSN.shape[1]
    real_BS = raw.real_BN[:, :size]
    k_BNS, c_BNS = centred_sources(raw), _centred_targets(raw, mean)
    dual = fit_dual(k_BNS[:, :size], c_BNS[:, :size], real_BS)
    w_BQS = torch.bmm(k_BNS[:, size:] / dual.unit_B.view(-1, 1, 1), dual.inverse_BSS)
    w_BQS = w_BQS.masked_fill(~real_BS.unsqueeze(1), 0.0)
    seen = Seen(
        (torch.bmm(w_BQS, c_BNS[:, :size]) * w_BQS).sum(2),
        (w_BQS * c_BNS[:, size:]).sum(2),
        _around(raw, mean),
    )
    if loss.kind == "mse":
        loss_BQ = (seen.squared_BQ / target_dim).masked_fill(~raw.real_BN[:, size:], 0.0)
        return RidgeSeen(seen, loss_BQ, dual.missed_BS)
    mm_B1, my_BQ = mean.own_B.unsqueeze(1), mean.y_BN[:, size:]
    onto_mean_BQ = torch.bmm(w_BQS, (mean.y_BN[:, :size] - mm_B1).unsqueeze(2)).squeeze(2)
    oo_BQ = seen.oo_BQ + 2.0 * onto_mean_BQ + mm_B1
    oy_BQ = seen.oy_BQ + onto_mean_BQ + my_BQ
    real_BQ = raw.real_BN[:, size:]
    loss_BQ = cosine_losses(oo_BQ, oy_BQ, raw.yy_BN[:, size:], real_BQ)
    return RidgeSeen(seen, loss_BQ, dual.missed_BS)


def procrustes_seen(raw: Projected, mean: TargetMean) -> Seen:
    """Returns what the judge sees of orthogonal Procrustes on the support."""
    size = raw.g_BSN.shape[1]
    gamma_BSN = raw.gamma_BSN
    real_BS = raw.real_BN[:, :size]
    dual = fit_rotation(raw.g_BSN[:, :, :size], gamma_BSN[:, :, :size], real_BS)
    made_BSQ = torch.bmm(dual.from_sources_BSS, raw.g_BSN[:, :, size:])
    meant_BSQ = torch.bmm(dual.from_targets_BSS, gamma_BSN[:, :, size:])
    mean_BS1 = torch.bmm(dual.from_targets_BSS, mean.y_BN[:, :size].unsqueeze(2))
    oo_BQ = (torch.bmm(dual.inner_BSS, made_BSQ) * made_BSQ).sum(1)
    oy_BQ, om_BQ = (made_BSQ * meant_BSQ).sum(1), (made_BSQ * mean_BS1).sum(1)
    my_BQ, mm_B1 = mean.y_BN[:, size:], mean.own_B.unsqueeze(1)
    return Seen(oo_BQ - 2.0 * om_BQ + mm_B1, oy_BQ - om_BQ - my_BQ + mm_B1, _around(raw, mean))


def too_far_out(raw: Projected, means: Means) -> Tensor:
    """Returns the streams (B) of which centring leaves too little, of sources or of targets."""
    size = raw.g_BSN.shape[1]
    n_B = raw.real_BN[:, :size].sum(1)
    sides = ((raw.g_BSN, means.source.own_B), (raw.gamma_BSN, means.target.own_B))
    far_B = torch.zeros_like(n_B, dtype=torch.bool)
    for gram_BSN, own_B in sides:
        around_B = gram_BSN.diagonal(dim1=1, dim2=2).sum(1) - n_B * own_B
        far_B = far_B | (n_B * own_B > FAR_OUT * around_B)
    return far_B & (n_B > 1)


def centred_sources(raw: Projected) -> Tensor:
    """Returns k (B, N, S): 0 where s is padded (and where n is padded support)."""
    size = raw.g_BSN.shape[1]
    share_BS, real_BS1 = support_share(raw), raw.real_BN[:, :size].unsqueeze(2)
    mean_BN1 = torch.bmm(raw.g_BSN.transpose(1, 2), share_BS.unsqueeze(2))
    mean_B1S = mean_BN1[:, :size].transpose(1, 2)
    mean_B11 = torch.bmm(mean_B1S, share_BS.unsqueeze(2))
    k_BNS = raw.g_BSN.transpose(1, 2) - mean_BN1 - mean_B1S + mean_B11
    k_BNS = k_BNS.masked_fill(~real_BS1.transpose(1, 2), 0.0)
    return torch.cat([k_BNS[:, :size].masked_fill(~real_BS1, 0.0), k_BNS[:, size:]], 1)


def _centred_targets(raw: Projected, mean: TargetMean) -> Tensor:
    """(y_n − m)·(y_s − m) (B, N, S): 0 where s is padded (and where n is padded support)."""
    size = raw.g_BSN.shape[1]
    real_BS1 = raw.real_BN[:, :size].unsqueeze(2)
    out_B1S = (mean.own_B.unsqueeze(1) - mean.y_BN[:, :size]).unsqueeze(1)
    c_BNS = raw.gamma_BSN.transpose(1, 2) - mean.y_BN.unsqueeze(2) + out_B1S
    c_BNS = c_BNS.masked_fill(~real_BS1.transpose(1, 2), 0.0)
    return torch.cat([c_BNS[:, :size].masked_fill(~real_BS1, 0.0), c_BNS[:, size:]], 1)


def _around(raw: Projected, mean: TargetMean) -> Tensor:
    """|y − m|² of the query pairs."""
    size = raw.g_BSN.shape[1]
    own_B1 = mean.own_B.unsqueeze(1)
    return (raw.yy_BN[:, size:] - 2.0 * mean.y_BN[:, size:] + own_B1).clamp(min=0.0)
