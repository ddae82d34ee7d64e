"""θ and pairs as the inner loop in hidden space sees them: by inner products, made once per pair.

B = streams in batch, S = support pairs (padded), N = pairs of a stream (support first; padded),
D = source dim, H = hidden units, E = target dim, A = anchors

`model.inner.hidden.descent` says why these products are enough. ŷ = y − b2 throughout, but for
what serving keeps: pairs are projected when they arrive, and in which units they will be adapted to
(`model.inner.units`) is not known then. So x and y themselves are projected, and `in_units` makes
the products of x̂ = (x − w·x̄)/r and of ŷ = (y − c)/s − b2 out of those, with x̄ and m the support's
means and c a share of m:

    W1·x̂ + b1 = (p − w·(p̄ − b1))/r + (1 − 1/r)·b1,  x̂·x̂′ = (x − w·x̄)·(x′ − w·x̄)/r²
    ŷ·W2 = (y − c)·W2/s − b2·W2,  ŷ·b2 = (y − c)·b2/s − b2·b2
    ŷ·ŷ′ = (y − c)·(y′ − c)/s² − (y − c)·b2/s − (y′ − c)·b2/s + b2·b2

Where θ tells the mean μ of its usual sources, w·μ is added to x̂: its products come from x·μ.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.inner.batched import Objective
from model.inner.hidden.coefficients import (
    Anchors,
    anchors,
    anchors_with_bias,
    bias,
    minus_targets,
)
from model.inner.units import (
    SideUnits,
    Sums,
    Units,
    UsualSums,
    moves_any,
    source_units,
    target_units,
)
from model.losses import Loss
from model.mappings.mlp import AnyActivation, Mlp


class Terms(NamedTuple):
    """θ's parameters, and the products of its second layer with itself."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    m_HH: Tensor
    """W2ᵀ·W2."""
    w2b_H: Tensor
    """W2ᵀ·b2."""
    bb: Tensor
    """b2·b2, a scalar."""


class Projected(NamedTuple):
    """The pairs of B streams; support pairs come first, and whatever is padding is 0."""

    p_BNH: Tensor
    """W1·x + b1."""
    r_BNH: Tensor
    """W2ᵀ·ŷ."""
    t_BN: Tensor
    """ŷ·b2."""
    g_BSN: Tensor
    """x_s·x_n."""
    gamma_BSN: Tensor
    """ŷ_s·ŷ_n."""
    yy_BN: Tensor
    """ŷ_n·ŷ_n."""
    real_BN: Tensor
    """True on real pairs."""


class Chunk(NamedTuple):
    """The support of B streams as the steps see it, and what the steps lower."""

    p_BSH: Tensor
    g_BSS: Tensor
    real_BS: Tensor
    weight_BS: Tensor
    """Minus what every pair's gradient is multiplied with; 0 on padded pairs."""
    at: Anchors
    own_BSA: Tensor
    """The anchors' part of the coefficients at θ: −ŷ for the mse, b2 for losses of outputs."""
    m_HH: Tensor
    loss: Loss
    activation: AnyActivation


def terms(theta: Mlp) -> Terms:
    """Returns what every descent from θ shares; differentiable."""
    w2, b2 = theta.w2, theta.b2
    return Terms(*theta, m_HH=w2.T @ w2, w2b_H=b2 @ w2, bb=b2 @ b2)


def project(terms: Terms, x_BND: Tensor, y_BNE: Tensor, real_BN: Tensor, support: int) -> Projected:
    """Returns the projections of raw pairs, whatever stands in padded ones (NaN included).

    The first `support` pairs of each stream are its support.
    """
    real_BN1 = real_BN.unsqueeze(2)
    x_BND = torch.where(real_BN1, x_BND, 0.0)
    y_hat_BNE = torch.where(real_BN1, y_BNE - terms.b2, 0.0)
    return Projected(
        p_BNH=torch.where(real_BN1, functional.linear(x_BND, terms.w1, terms.b1), 0.0),
        r_BNH=y_hat_BNE @ terms.w2,
        t_BN=y_hat_BNE @ terms.b2,
        g_BSN=torch.bmm(x_BND[:, :support], x_BND.transpose(1, 2)),
        gamma_BSN=torch.bmm(y_hat_BNE[:, :support], y_hat_BNE.transpose(1, 2)),
        yy_BN=y_hat_BNE.square().sum(2),
        real_BN=real_BN,
    )


def project_to_learn(terms: Terms, x_BSD: Tensor, y_BSE: Tensor, real_BS: Tensor) -> Projected:
    """Returns the projections of a support alone (N = S), made so that θ's gradient is cheap.

    Padded pairs must hold 0; their p is b1, which counts for nothing. b2 is taken from products
    instead of from targets, so that its gradient is no product of targets.
    """
    one_BS = real_BS.to(y_BSE.dtype)
    yb_BS = y_BSE @ terms.b2
    gamma_BSS = torch.bmm(y_BSE, y_BSE.transpose(1, 2)) - _outer(yb_BS, one_BS)
    gamma_BSS = gamma_BSS - _outer(one_BS, yb_BS - terms.bb * one_BS)
    return Projected(
        p_BNH=functional.linear(x_BSD, terms.w1, terms.b1),
        r_BNH=y_BSE @ terms.w2 - one_BS.unsqueeze(2) * terms.w2b_H,
        t_BN=yb_BS - terms.bb * one_BS,
        g_BSN=torch.bmm(x_BSD, x_BSD.transpose(1, 2)),
        gamma_BSN=gamma_BSS,
        yy_BN=gamma_BSS.diagonal(dim1=1, dim2=2),
        real_BN=real_BS,
    )


class UsualProducts(NamedTuple):
    """μ, the mean of the sources that θ was trained on, by its products."""

    x_BN: Tensor
    """μ·x_n; 0 on padded pairs."""
    p_H: Tensor
    """W1·μ."""
    own: Tensor
    """μ·μ, a scalar."""
    spread: float


class SourceMean(NamedTuple):
    """x̄, the mean of the support's sources, by its products."""

    x_BN: Tensor
    """x̄·x_n; 0 on padded pairs."""
    own_B: Tensor
    """x̄·x̄."""
    p_B1H: Tensor
    """W1·x̄ + b1."""
    usual: UsualProducts | None
    """None where θ does not tell its usual sources, or has all standardised."""
    onto_usual_B: Tensor
    """x̄·μ; 0 where that is None."""


class TargetMean(NamedTuple):
    """m, the mean of the support's targets, by its products."""

    y_BN: Tensor
    """m·y_n; 0 on padded pairs."""
    own_B: Tensor
    """m·m."""
    r_B1H: Tensor
    """W2ᵀ·m."""
    t_B: Tensor
    """m·b2."""


class Means(NamedTuple):
    """The support's means; 0 without pairs."""

    source: SourceMean
    target: TargetMean


def means_of(raw: Projected, usual: UsualProducts | None = None) -> Means:
    """Returns the support's means from projections of x and y themselves."""
    size = raw.g_BSN.shape[1]
    share_BS = support_share(raw)
    share_B1S = share_BS.unsqueeze(1)
    x_BN, y_BN = (torch.bmm(share_B1S, t).squeeze(1) for t in (raw.g_BSN, raw.gamma_BSN))
    x_own_B, y_own_B = ((share_BS * t[:, :size]).sum(1) for t in (x_BN, y_BN))
    p_B1H, r_B1H = (torch.bmm(share_B1S, t[:, :size]) for t in (raw.p_BNH, raw.r_BNH))
    t_B = (share_BS * raw.t_BN[:, :size]).sum(1)
    onto_usual_B = torch.zeros_like(t_B)
    if usual is not None:
        onto_usual_B = (share_BS * usual.x_BN[:, :size]).sum(1)
    return Means(
        SourceMean(x_BN, x_own_B, p_B1H, usual, onto_usual_B),
        TargetMean(y_BN, y_own_B, r_B1H, t_B),
    )


def support_share(projected: Projected) -> Tensor:
    """Returns 1/n on real support pairs and 0 on padded ones (B, S)."""
    one_BS = projected.real_BN[:, : projected.g_BSN.shape[1]].to(projected.p_BNH.dtype)
    return one_BS / one_BS.sum(1, keepdim=True).clamp(min=1.0)


def units_of(raw: Projected, means: Means, dims: tuple[int, int], *, standardise: bool) -> Units:
    """Returns the units of every stream's pairs, as `model.inner.units.frame_of` does.

    `dims` are those of sources and targets.
    """
    size = raw.g_BSN.shape[1]
    n_B = raw.real_BN[:, :size].sum(1).to(raw.p_BNH.dtype)
    grams = ((raw.g_BSN, means.source.own_B), (raw.gamma_BSN, means.target.own_B))
    source, target = (_sums(n_B, gram_BSN, own_B) for gram_BSN, own_B in grams)
    beside = None
    if means.source.usual is not None:
        usual = means.source.usual
        beside = UsualSums(means.source.onto_usual_B, usual.own, usual.spread)
    return Units(
        source_units(source, dims[0], standardise=standardise, usual=beside),
        target_units(target, dims[1]),
    )


def _sums(n_B: Tensor, gram_BSN: Tensor, own_B: Tensor) -> Sums:
    squares_B = gram_BSN.diagonal(dim1=1, dim2=2).sum(1)
    return Sums(n_B, (squares_B - n_B * own_B).clamp(min=0.0), own_B)


def in_units(terms: Terms, raw: Projected, means: Means, units: Units) -> Projected:
    """Returns the projections of x̂ and ŷ from those of x and y."""
    return _targets_in_units(
        terms, _sources_in_units(terms, raw, means.source, units.source), means.target, units.target
    )


def _sources_in_units(
    terms: Terms, raw: Projected, mean: SourceMean, units: SideUnits
) -> Projected:
    if not moves_any(units):
        return raw
    share_B1, scale_B11 = units.share_B.unsqueeze(1), units.scale_B.view(-1, 1, 1)
    moved_BNH = raw.p_BNH - share_B1.unsqueeze(2) * (mean.p_B1H - terms.b1)
    p_BNH = moved_BNH / scale_B11 + (1.0 - 1.0 / scale_B11) * terms.b1
    g_BSN = _less_mean(raw.g_BSN, mean.x_BN, mean.own_B, share_B1) / scale_B11 / scale_B11
    if mean.usual is not None:
        usual, size = mean.usual, raw.g_BSN.shape[1]
        p_BNH = p_BNH + share_B1.unsqueeze(2) * usual.p_H
        less_BN = usual.x_BN - share_B1 * mean.onto_usual_B.unsqueeze(1)
        moved_BN = share_B1 * (less_BN / scale_B11.squeeze(2) + 0.5 * share_B1 * usual.own)
        g_BSN = g_BSN + moved_BN[:, :size].unsqueeze(2) + moved_BN.unsqueeze(1)
    return raw._replace(
        p_BNH=p_BNH.masked_fill(~raw.real_BN.unsqueeze(2), 0.0),
        g_BSN=g_BSN.masked_fill(~_real_products(raw), 0.0),
    )


def _targets_in_units(
    terms: Terms, raw: Projected, mean: TargetMean, units: SideUnits
) -> Projected:
    size, real_BN = raw.g_BSN.shape[1], raw.real_BN
    s_B1, w_B1 = units.scale_B.unsqueeze(1), units.share_B.unsqueeze(1)
    s_B11, w_B11 = s_B1.unsqueeze(2), w_B1.unsqueeze(2)
    t_BN = (raw.t_BN - w_B1 * mean.t_B.unsqueeze(1)) / s_B1
    r_BNH = (raw.r_BNH - w_B11 * mean.r_B1H) / s_B11 - terms.w2b_H
    gamma_BSN = _less_mean(raw.gamma_BSN, mean.y_BN, mean.own_B, w_B1)
    gamma_BSN = gamma_BSN / s_B11 / s_B11 - t_BN[:, :size].unsqueeze(2)
    gamma_BSN = gamma_BSN - (t_BN - terms.bb).unsqueeze(1)
    squares_BN = raw.yy_BN + w_B1 * (w_B1 * mean.own_B.unsqueeze(1) - 2.0 * mean.y_BN)
    yy_BN = squares_BN / s_B1 / s_B1 - 2.0 * t_BN + terms.bb
    return raw._replace(
        r_BNH=r_BNH.masked_fill(~real_BN.unsqueeze(2), 0.0),
        t_BN=(t_BN - terms.bb).masked_fill(~real_BN, 0.0),
        gamma_BSN=gamma_BSN.masked_fill(~_real_products(raw), 0.0),
        yy_BN=yy_BN.masked_fill(~real_BN, 0.0),
    )


def _less_mean(gram_BSN: Tensor, onto_BN: Tensor, own_B: Tensor, share_B1: Tensor) -> Tensor:
    """Products of what is left when a share w of the mean m is subtracted: x·x′ − w·m·x − w·m·x′ +
    w²·m·m."""
    size = gram_BSN.shape[1]
    out_BN = share_B1 * (share_B1 * own_B.unsqueeze(1) - onto_BN)
    return gram_BSN + out_BN.unsqueeze(1) - (share_B1 * onto_BN[:, :size]).unsqueeze(2)


def _real_products(raw: Projected) -> Tensor:
    real_BN = raw.real_BN
    return real_BN[:, : raw.g_BSN.shape[1]].unsqueeze(2) & real_BN.unsqueeze(1)


def less_bias(terms: Terms, raw: Projected) -> Projected:
    """Returns the projections of ŷ = y − b2 from those of y, all but the Gram of targets."""
    return raw._replace(
        r_BNH=raw.r_BNH - terms.w2b_H,
        t_BN=(raw.t_BN - terms.bb).masked_fill(~raw.real_BN, 0.0),
        yy_BN=(raw.yy_BN - 2.0 * raw.t_BN + terms.bb).masked_fill(~raw.real_BN, 0.0),
    )


def _outer(a_BS: Tensor, b_BS: Tensor) -> Tensor:
    """a·bᵀ (B, S, S)."""
    return a_BS.unsqueeze(2) * b_BS.unsqueeze(1)


def chunk_of(terms: Terms, projected: Projected, objective: Objective) -> Chunk:
    """Returns the support of `projected`.

    Raises ValueError for an output activation: outputs are then no combination of V's rows.
    """
    if objective.output_activation != "none":
        raise ValueError(f"no hidden space behind output_activation {objective.output_activation}")
    loss, size = objective.loss, projected.g_BSN.shape[1]
    p_BSH, real_BS = projected.p_BNH[:, :size], projected.real_BN[:, :size]
    own = minus_targets if loss.kind == "mse" else bias
    return Chunk(
        p_BSH=p_BSH,
        g_BSS=projected.g_BSN[:, :, :size],
        real_BS=real_BS,
        weight_BS=pair_weights(loss, len(terms.w2), real_BS, p_BSH.dtype),
        at=anchors_of(terms, projected, with_bias=loss.kind != "mse"),
        own_BSA=own(size, p_BSH.dtype, p_BSH.device).expand(len(p_BSH), -1, -1),
        m_HH=terms.m_HH,
        loss=loss,
        activation=objective.activation,
    )


def anchors_of(terms: Terms, projected: Projected, *, with_bias: bool) -> Anchors:
    """Returns the support's targets as anchors, with b2 for losses that see outputs with it."""
    size = projected.g_BSN.shape[1]
    r_BSH, gamma_BSS = projected.r_BNH[:, :size], projected.gamma_BSN[:, :, :size]
    if not with_bias:
        return anchors(r_BSH, gamma_BSS)
    t_BS = projected.t_BN[:, :size]
    return anchors_with_bias(r_BSH, gamma_BSS, t_BS, terms.w2b_H, terms.bb)


def pair_weights(loss: Loss, target_dim: int, real_BS: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns minus what every pair's gradient is multiplied with (B, S); 0 on padded pairs."""
    scale = -2.0 / target_dim if loss.kind == "mse" else -1.0
    one_BS = real_BS.to(dtype)
    return one_BS * (scale / one_BS.sum(1, keepdim=True).clamp_(min=1.0))
