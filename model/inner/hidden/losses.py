"""Losses in hidden space, out of inner products alone: gradients to descend by, values to judge by.

B = streams in batch, S = support pairs (padded), N = pairs of a stream (support first; padded),
H = hidden units, E = target dim, A = anchors, V = spanning rows (H + A)

*How to think about it.* A loss of vectors sees them only by lengths and angles, hence by inner
products, and those of outputs and targets are known without a single vector (`coefficients`). The
naive form is `model.losses` on the vectors themselves; tests/model/test_hidden_losses.py compares.

*Gradients.* The losses of `model.losses` but the mse see outputs O and targets Y through
c_ij = u_i·v_j, u = o/√(|o|² + ε), v = y/√(|y|² + ε), and the gradient of n times the loss (n real
pairs) is

    (Σ_j dc_ij·v_j − u_i·Σ_j dc_ij·c_ij)/√(|o_i|² + ε),   dc = ∂(n·L)/∂c

that is diag(b)·O + C·Y with b_i = −Σ_j dc_ij·c_ij/(|o_i|² + ε) and
C_ij = dc_ij/(√(|o_i|² + ε)·√(|y_j|² + ε)): numbers per pair, whatever E is.

*Values.* With ô_n = o_n·V, the output less b2, and ŷ_n = y_n − b2,

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

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.hidden.activation import apply_sigma
from model.inner.hidden.coefficients import Anchors, Columns, targets
from model.inner.hidden.projected import Projected, TargetMean, Terms
from model.inner.units import SideUnits
from model.losses import EPSILON, SAME_TARGET, Loss, ranking_gradient
from model.mappings.mlp import AnyActivation

ROUNDINGS = 8.0
COARSE = 0.01


class Products(NamedTuple):
    """Inner products of a support's outputs and targets, with their biases."""

    oo_BS: Tensor
    oy_BSS: Tensor
    yy_BSS: Tensor


def direction(
    loss: Loss, o: Columns, g: Columns, at: Anchors, real_BS: Tensor
) -> tuple[Tensor, Columns]:
    """Returns the gradient of n times any loss but the mse in the outputs, n being the real pairs.

    Takes the outputs as coefficients `o` and by their products `g` with V; `at` must hold b2. The
    gradient comes back in the same two ways: coefficients (B, S, V), and products with V.
    """
    size = real_BS.shape[1]
    y = Columns(*(p[:, :size] + p[:, size : size + 1] for p in (at.r_BAH, at.gram_BAA)))
    b_BS1, c_BSS = gradient(loss, products(o, g, y), real_BS)
    targets_SA = targets(size, o.a.dtype, o.a.device)
    c_a = torch.baddbmm(b_BS1 * o.a, c_BSS, targets_SA.expand(len(c_BSS), -1, -1))
    g_h, g_a = (torch.baddbmm(b_BS1 * p_o, c_BSS, p_y) for p_o, p_y in zip(g, y, strict=True))
    return torch.cat([b_BS1 * o.h, c_a], 2), Columns(g_h, g_a)


def products(o: Columns, g: Columns, y: Columns) -> Products:
    """Returns the products of outputs (coefficients `o`, products `g`) and targets (`y`)."""
    size = o.h.shape[1]
    oo_BS = (o.h * g.h).sum(2) + (o.a * g.a).sum(2)
    oy_BSS, yy_BSS = (part.a[:, :, :size] + part.a[:, :, size, None] for part in (g, y))
    return Products(oo_BS, oy_BSS, yy_BSS)


def gradient(loss: Loss, products: Products, real_BS: Tensor) -> tuple[Tensor, Tensor]:
    """Returns b (B, S, 1) and C (B, S, S) of the gradient of any loss but the mse."""
    oo_BS, oy_BSS, yy_BSS = products
    inverse_o_BS1 = (oo_BS + EPSILON).rsqrt().unsqueeze(2)
    inverse_y_B1S = (yy_BSS.diagonal(dim1=1, dim2=2) + EPSILON).rsqrt().unsqueeze(1)
    cosines_BSS = oy_BSS * inverse_o_BS1 * inverse_y_B1S
    if loss.kind == "cosine":
        dc_BSS = -torch.eye(oo_BS.shape[1], dtype=oo_BS.dtype, device=oo_BS.device)
    else:
        with torch.no_grad():
            target_cosines_BSS = yy_BSS * inverse_y_B1S * inverse_y_B1S.transpose(1, 2)
            candidates_BSS = candidates(target_cosines_BSS, real_BS)
        dc_BSS = ranking_gradient(loss, cosines_BSS, candidates_BSS)
    b_BS1 = -(dc_BSS * cosines_BSS).sum(2, keepdim=True) * inverse_o_BS1.square()
    return b_BS1, dc_BSS * inverse_o_BS1 * inverse_y_B1S


def candidates(cosines_BSS: Tensor, real_BS: Tensor) -> Tensor:
    """Returns where target j is pair i's own or one of its negatives (B, S, S)."""
    own_SS = torch.eye(cosines_BSS.shape[1], dtype=torch.bool, device=cosines_BSS.device)
    other_BSS = cosines_BSS <= SAME_TARGET
    return (other_BSS | own_SS) & real_BS.unsqueeze(1) & real_BS.unsqueeze(2)


class Outputs(NamedTuple):
    """What losses see of outputs less b2, ô, pair by pair."""

    oo_BN: Tensor
    """|ô|²."""
    oy_BN: Tensor
    """ô·ŷ."""
    ob_BN: Tensor
    """ô·b2."""


class RawTargets(NamedTuple):
    """What losses see of targets y in units of their own, and of outputs by their mean m."""

    units: SideUnits
    mean: TargetMean
    om_BN: Tensor
    """ô·m."""
    yy_BN: Tensor
    """|y|²."""


def losses_from(terms: Terms, projected: Projected, outputs: Outputs, loss: Loss) -> Tensor:
    """Returns the loss of each pair (B, N), mse or cosine; 0 on padded pairs."""
    oo_BN, oy_BN, ob_BN = outputs
    if loss.kind == "mse":
        # rounding may leave less than nothing of a square
        squared_BN = (oo_BN - 2.0 * oy_BN + projected.yy_BN).clamp(min=0.0)
        return (squared_BN / len(terms.w2)).masked_fill(~projected.real_BN, 0.0)
    oo_BN = oo_BN + 2.0 * ob_BN + terms.bb
    oy_BN = oy_BN + ob_BN + projected.t_BN + terms.bb
    return cosine_losses(oo_BN, oy_BN, _targets_squared(terms, projected), projected.real_BN)


def losses_out_of_units(
    terms: Terms,
    projected: Projected,
    outputs: Outputs,
    loss: Loss,
    raw: RawTargets,
) -> Tensor:
    """Returns the loss of each pair (B, N) by outputs s·(ô + b2) + c, mse or cosine, at targets y.

    `projected` and `outputs` are those of ŷ = (y − c)/s − b2, see `model.inner.hidden.projected`.
    """
    s_B1, w_B1 = (unit_B.unsqueeze(1) for unit_B in raw.units)
    if loss.kind == "mse":
        return losses_from(terms, projected, outputs, loss) * s_B1.square()
    mean_B1 = raw.mean.own_B.unsqueeze(1)
    oc_BN = w_B1 * s_B1 * (raw.om_BN + raw.mean.t_B.unsqueeze(1))
    yc_BN = w_B1 * (raw.mean.y_BN - w_B1 * mean_B1)
    cc_B1 = w_B1.square() * mean_B1
    pp_BN = outputs.oo_BN + 2.0 * outputs.ob_BN + terms.bb
    pq_BN = outputs.oy_BN + outputs.ob_BN + projected.t_BN + terms.bb
    oo_BN = s_B1.square() * pp_BN + 2.0 * oc_BN + cc_B1
    oy_BN = s_B1.square() * pq_BN + oc_BN + yc_BN + cc_B1
    return cosine_losses(oo_BN, oy_BN, raw.yy_BN, projected.real_BN)


def cosine_losses(oo_BN: Tensor, oy_BN: Tensor, yy_BN: Tensor, real_BN: Tensor) -> Tensor:
    """Returns 1 − the cosine of outputs o and targets y (B, N); 0 on padded pairs."""
    inverse_BN = (oo_BN.clamp(min=0.0) + EPSILON).rsqrt() * (yy_BN.clamp(min=0.0) + EPSILON).rsqrt()
    return (1.0 - oy_BN * inverse_BN).masked_fill(~real_BN, 0.0)


def losses_of_theta(
    terms: Terms,
    projected: Projected,
    loss: Loss,
    activation: AnyActivation,
    mm: Callable[[Tensor, Tensor], Tensor] = torch.mm,
) -> Tensor:
    """Returns the loss by θ (B, N) of every pair, support and query alike, alone in its stream.

    It depends on the pair alone, so it can be made once, when the pair arrives. `loss` is mse or
    cosine (`model.losses.judged_by`); `mm` multiplies rows, one for each pair, with a matrix.
    """
    h_BNH = apply_sigma(activation, projected.p_BNH)
    f_BNH = mm(h_BNH.view(-1, len(terms.m_HH)), terms.m_HH).view(h_BNH.shape)
    products = (h_BNH * f_BNH, h_BNH * projected.r_BNH, h_BNH * terms.w2b_H)
    return losses_from(terms, projected, Outputs(*(each.sum(2) for each in products)), loss)


def unreliable(terms: Terms, projected: Projected, loss: Loss, *losses_BN: Tensor) -> Tensor:
    """Returns which streams' losses, any number of (B, N), are too coarse to judge by (B)."""
    size = projected.g_BSN.shape[1]
    error_BN = _rounding(terms, projected, loss) / COARSE
    coarse = [
        side.sum(1) > 0.0
        for loss_BN in losses_BN
        for side in torch.split(error_BN - loss_BN, [size, error_BN.shape[1] - size], 1)
    ]
    return torch.stack(coarse).any(0)


def _rounding(terms: Terms, projected: Projected, loss: Loss) -> Tensor:
    """What a small loss may be off by, beyond its error in the target space (B, N)."""
    each = ROUNDINGS * torch.finfo(projected.yy_BN.dtype).eps / 2.0
    if loss.kind == "mse":
        # of y or of b2, whichever was larger before they cancelled
        own_BN = torch.maximum(projected.yy_BN, _targets_squared(terms, projected))
        sizes_BN = torch.maximum(own_BN, terms.bb) / len(terms.w2)
    else:
        sizes_BN = (projected.yy_BN + terms.bb) / (_targets_squared(terms, projected) + EPSILON)
        sizes_BN = (sizes_BN - 1.0).clamp(min=0.0)
    return (each * sizes_BN).masked_fill(~projected.real_BN, 0.0)


def _targets_squared(terms: Terms, projected: Projected) -> Tensor:
    """|y|² (B, N)."""
    return (projected.yy_BN + 2.0 * projected.t_BN + terms.bb).clamp(min=0.0)
