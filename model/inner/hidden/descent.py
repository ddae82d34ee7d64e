"""Exact gradient descent in hidden space: no work in the target's or source's dimensions per step.

B = streams in batch, S = support pairs (padded), N = pairs of a stream (support first; padded),
D = source dim, H = hidden units, E = target dim, K = inner steps, A = anchors, V = spanning rows
(H + A), J = rows of all inner steps (K·S)

*How to think about it.* Gradient descent on a few pairs can only move weights in a few directions.
The gradient of W1 is Σ_s dz_s·x_sᵀ, a combination of the support's S inputs. So after any number
of steps W1 is θ's W1 plus such a combination, and all there is to know is its coefficients, (S, H)
numbers. A pair meets W1 only through W1·x, hence only through θ's own W1·x and inner products of x
with the support's x: those are made once, when the pair arrives, and no step touches D numbers
again. In the same way the gradient of W2 is Σ_s d_s·h_sᵀ with d in E dimensions, but every d is a
combination of rows that θ and the support give beforehand: θ's outputs lie in the span of W2's
columns, and the targets are S more. `model.inner.hidden.one_stream` is this in twenty lines, for
one stream and the mse; the file here does the same for a batch, with padding and any loss.

For f(x) = W2·σ(W1·x + b1) + b2, write ŷ = y − b2 and O = θ_k's outputs less b2, (S, E); s is
a support pair, n is any pair. The rates of step k are η1_k, η2_k, η3_k and η4_k, for W1, b1, W2 and
b2. A and β are what the steps add up (`a_BSH`, `beta_BH`); only in a size, such as H + A, is A the
number of anchors.

*First layer.* After k steps the first layer is W1 + AᵀX and b1 + β, so

    Z = P + 1·βᵀ + G·A,  P = X·W1ᵀ + 1·b1ᵀ,  G = X·Xᵀ                                        (1)

*Second layer.* D_k = ∂L/∂O lies in the span of V = [W2ᵀ; Ŷ], H + A rows of dimension E: θ's own
columns and the support's targets. So D_k = c_k·V, with c_k (S, V). A step moves W2 by
−η3_k·D_kᵀH_k and b2 by −η4_k·D_kᵀ·1, hence, for any rows H_n of hidden features,

    O_n = o_n·V,  o_n = [H_n, 0] − Σ_j (η3_j·H_n·H_jᵀ + η4_j·1·1ᵀ)·c_j                        (2)

*The loss.* mse: c_k = o_k − [0, I]. Every other loss sees outputs only through O·Oᵀ, O·Yᵀ and
Y·Yᵀ, and D = diag(b)·O + C·Y, with b (S) and C (S, S) made of those (`model.inner.hidden.losses`).
They see O + b2 rather than O: b2 joins V as one more row.

*Back.* With V·Vᵀ = [M, Rᵀ; R, Γ], M = W2ᵀW2, R = Ŷ·W2, Γ = Ŷ·Ŷᵀ:

    g_k = c_k·V·Vᵀ = [D_k·W2, D_k·Ŷᵀ],   D_k·W2_k = D_k·W2 − Σ_j η3_j·(g_k·c_jᵀ)·H_j          (3)
    dZ = (D_k·W2_k) ∘ σ′(Z),  A ← A − η1_k·dZ,  β ← β − η2_k·Σ_s dZ                         (4)

A weight that all real pairs of a stream share (2/(S·E) for the mse, where S counts real pairs
alone) and 0 on padded pairs meet the rates once; the sums over j are one matrix product each, over
what all steps left one below another. Z is not made anew from A and β: what a step adds to it,
−(η1·G + η2·1·1ᵀ)·dZ, is one product. Needed per pair: p and r = W2ᵀŷ (H each), ŷ·b2, |ŷ|² and the
Grams' rows; per step about S·H² + 4·k·S²·H multiplications.

The steps exist twice, with the same results to the bit: here as ordinary differentiable operations
(`descend_plainly`), and in memory that is used again (`model.inner.hidden.memory`), which serves.
The outer gradient through steps on the mse is written out (`model.inner.hidden.outer_gradient`).
No operation mixes streams: one stream's NaN stays its own.
"""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.hidden.activation import apply_sigma, sigma_backward
from model.inner.hidden.coefficients import (
    Columns,
    Head,
    back_through_steps,
    columns,
    head_of,
    onto_anchors,
    onto_hidden,
    through_steps,
)
from model.inner.hidden.losses import direction
from model.inner.hidden.memory import Workspace, descend_in
from model.inner.hidden.outer_gradient import descend_with_gradient
from model.inner.hidden.projected import Chunk, Projected, Terms, chunk_of


class Descent(NamedTuple):
    """θ′ of B streams. With a workspace its tensors last until the workspace's next use."""

    a_BSH: Tensor
    beta_BH: Tensor
    head: Head
    healthy_B: Tensor
    """Whether all of a stream's numbers are finite."""
    objective: Objective
    first_order: bool = False
    """Whether inner gradients were taken for constants: V then is one too in what `head` adds."""


def descend(
    terms: Terms,
    projected: Projected,
    rates_K4: Tensor,
    objective: Objective,
    workspace: Workspace | None = None,
    first_order: bool = False,
) -> Descent:
    """Takes K gradient steps of all four tensors on every stream's support, and returns θ′.

    Columns of `rates_K4` are w1, b1, w2, b2. Where autograd wants gradients, they reach `terms`,
    `projected` and the rates; `first_order` (meta-training) takes the inner gradients for constants
    (Finn et al. 2017, §5.2), of which rates still learn. A `workspace` is for calls without
    autograd, and spares them the allocation. Raises ValueError for an output activation and for
    no steps.
    """
    chunk = chunk_of(terms, projected, objective)
    if not len(rates_K4):
        raise ValueError("no steps")
    weights_K4BS = rates_K4.unsqueeze(2).unsqueeze(3) * chunk.weight_BS
    if workspace is not None or not _wants_gradient(chunk, rates_K4):
        found = _in_memory(chunk, weights_K4BS, workspace or Workspace())
    elif chunk.loss.kind == "mse" and not first_order:
        found = descend_with_gradient(chunk, weights_K4BS)
    else:
        found = descend_plainly(chunk, weights_K4BS, first_order=first_order)
    a_BSH, beta_B1H, head = found
    healthy_B = finite_streams(torch.cat([beta_B1H, head.sums_B1V], 2))
    return Descent(a_BSH, beta_B1H.squeeze(1), head, healthy_B, objective, first_order)


def descend_plainly(
    chunk: Chunk, weights_K4BS: Tensor, *, first_order: bool = False
) -> tuple[Tensor, Tensor, Head]:
    """Returns A (B, S, H), β (B, 1, H) and the moved second layer, by (1) to (4) as they stand.

    `weights_K4BS` are the rates times `chunk.weight_BS`.
    """
    z_BSH = chunk.p_BSH
    a_BSH, beta_B1H = torch.zeros_like(z_BSH), torch.zeros_like(z_BSH[:, :1])
    head = _unmoved(chunk)
    gradients = torch.no_grad if first_order else nullcontext
    for w1_B1S, b1_B1S, w2_B1S, b2_B1S in weights_K4BS.unsqueeze(3).unbind():
        with gradients():
            h_BSH = apply_sigma(chunk.activation, z_BSH)
            c_BSV, dh_BSH = _second_layer(chunk, h_BSH, head)
            dz_BSH = sigma_backward(chunk.activation, dh_BSH, z_BSH, h_BSH, None)
        a_BSH = torch.addcmul(a_BSH, dz_BSH, w1_B1S.transpose(1, 2))
        beta_B1H = torch.baddbmm(beta_B1H, b1_B1S, dz_BSH)
        head = head_of(
            torch.cat([head.h_BJH, h_BSH], 1),
            torch.cat([head.c_BJV, c_BSV * w2_B1S.transpose(1, 2)], 1),
            torch.baddbmm(head.sums_B1V, b2_B1S, c_BSV),
        )
        with gradients():  # (1), as what this step added
            z_BSH = torch.baddbmm(z_BSH, torch.addcmul(b1_B1S, chunk.g_BSS, w1_B1S), dz_BSH)
    return a_BSH, beta_B1H, head


def _unmoved(chunk: Chunk) -> Head:
    """θ's own second layer: no steps so far."""
    streams, _, hidden = chunk.p_BSH.shape
    new, wide = chunk.p_BSH.new_zeros, hidden + chunk.own_BSA.shape[2]
    return head_of(new(streams, 0, hidden), new(streams, 0, wide), new(streams, 1, wide))


def _second_layer(chunk: Chunk, h_BSH: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """c and D·W2_k: (2), (3)."""
    c_BSV = through_steps(h_BSH, chunk.own_BSA, head)
    c = columns(c_BSV, h_BSH.shape[2])
    g = Columns(onto_hidden(c, chunk.m_HH, chunk.at), onto_anchors(c, chunk.at))
    if chunk.loss.kind != "mse":
        c_BSV, g = direction(chunk.loss, c, g, chunk.at, chunk.real_BS)
    return c_BSV, back_through_steps(g, head)


def _in_memory(
    chunk: Chunk, weights_K4BS: Tensor, workspace: Workspace
) -> tuple[Tensor, Tensor, Head]:
    sizes = (*chunk.p_BSH.shape, chunk.own_BSA.shape[2], len(weights_K4BS))
    memory = workspace.of(sizes, chunk.p_BSH)
    memory.weights_K4BS.copy_(weights_K4BS)
    descend_in(memory, chunk)
    return memory.a_BSH, memory.beta_B1H, memory.heads[-1]


def _wants_gradient(chunk: Chunk, rates_K4: Tensor) -> bool:
    inputs = (chunk.p_BSH, chunk.at.r_BAH, chunk.g_BSS, rates_K4)
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)


def finite_streams(sums: Tensor) -> Tensor:
    """Returns whether each stream's numbers are finite (B), and their sum too.

    Takes sums over rows: the rows show in them whatever the weights, for 0·NaN is NaN.
    """
    with torch.no_grad():
        return sums.sum((1, 2)) * 0.0 == 0.0
