"""Exact gradient descent in hidden space: no work in the target's or source's dimensions per step.

C = streams in a chunk, S = support pairs (padded), N = S + queries (padded), D = source dim,
H = hidden, E = target dim, K = inner steps, A = anchors, V = H + A; s, t = support pairs,
n = any pair

For f(x) = W2·σ(W1·x + b1) + b2 and plain gradient steps, everything that a step does is seen
through inner products of pairs. Write ŷ = y − b2 and O = θ_k's outputs less b2, (S, E).

*First layer.* A step moves W1 by rows of the support: after k steps W1 + AᵀX and b1 + β, so

    Z = P + 1·βᵀ + G·A,  P = X·W1ᵀ + 1·b1ᵀ,  G = X·Xᵀ                                        (1)

*Second layer.* D_k = ∂L/∂O lies in the span of V = [W2ᵀ; Ŷ], H + A rows of dimension E: θ's own
columns and the support's targets. So D_k = c_k·V, with c_k (S, V). A step moves W2 by −a_k·D_kᵀH_k
and b2 by −b_k·D_kᵀ·1, hence, for any rows H_n of hidden features,

    O_n = o_n·V,  o_n = [H_n, 0] − Σ_j (a_j·H_n·H_jᵀ + b_j·1·1ᵀ)·c_j                          (2)

*The loss.* mse: c_k = o_k − [0, I]. Every other loss sees outputs only through O·Oᵀ, O·Yᵀ and
Y·Yᵀ, and D = diag(b)·O + C·Y with b (S), C (S, S) out of those (`model.inner.hidden.gradient`).
They see O + b2 rather than O: b2 joins V as one more row.

*Back.* With V·Vᵀ = [M, Rᵀ; R, Γ], M = W2ᵀW2, R = Ŷ·W2, Γ = Ŷ·Ŷᵀ:

    g_k = c_k·V·Vᵀ = [D_k·W2, D_k·Ŷᵀ],   D_k·W2_k = D_k·W2 − Σ_j a_j·(g_k·c_jᵀ)·H_j            (3)
    dZ = (D_k·W2_k) ∘ σ′(Z),  A ← A − α_k·dZ,  β ← β − β_k·Σ_s dZ                             (4)

A weight that all pairs of a stream share (2/(n·E) for the mse) and 0 on padded pairs meet the rates
once, as `weights`; the sums over j are one matrix product each, over what all steps left one below
another. Needed per pair: p and r = W2ᵀŷ (H each), ŷ·b2, |ŷ|² and the Grams' rows; per step about
S·H² + 4·k·S²·H multiplications. (2) and (3) are `model.inner.hidden.span`, a step
`model.inner.hidden.step`.

Everything is an ordinary differentiable torch operation, so that the outer loop's exact gradient
runs through the code that serves; with a workspace nothing is allocated. No operation mixes
streams: one stream's NaN stays its own.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.inner.batched import Objective
from model.inner.hidden.backward import by_hand, descended
from model.inner.hidden.gradient import pair_weights
from model.inner.hidden.span import (
    Anchors,
    Head,
    anchors,
    anchors_with_bias,
    bias,
    minus_targets,
)
from model.inner.hidden.step import Chunk, run
from model.inner.hidden.workspace import Memory, Weights, Workspace, views_of
from model.mappings.mlp import Mlp


class Terms(NamedTuple):
    """What is made once per θ."""

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
    """C streams' pairs as the inner loop sees them; support pairs first. Padded entries are 0."""

    p_CNH: Tensor
    """W1·x + b1."""
    r_CNH: Tensor
    """W2ᵀ·ŷ."""
    t_CN: Tensor
    """ŷ·b2."""
    g_CSN: Tensor
    """x_s·x_n."""
    gamma_CSN: Tensor
    """ŷ_s·ŷ_n."""
    yy_CN: Tensor
    """ŷ_n·ŷ_n."""
    real_CN: Tensor
    """True on real pairs."""


class Descent(NamedTuple):
    """θ′ of C streams. With a workspace its tensors last until the workspace's next use."""

    a_CSH: Tensor
    beta_CH: Tensor
    head: Head
    healthy_C: Tensor
    """Whether all of a stream's numbers are finite."""
    objective: Objective
    first_order: bool = False
    """Whether inner gradients were taken for constants: then V is one too in what `head` adds."""


def terms(theta: Mlp) -> Terms:
    """Once per θ."""
    w2, b2 = theta.w2, theta.b2
    return Terms(*theta, m_HH=w2.T @ w2, w2b_H=b2 @ w2, bb=b2 @ b2)


def project(terms: Terms, x_CND: Tensor, y_CNE: Tensor, real_CN: Tensor, support: int) -> Projected:
    """Raw pairs to their projections; whatever stands in padded ones (NaN included) is cleaned."""
    real_CN1 = real_CN.unsqueeze(2)
    x_CND = torch.where(real_CN1, x_CND, 0.0)
    y_hat_CNE = torch.where(real_CN1, y_CNE - terms.b2, 0.0)
    return Projected(
        p_CNH=torch.where(real_CN1, functional.linear(x_CND, terms.w1, terms.b1), 0.0),
        r_CNH=y_hat_CNE @ terms.w2,
        t_CN=y_hat_CNE @ terms.b2,
        g_CSN=torch.bmm(x_CND[:, :support], x_CND.transpose(1, 2)),
        gamma_CSN=torch.bmm(y_hat_CNE[:, :support], y_hat_CNE.transpose(1, 2)),
        yy_CN=y_hat_CNE.square().sum(2),
        real_CN=real_CN,
    )


def descend(
    terms: Terms,
    projected: Projected,
    rates_K4: Tensor,
    objective: Objective,
    workspace: Workspace | None = None,
    first_order: bool = False,
) -> Descent:
    """K steps on every stream's support, all four tensors moving.

    `first_order` (meta-training) takes the inner gradients for constants (Finn et al. 2017, §5.2);
    rates still learn. Under autograd there must be no workspace.
    Raises ValueError for an output activation: outputs are then no combination of V.
    """
    chunk = chunk_of(terms, projected, objective)
    if workspace is None and not first_order and by_hand(chunk, rates_K4):
        a_CSH, beta_C1H, head = descended(chunk, rates_K4)
    else:
        shape = (*chunk.p_CSH.shape, chunk.own_CSA.shape[2], len(rates_K4))
        memory = None if workspace is None else workspace.of(shape, chunk.p_CSH)
        weights = _weights(rates_K4, chunk.weight_CS, memory)
        *_, a_CSH, beta_C1H, head = run(chunk, weights, memory, first_order=first_order)
    healthy_C = finite(torch.cat([beta_C1H, head.sums_C1V], 2))
    return Descent(a_CSH, beta_C1H.squeeze(1), head, healthy_C, objective, first_order)


def chunk_of(terms: Terms, projected: Projected, objective: Objective) -> Chunk:
    """The support. Raises ValueError for an output activation."""
    if objective.output_activation != "none":
        raise ValueError(f"no hidden space behind output_activation {objective.output_activation}")
    loss, size = objective.loss, projected.g_CSN.shape[1]
    p_CSH, real_CS = projected.p_CNH[:, :size], projected.real_CN[:, :size]
    own = minus_targets if loss.kind == "mse" else bias
    return Chunk(
        p_CSH=p_CSH,
        g_CSS=projected.g_CSN[:, :, :size],
        real_CS=real_CS,
        weight_CS=pair_weights(loss, len(terms.w2), real_CS, p_CSH.dtype),
        at=anchors_of(terms, projected, with_bias=loss.kind != "mse"),
        own_CSA=own(size, p_CSH.dtype, p_CSH.device).expand(len(p_CSH), -1, -1),
        m_HH=terms.m_HH,
        loss=loss,
        activation=objective.activation,
    )


def anchors_of(terms: Terms, projected: Projected, *, with_bias: bool) -> Anchors:
    """Ŷ, and b2 for losses that see outputs with it."""
    size = projected.g_CSN.shape[1]
    r_CSH, gamma_CSS = projected.r_CNH[:, :size], projected.gamma_CSN[:, :, :size]
    if not with_bias:
        return anchors(r_CSH, gamma_CSS)
    t_CS = projected.t_CN[:, :size]
    return anchors_with_bias(r_CSH, gamma_CSS, t_CS, terms.w2b_H, terms.bb)


def finite(sums_C1X: Tensor) -> Tensor:
    """Whether each stream's numbers are finite (C), and their sum too.

    Given sums over rows: the rows show in them whatever the weights, for 0·NaN is NaN.
    """
    with torch.no_grad():
        return sums_C1X.sum((1, 2)) * 0.0 == 0.0


def _weights(rates_K4: Tensor, weight_CS: Tensor, memory: Memory | None) -> list[Weights]:
    """Of every step."""
    rates_K411 = rates_K4.unsqueeze(2).unsqueeze(3)
    if memory is None:
        return views_of(rates_K411 * weight_CS)
    torch.mul(rates_K411, weight_CS, out=memory.weights_K4CS)
    return memory.weights
