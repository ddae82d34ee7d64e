"""The head alone in hidden space: ANIL's steps and R2D2's closed form.

C = streams in a chunk, S = support pairs (padded), H = hidden, E = target dim, K = inner steps,
A = anchors (`model.inner.hidden.loop`)

W1 and b1 stay, so hidden features are those of θ, all steps together move W2 by combinations of
D_kᵀ·H with one H, and D_k lies in the span of θ's own outputs Ô_0 = H·W2ᵀ and the anchors: S + A
rows. With those for V, the algebra of `model.inner.hidden.span` stays as it is, with I for H,
H·M·Hᵀ for M and H·Rᵀ for Rᵀ: S³ per step, whatever H. c in the end is c·[H, 0; 0, I].
"""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.hidden.activation import forward
from model.inner.hidden.gradient import direction
from model.inner.hidden.loop import Descent, Projected, Terms, chunk_of, finite
from model.inner.hidden.span import Anchors, Parts, anchors, head_of, minus_targets, parts
from model.inner.hidden.step import Chunk
from model.losses import MSE


def descend_head(
    terms: Terms,
    projected: Projected,
    rates_K2: Tensor,
    objective: Objective,
    first_order: bool = False,
) -> Descent:
    """K steps of W2 and b2 (Raghu et al. 2020, `model.inner.sgd.HeadSteps`).

    Raises ValueError for an output activation.
    """
    chunk = chunk_of(terms, projected, objective)
    size = chunk.p_CSH.shape[1]
    with torch.no_grad() if first_order else nullcontext():
        h_CSH = forward(objective.activation, chunk.p_CSH)
        t_CSS = torch.bmm(h_CSH, h_CSH.transpose(1, 2))
        among = _among_outputs(chunk, h_CSH, terms.m_HH)
    weights_KXCS = rates_K2.view(-1, 2, 1, 1) * chunk.weight_CS
    steps_CSV = sums_C1V = torch.zeros_like(among.own_CSV[:, :1])
    for w2_CS, b2_CS in weights_KXCS.unbind():
        with torch.no_grad() if first_order else nullcontext():
            c_CSV = among.own_CSV + sums_C1V + torch.bmm(t_CSS, steps_CSV.expand_as(among.own_CSV))
            if chunk.loss.kind != "mse":
                o = parts(c_CSV, size)
                c_CSV, _ = direction(chunk.loss, o, _products(among, o), among.at, chunk.real_CS)
        steps_CSV = steps_CSV + c_CSV * w2_CS.unsqueeze(2)
        sums_C1V = sums_C1V + torch.bmm(b2_CS.unsqueeze(1), c_CSV)
    found = _descent(chunk, h_CSH, steps_CSV, sums_C1V, objective)
    return found._replace(first_order=first_order)


def solve_head(
    terms: Terms, projected: Projected, log_penalties_2: Tensor, objective: Objective
) -> Descent:
    """W2 and b2 in closed form (Bertinetto et al. 2019, `model.inner.ridge_head`).

    Raises ValueError for an output activation.
    """
    chunk = chunk_of(terms, projected, objective._replace(loss=MSE))
    real_CS1 = chunk.real_CS.unsqueeze(2)
    h_CSH = forward(objective.activation, chunk.p_CSH).masked_fill(~real_CS1, 0.0)
    precision_w, precision_b = (-log_penalties_2).exp().unbind()
    ones_CS1 = real_CS1.to(h_CSH.dtype)
    gram_CSS = torch.bmm(h_CSH, h_CSH.transpose(1, 2)) * precision_w
    gram_CSS = gram_CSS + torch.bmm(ones_CS1, ones_CS1.transpose(1, 2)) * precision_b
    minus_SS = minus_targets(gram_CSS.shape[1], gram_CSS.dtype, gram_CSS.device)
    # −(I + …)⁻¹ on real pairs: the residual Y − O is minus that of which θ's c is [I, −I]
    inverse_CSS = torch.linalg.solve_ex(gram_CSS - minus_SS, ones_CS1 * minus_SS).result
    c_CSV = torch.cat([inverse_CSS, -inverse_CSS], 2)
    sums_C1V = c_CSV.sum(1, keepdim=True) * precision_b
    return _descent(chunk, h_CSH, c_CSV * precision_w, sums_C1V, objective)


class Among(NamedTuple):
    """V with θ's own outputs in W2ᵀ's place."""

    own_CSV: Tensor
    """The coefficients of θ's outputs (mse: less the targets)."""
    gram_CSS: Tensor
    """Ô_0·Ô_0ᵀ."""
    at: Anchors


def _among_outputs(chunk: Chunk, h_CSH: Tensor, m_HH: Tensor) -> Among:
    streams, size = chunk.real_CS.shape
    identity_SS = torch.eye(size, dtype=h_CSH.dtype, device=h_CSH.device)
    own_CSV = torch.cat([identity_SS.expand(streams, -1, -1), chunk.own_CSA], 2)
    h_CHS = h_CSH.transpose(1, 2)
    return Among(
        own_CSV,
        torch.bmm(torch.matmul(h_CSH, m_HH), h_CHS),
        anchors(torch.bmm(chunk.at.r_CAH, h_CHS), chunk.at.gram_CAA),
    )


def _products(among: Among, o: Parts) -> Parts:
    r_CAS, r_CSA, gram_CAA = among.at
    return Parts(
        torch.baddbmm(torch.bmm(o.h, among.gram_CSS), o.a, r_CAS),
        torch.baddbmm(torch.bmm(o.h, r_CSA), o.a, gram_CAA),
    )


def _descent(
    chunk: Chunk, h_CSH: Tensor, steps_CSV: Tensor, sums_C1V: Tensor, objective: Objective
) -> Descent:
    """Coefficients on Ô_0 = H·W2ᵀ to coefficients on W2ᵀ."""
    size = h_CSH.shape[1]
    c_CSV, sums_C1V = (
        torch.cat([torch.bmm(v[:, :, :size], h_CSH), v[:, :, size:]], 2)
        for v in (steps_CSV, sums_C1V)
    )
    a_CSH = torch.zeros_like(h_CSH)
    # coefficients need not have met the targets
    healthy_C = finite(torch.cat([sums_C1V, chunk.at.gram_CAA.sum(1, keepdim=True)], 2))
    return Descent(a_CSH, a_CSH[:, 0], head_of(h_CSH, c_CSV, sums_C1V), healthy_C, objective)
