"""The head alone in hidden space: ANIL's steps, R2D2's and ALPaCA's closed form.

B = streams in batch, S = support pairs (padded), H = hidden units, E = target dim, K = inner steps,
A = anchors, V = spanning rows (S + A), U = numbers of an embedding (rows of the covariance
factor)

*How to think about it.* W1 and b1 stay, so hidden features are those of θ at every step. All steps
together move W2 by combinations of D_kᵀ·H with one H, and D_k lies in the span of θ's own outputs
Ô_0 = H·W2ᵀ and the anchors: S + A rows. With those for V, the algebra of
`model.inner.hidden.descent` stays as it is, with I for H, H·M·Hᵀ for M and H·Rᵀ for Rᵀ, and costs
S³ per step, whatever H. In the end c·[H, 0; 0, I] are coefficients on [W2ᵀ; anchors]. The naive
forms are `model.inner.sgd.HeadSteps` and `model.inner.ridge_head.RidgeHead`, which
tests/model/test_hidden.py compares with.
"""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.hidden.activation import apply_sigma
from model.inner.hidden.coefficients import (
    Anchors,
    Columns,
    anchors,
    columns,
    head_of,
    minus_targets,
)
from model.inner.hidden.descent import Descent, finite_streams
from model.inner.hidden.losses import direction
from model.inner.hidden.projected import Chunk, Projected, Terms, chunk_of
from model.inner.ridge_head import kernel_features
from model.losses import MSE


def descend_head(
    terms: Terms,
    projected: Projected,
    rates_K2: Tensor,
    objective: Objective,
    first_order: bool = False,
) -> Descent:
    """Takes K gradient steps of W2 and b2 alone, and returns θ′ (Raghu et al. 2020).

    Columns of `rates_K2` are w2, b2. Differentiable; with `first_order` inner gradients are taken
    for constants. Raises ValueError for an output activation.
    """
    chunk = chunk_of(terms, projected, objective)
    size = chunk.p_BSH.shape[1]
    with torch.no_grad() if first_order else nullcontext():
        h_BSH = apply_sigma(objective.activation, chunk.p_BSH)
        t_BSS = torch.bmm(h_BSH, h_BSH.transpose(1, 2))
        among = _among_outputs(chunk, h_BSH, terms.m_HH)
    weights_K2BS = rates_K2.view(-1, 2, 1, 1) * chunk.weight_BS
    steps_BSV = sums_B1V = torch.zeros_like(among.own_BSV[:, :1])
    for w2_BS, b2_BS in weights_K2BS.unbind():
        with torch.no_grad() if first_order else nullcontext():
            c_BSV = among.own_BSV + sums_B1V + torch.bmm(t_BSS, steps_BSV.expand_as(among.own_BSV))
            if chunk.loss.kind != "mse":
                o = columns(c_BSV, size)
                c_BSV, _ = direction(chunk.loss, o, _products(among, o), among.at, chunk.real_BS)
        steps_BSV = steps_BSV + c_BSV * w2_BS.unsqueeze(2)
        sums_B1V = sums_B1V + torch.bmm(b2_BS.unsqueeze(1), c_BSV)
    found = _descent(chunk, h_BSH, steps_BSV, sums_B1V, objective)
    return found._replace(first_order=first_order)


def solve_head(
    terms: Terms,
    projected: Projected,
    log_penalties_2: Tensor,
    objective: Objective,
    factor_UH: Tensor | None = None,
) -> Descent:
    """Solves for W2 and b2 in closed form, and returns θ′ (Bertinetto et al. 2019).

    With a covariance factor that is ALPaCA's. The penalties and the equations are those of
    `model.inner.ridge_head`; the loss is the mse whatever `objective` says. Differentiable. Raises
    ValueError for an output activation.
    """
    chunk = chunk_of(terms, projected, objective._replace(loss=MSE))
    real_BS1 = chunk.real_BS.unsqueeze(2)
    h_BSH = apply_sigma(objective.activation, chunk.p_BSH).masked_fill(~real_BS1, 0.0)
    precision_w, precision_b = (-log_penalties_2).exp().unbind()
    ones_BS1 = real_BS1.to(h_BSH.dtype)
    phi_BSU, moved_BSH = kernel_features(h_BSH, factor_UH)
    gram_BSS = torch.bmm(phi_BSU, phi_BSU.transpose(1, 2)) * precision_w
    gram_BSS = gram_BSS + torch.bmm(ones_BS1, ones_BS1.transpose(1, 2)) * precision_b
    minus_SS = minus_targets(gram_BSS.shape[1], gram_BSS.dtype, gram_BSS.device)
    # −(I + …)⁻¹ on real pairs: the residual Y − O is minus that of which θ's c is [I, −I]
    inverse_BSS = torch.linalg.solve_ex(gram_BSS - minus_SS, ones_BS1 * minus_SS).result
    c_BSV = torch.cat([inverse_BSS, -inverse_BSS], 2)
    sums_B1V = c_BSV.sum(1, keepdim=True) * precision_b
    return _descent(chunk, h_BSH, c_BSV * precision_w, sums_B1V, objective, moved_BSH)


class Among(NamedTuple):
    """Products of V with θ's own outputs in W2ᵀ's place."""

    own_BSV: Tensor
    """The coefficients of θ's outputs (mse: less the targets)."""
    gram_BSS: Tensor
    """Ô_0·Ô_0ᵀ."""
    at: Anchors


def _among_outputs(chunk: Chunk, h_BSH: Tensor, m_HH: Tensor) -> Among:
    streams, size = chunk.real_BS.shape
    identity_SS = torch.eye(size, dtype=h_BSH.dtype, device=h_BSH.device)
    own_BSV = torch.cat([identity_SS.expand(streams, -1, -1), chunk.own_BSA], 2)
    h_BHS = h_BSH.transpose(1, 2)
    return Among(
        own_BSV,
        torch.bmm(torch.matmul(h_BSH, m_HH), h_BHS),
        anchors(torch.bmm(chunk.at.r_BAH, h_BHS), chunk.at.gram_BAA),
    )


def _products(among: Among, o: Columns) -> Columns:
    r_BAS, r_BSA, gram_BAA = among.at
    return Columns(
        torch.baddbmm(torch.bmm(o.h, among.gram_BSS), o.a, r_BAS),
        torch.baddbmm(torch.bmm(o.h, r_BSA), o.a, gram_BAA),
    )


def _descent(
    chunk: Chunk,
    h_BSH: Tensor,
    steps_BSV: Tensor,
    sums_B1V: Tensor,
    objective: Objective,
    moved_BSH: Tensor | None = None,
) -> Descent:
    """θ′, from coefficients on Ô_0 = H·W2ᵀ and the anchors; W2 moves by H's rows, or others."""
    size = h_BSH.shape[1]
    c_BSV, sums_B1V = (
        torch.cat([torch.bmm(v[:, :, :size], h_BSH), v[:, :, size:]], 2)
        for v in (steps_BSV, sums_B1V)
    )
    a_BSH = torch.zeros_like(h_BSH)
    # coefficients need not have met the targets
    healthy_B = finite_streams(torch.cat([sums_B1V, chunk.at.gram_BAA.sum(1, keepdim=True)], 2))
    head = head_of(h_BSH if moved_BSH is None else moved_BSH, c_BSV, sums_B1V)
    return Descent(a_BSH, a_BSH[:, 0], head, healthy_B, objective)
