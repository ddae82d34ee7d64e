"""The loss of each pair, by θ and by θ′, out of products alone; and when those are too coarse.

C = streams in a chunk, S = support pairs (padded), N = S + queries (padded), H = hidden,
E = target dim, A = anchors (`model.inner.hidden.loop`)

With ô_n = o_n·V, the output less b2, and ŷ_n = y_n − b2,

    |ô|² = o·V·Vᵀ·oᵀ,  ô·ŷ = o·[r, γ],  ô·b2 = o·[W2ᵀb2, t]

    mse     |ô − ŷ|²/E
    cosine  1 − (ô + b2)·(ŷ + b2)/(√(|ô + b2|² + ε)·√(|ŷ + b2|² + ε))

*When products are too coarse.* |ô − ŷ|² = |ô|² − 2·ô·ŷ + |ŷ|² is what is left when terms of size
|ô|² + |ŷ|² ≈ 2·|ŷ|² cancel, each off by about a rounding error u (2⁻²⁴ in float32) of its size; the
sums' lengths hardly matter, errors have both signs. So a small mse is off by R·u·|ŷ|²/E, where
R = ROUNDINGS bounds what was measured (tests/model/test_hidden_coarse.py). A cosine near 1 is off
by R·u·ρ, ρ = (|ŷ|² + |b2|²)/|ŷ + b2|²: by R·u anyway, in the target space as well, and by more
where b2 cancels. A stream whose mean loss on the support or the query, before or after, may be off
by more than COARSE of itself is one to adapt and judge in the target space. What is coarse then is
the judgement: the descent errs no more than there, for D·W2 is one difference in both, and D·Dᵀ,
which cancels, is multiplied with a step.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.hidden.activation import forward
from model.inner.hidden.loop import Descent, Projected, Terms, anchors_of
from model.inner.hidden.span import NEW, Buffers, Parts, moved, onto_hidden, parts
from model.inner.hidden.workspace import JudgingSpace
from model.losses import EPSILON, Loss
from model.mappings.mlp import AnyActivation

ROUNDINGS = 8.0
COARSE = 0.01


class Outputs(NamedTuple):
    """What losses see of outputs less b2, pair by pair."""

    oo_CN: Tensor
    """|ô|²."""
    oy_CN: Tensor
    """ô·ŷ."""
    ob_CN: Tensor
    """ô·b2."""


def pair_losses(
    terms: Terms,
    projected: Projected,
    descent: Descent | None,
    loss: Loss,
    activation: AnyActivation,
    space: JudgingSpace | None = None,
) -> Tensor:
    """The loss of every pair (C, N), support and query alike: that of a stream which has this pair
    alone, by θ (None) or θ′. `loss` is mse or cosine (`model.losses.judged_by`).

    θ's depend on the pair alone: they can be made once, when it arrives.
    """
    if descent is None:
        outputs = _unadapted(terms, projected, activation)
    else:
        head = descent.head
        shape = (*projected.p_CNH.shape, head.sums.a.shape[2], head.h_CJH.shape[1])
        into = space.of(shape, projected.p_CNH) if space else NEW
        outputs = _adapted(terms, projected, descent, into)
    return loss_of(terms, projected, outputs, loss)


def loss_of(terms: Terms, projected: Projected, outputs: Outputs, loss: Loss) -> Tensor:
    """mse or cosine (C, N); 0 on padded pairs."""
    oo_CN, oy_CN, ob_CN = outputs
    if loss.kind == "mse":
        # rounding may leave less than nothing of a square
        squared_CN = (oo_CN - 2.0 * oy_CN + projected.yy_CN).clamp(min=0.0)
        return (squared_CN / len(terms.w2)).masked_fill(~projected.real_CN, 0.0)
    oo_CN = (oo_CN + 2.0 * ob_CN + terms.bb).clamp(min=0.0)
    yy_CN = _targets_squared(terms, projected)
    oy_CN = oy_CN + ob_CN + projected.t_CN + terms.bb
    cosine_CN = oy_CN * (oo_CN + EPSILON).rsqrt() * (yy_CN + EPSILON).rsqrt()
    return (1.0 - cosine_CN).masked_fill(~projected.real_CN, 0.0)


def unreliable(terms: Terms, projected: Projected, loss: Loss, *losses_CN: Tensor) -> Tensor:
    """Which streams' losses, as `pair_losses` gave them, are too coarse to judge by (C); above."""
    size = projected.g_CSN.shape[1]
    error_CN = _rounding(terms, projected, loss) / COARSE
    coarse = [
        side.sum(1) > 0.0
        for loss_CN in losses_CN
        for side in torch.split(error_CN - loss_CN, [size, error_CN.shape[1] - size], 1)
    ]
    return torch.stack(coarse).any(0)


def _rounding(terms: Terms, projected: Projected, loss: Loss) -> Tensor:
    """What a small loss may be off by, beyond what it is in the target space (C, N)."""
    each = ROUNDINGS * torch.finfo(projected.yy_CN.dtype).eps / 2.0
    if loss.kind == "mse":
        sizes_CN = projected.yy_CN / len(terms.w2)
    else:
        sizes_CN = (projected.yy_CN + terms.bb) / (_targets_squared(terms, projected) + EPSILON)
        sizes_CN = (sizes_CN - 1.0).clamp(min=0.0)
    return (each * sizes_CN).masked_fill(~projected.real_CN, 0.0)


def _targets_squared(terms: Terms, projected: Projected) -> Tensor:
    """|y|² (C, N)."""
    return (projected.yy_CN + 2.0 * projected.t_CN + terms.bb).clamp(min=0.0)


def _unadapted(terms: Terms, projected: Projected, activation: AnyActivation) -> Outputs:
    h_CNH = forward(activation, projected.p_CNH)
    f_CNH = torch.mm(h_CNH.view(-1, len(terms.m_HH)), terms.m_HH).view(h_CNH.shape)
    oo_CN, oy_CN = (h_CNH * f_CNH).sum(2), (h_CNH * projected.r_CNH).sum(2)
    return Outputs(oo_CN, oy_CN, h_CNH @ terms.w2b_H)


def _adapted(terms: Terms, projected: Projected, descent: Descent, into: Buffers) -> Outputs:
    h_CNH = hidden_features(projected.p_CNH, projected.g_CSN, descent, into)
    size, anchors = projected.g_CSN.shape[1], descent.head.c_CJV.shape[2] - len(terms.m_HH)
    at = anchors_of(terms, projected, with_bias=anchors > size)
    nothing_CNA = h_CNH.new_zeros(()).expand(*h_CNH.shape[:2], anchors)
    c_CNV = moved(h_CNH, nothing_CNA, descent.head, into)
    c = into.c_parts or parts(c_CNV, len(terms.m_HH))
    f_CNH = onto_hidden(c, terms.m_HH, at, into, anchored=2.0)
    u_CNA = torch.bmm(c.a, at.gram_CAA, out=into.u)
    oo_CN = _dots(c.h, f_CNH, into.z) + _dots(c.a, u_CNA, into.u)
    y = _targets(projected, c)
    oy_CN = _dots(c.h, y.h, into.z) + _dots(c.a, y.a, into.u)
    return Outputs(oo_CN, oy_CN, c.h @ terms.w2b_H + _onto_bias(terms, projected, c.a))


def _dots(a_CNX: Tensor, b_CNX: Tensor, out: Tensor | None) -> Tensor:
    """Row by row (C, N)."""
    return torch.mul(a_CNX, b_CNX, out=out).sum(2)


def hidden_features(p_CNH: Tensor, g_CSN: Tensor, descent: Descent, into: Buffers = NEW) -> Tensor:
    """σ(W1′·x + b1′) of any pairs (C, N, H)."""
    z_CNH = torch.add(p_CNH, descent.beta_CH.unsqueeze(1), out=into.z)
    z_CNH = torch.baddbmm(z_CNH, g_CSN.transpose(1, 2), descent.a_CSH, out=into.z)
    return forward(descent.objective.activation, z_CNH, into.h, into.dz)


def _targets(projected: Projected, c: Parts) -> Parts:
    """ŷ's products with V."""
    gamma_CNS, missing = projected.gamma_CSN.transpose(1, 2), c.a.shape[2]
    if missing == gamma_CNS.shape[2]:
        return Parts(projected.r_CNH, gamma_CNS)
    a_CNA = torch.cat([gamma_CNS, projected.t_CN.unsqueeze(2)], 2)
    a_CNA = torch.nn.functional.pad(a_CNA, (0, missing - a_CNA.shape[2]))
    return Parts(projected.r_CNH, a_CNA)


def _onto_bias(terms: Terms, projected: Projected, c_CNA: Tensor) -> Tensor:
    """The anchors' part of ô·b2 (C, N)."""
    size = projected.g_CSN.shape[1]
    t_CS1 = projected.t_CN[:, :size].unsqueeze(2)
    own_CN = torch.bmm(c_CNA[:, :, :size], t_CS1).squeeze(2)
    return own_CN if c_CNA.shape[2] == size else own_CN + c_CNA[:, :, size] * terms.bb
