"""Vectors of the target space as coefficients on a few that are known by their products alone.

C = streams in a chunk, S = support pairs, N = any pairs, J = rows of all steps so far, H = hidden,
E = target dim, A = anchors, V = H + A

`model.inner.hidden.loop` has the derivation. A row of E numbers is c·V, V = [W2ᵀ; anchors] (H + A,
E). The anchors are the support's targets Ŷ, and below them, for losses that see outputs with their
bias, b2 and rows of 0 up to a whole cache line.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

BIAS_ROWS = 16
"""What b2 takes among the anchors."""


class Parts(NamedTuple):
    """What belongs to W2ᵀ (C, N, H) and what to the anchors (C, N, A)."""

    h: Tensor
    a: Tensor


class Anchors(NamedTuple):
    """The rows of V below W2ᵀ, by their products."""

    r_CAH: Tensor
    """With W2."""
    r_CHA: Tensor
    """The same, transposed."""
    gram_CAA: Tensor


class Head(NamedTuple):
    """What steps did to the second layer: o_n = [H_n, 0] + (H_n·hᵀ)·c + sums. And views of that."""

    h_CJH: Tensor
    """The support's hidden features at every step."""
    c_CJV: Tensor
    """Minus rate times D of every step."""
    sums_C1V: Tensor
    """The same for the bias, summed over pairs and steps."""
    h_CHJ: Tensor
    c_CVJ: Parts
    """(C, H, J) and (C, A, J)."""
    sums: Parts


class Buffers(NamedTuple):
    """Where a step's results go: tensors for `out=`, or None where autograd needs new ones."""

    z: Tensor | None = None
    """(C, S, H), like h (whose streams lie apart), f, dh, dz and a."""
    h: Tensor | None = None
    f: Tensor | None = None
    dh: Tensor | None = None
    dz: Tensor | None = None
    a: Tensor | None = None
    c: Tensor | None = None
    """(C, S, V), like c_weighted, whose streams lie apart."""
    c_weighted: Tensor | None = None
    u: Tensor | None = None
    """(C, S, A)."""
    g: Tensor | None = None
    """(C, S, S)."""
    t: Tensor | None = None
    """(C, S, J), like e."""
    e: Tensor | None = None
    beta: Tensor | None = None
    """(C, 1, H)."""
    sums: Tensor | None = None
    """(C, 1, V)."""
    c_parts: Parts | None = None
    """c's."""
    rows: Parts | None = None
    """c's part for W2ᵀ, and f, as matrices (C·S, H)."""


NEW = Buffers()


def head_of(h_CJH: Tensor, c_CJV: Tensor, sums_C1V: Tensor) -> Head:
    """With its views."""
    hidden = h_CJH.shape[2]
    columns = Parts(*(part.transpose(1, 2) for part in parts(c_CJV, hidden)))
    return Head(h_CJH, c_CJV, sums_C1V, h_CJH.transpose(1, 2), columns, parts(sums_C1V, hidden))


def parts(v_CNV: Tensor, hidden: int) -> Parts:
    """Of coefficients. (One split: autograd joins it again at once; slices it would pad with 0.)"""
    return Parts(*torch.split(v_CNV, [hidden, v_CNV.shape[2] - hidden], 2))


def anchors(r_CAH: Tensor, gram_CAA: Tensor) -> Anchors:
    """With its views."""
    return Anchors(r_CAH, r_CAH.transpose(1, 2), gram_CAA)


def anchors_with_bias(
    r_CSH: Tensor, gamma_CSS: Tensor, t_CS: Tensor, w2b_H: Tensor, bb: Tensor
) -> Anchors:
    """Ŷ, b2, rows of 0."""
    streams, zeros = len(r_CSH), BIAS_ROWS - 1
    r_CAH = torch.cat([r_CSH, w2b_H.expand(streams, 1, -1)], 1)
    b2_C1A = torch.cat([t_CS, bb.expand(streams, 1)], 1).unsqueeze(1)
    gram_CAA = torch.cat([torch.cat([gamma_CSS, t_CS.unsqueeze(2)], 2), b2_C1A], 1)
    pad = torch.nn.functional.pad
    return anchors(pad(r_CAH, (0, 0, 0, zeros)), pad(gram_CAA, (0, zeros, 0, zeros)))


@cache
def minus_targets(support: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """−I (S, S): the anchors' part of mse's o − y, before steps."""
    with torch.inference_mode(False):
        return -torch.eye(support, dtype=dtype, device=device)


@cache
def bias(support: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(S, A) of 0, and 1 for b2: the anchors' part of outputs, before steps."""
    with torch.inference_mode(False):
        own_SA = torch.zeros(support, support + BIAS_ROWS, dtype=dtype, device=device)
        own_SA[:, support] = 1.0
        return own_SA


@cache
def targets(support: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[I, 1] (S, A): the anchors' part of Y."""
    with torch.inference_mode(False):
        return bias(support, dtype, device).clone().fill_diagonal_(1.0)


def moved(h_CNH: Tensor, own_CNA: Tensor, head: Head | None, into: Buffers = NEW) -> Tensor:
    """The rows h·W2ᵀ + own·anchors, by W2 as `head` moved it: coefficients (C, N, V)."""
    if head is None:
        return torch.cat([h_CNH, own_CNA], 2, out=into.c)
    t_CNJ = torch.bmm(h_CNH, head.h_CHJ, out=into.t)
    if into.c is None or into.c_parts is None:
        own_CNV = torch.cat([h_CNH, own_CNA], 2) + head.sums_C1V
        return torch.baddbmm(own_CNV, t_CNJ, head.c_CJV)
    torch.add(h_CNH, head.sums.h, out=into.c_parts.h)
    torch.add(own_CNA, head.sums.a, out=into.c_parts.a)
    return torch.baddbmm(into.c, t_CNJ, head.c_CJV, out=into.c)


def onto_hidden(
    c: Parts, m_HH: Tensor, at: Anchors, into: Buffers = NEW, anchored: float = 1.0
) -> Tensor:
    """c·V·W2 (C, N, H), with the anchors' part `anchored` times."""
    if into.f is None or into.rows is None:
        f_CNH = torch.mm(c.h.reshape(-1, len(m_HH)), m_HH).view(c.h.shape)
    else:
        torch.mm(into.rows.h, m_HH, out=into.rows.a)
        f_CNH = into.f
    return torch.baddbmm(f_CNH, c.a, at.r_CAH, alpha=anchored, out=into.f)


def onto_anchors(c: Parts, at: Anchors, into: Buffers = NEW) -> Tensor:
    """c·V·anchorsᵀ (C, N, A)."""
    u_CNA = torch.bmm(c.h, at.r_CHA, out=into.u)
    return torch.baddbmm(u_CNA, c.a, at.gram_CAA, out=into.u)


def through_head(g: Parts, head: Head, into: Buffers = NEW) -> Tensor:
    """D·W2 by W2 as `head` moved it (C, S, H), from D's products g."""
    e_CSJ = torch.bmm(g.h, head.c_CVJ.h, out=into.e)
    e_CSJ = torch.baddbmm(e_CSJ, g.a, head.c_CVJ.a, out=into.e)
    return torch.baddbmm(g.h, e_CSJ, head.h_CJH, out=into.dh)
