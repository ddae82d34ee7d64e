"""Vectors of the target space as coefficients on a few rows that are known by inner products alone.

B = streams in batch, N = pairs of a stream, S = support pairs, H = hidden units, E = target dim,
A = anchors, V = spanning rows (H + A), J = rows of all inner steps (K·S; what all steps so far
left, below one another)

A row of E numbers is c·V with V = [W2ᵀ; anchors], (H + A, E). The anchors are the support's targets
less b2, Ŷ (S, E). For losses that see outputs with their bias, b2 is one more row below them, then
rows of 0 up to a whole cache line. Nothing here ever has E numbers: c·V·W2 and c·V·anchorsᵀ need
only W2ᵀW2, anchors·W2 and anchors·anchorsᵀ. `model.inner.hidden.descent` derives what is computed.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

BIAS_ROWS = 16
"""Anchors that b2 takes: its own row, and rows of 0 up to a cache line."""


class Columns(NamedTuple):
    """Coefficients on V, or products with V, apart: those of W2ᵀ and those of the anchors."""

    h: Tensor
    """(B, N, H)."""
    a: Tensor
    """(B, N, A)."""


class Anchors(NamedTuple):
    """The rows of V below W2ᵀ, by their inner products."""

    r_BAH: Tensor
    """anchors·W2."""
    r_BHA: Tensor
    """A transposed view of `r_BAH`."""
    gram_BAA: Tensor
    """anchors·anchorsᵀ."""


class Head(NamedTuple):
    """What the steps so far did to the second layer.

    Outputs less b2 of pairs with hidden features H_n are o_n·V with
    o_n = [H_n, 0] + (H_n·hᵀ)·c + sums. The last three fields are views of the first three.
    """

    h_BJH: Tensor
    """The support's hidden features at every step."""
    c_BJV: Tensor
    """Minus the rate of w2 times the loss's gradient in the outputs, at every step."""
    sums_B1V: Tensor
    """Minus the rate of b2 times that gradient, summed over pairs and steps."""
    h_BHJ: Tensor
    c_BVJ: Columns
    """(B, H, J) and (B, A, J)."""
    sums: Columns


def head_of(h_BJH: Tensor, c_BJV: Tensor, sums_B1V: Tensor) -> Head:
    """Returns a Head with its views."""
    hidden = h_BJH.shape[2]
    transposed = Columns(*(part.transpose(1, 2) for part in columns(c_BJV, hidden)))
    return Head(
        h_BJH, c_BJV, sums_B1V, h_BJH.transpose(1, 2), transposed, columns(sums_B1V, hidden)
    )


def columns(v_BNV: Tensor, hidden: int) -> Columns:
    """Returns views of the first `hidden` columns and of the others.

    One split: autograd joins its two gradients again at once; those of slices it would pad with 0.
    """
    return Columns(*torch.split(v_BNV, [hidden, v_BNV.shape[2] - hidden], 2))


def anchors(r_BAH: Tensor, gram_BAA: Tensor) -> Anchors:
    """Returns Anchors with their transposed view."""
    return Anchors(r_BAH, r_BAH.transpose(1, 2), gram_BAA)


def anchors_with_bias(
    r_BSH: Tensor, gamma_BSS: Tensor, t_BS: Tensor, w2b_H: Tensor, bb: Tensor
) -> Anchors:
    """Returns the anchors Ŷ, b2 and rows of 0.

    Takes Ŷ·W2, Ŷ·Ŷᵀ and Ŷ·b2 of every stream, and θ's W2ᵀ·b2 and b2·b2.
    """
    streams, zeros = len(r_BSH), BIAS_ROWS - 1
    r_BAH = torch.cat([r_BSH, w2b_H.expand(streams, 1, -1)], 1)
    b2_B1A = torch.cat([t_BS, bb.expand(streams, 1)], 1).unsqueeze(1)
    gram_BAA = torch.cat([torch.cat([gamma_BSS, t_BS.unsqueeze(2)], 2), b2_B1A], 1)
    pad = torch.nn.functional.pad
    return anchors(pad(r_BAH, (0, 0, 0, zeros)), pad(gram_BAA, (0, zeros, 0, zeros)))


@cache
def minus_targets(support: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns −I (S, S): −ŷ of every support pair as coefficients on the anchors Ŷ."""
    with torch.inference_mode(False):
        return -torch.eye(support, dtype=dtype, device=device)


@cache
def bias(support: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns b2 of every support pair's output as coefficients (S, A): 1 for b2, else 0."""
    with torch.inference_mode(False):
        own_SA = torch.zeros(support, support + BIAS_ROWS, dtype=dtype, device=device)
        own_SA[:, support] = 1.0
        return own_SA


@cache
def targets(support: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns every support pair's y = ŷ + b2 as coefficients (S, A): [I, 1, 0]."""
    with torch.inference_mode(False):
        return bias(support, dtype, device).clone().fill_diagonal_(1.0)


def through_steps(h_BNH: Tensor, own_BNA: Tensor, head: Head) -> Tensor:
    """Returns the rows h·W2ᵀ + own·anchors by the second layer that `head` moved (B, N, V). (2)"""
    t_BNJ = torch.bmm(h_BNH, head.h_BHJ)
    own_BNV = torch.cat([h_BNH, own_BNA], 2) + head.sums_B1V
    return torch.baddbmm(own_BNV, t_BNJ, head.c_BJV)


def onto_hidden(c: Columns, m_HH: Tensor, at: Anchors) -> Tensor:
    """Returns c·V·W2 (B, N, H). (3)"""
    f_BNH = torch.mm(c.h.reshape(-1, len(m_HH)), m_HH).view(c.h.shape)
    return torch.baddbmm(f_BNH, c.a, at.r_BAH)


def onto_anchors(c: Columns, at: Anchors) -> Tensor:
    """Returns c·V·anchorsᵀ (B, N, A). (3)"""
    return torch.baddbmm(torch.bmm(c.h, at.r_BHA), c.a, at.gram_BAA)


def back_through_steps(g: Columns, head: Head) -> Tensor:
    """Returns D·W2 by the W2 that `head` moved (B, S, H), from D's products g with V. (3)"""
    e_BSJ = torch.baddbmm(torch.bmm(g.h, head.c_BVJ.h), g.a, head.c_BVJ.a)
    return torch.baddbmm(g.h, e_BSJ, head.h_BJH)
