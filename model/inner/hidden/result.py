"""θ′ out of hidden space: as thin factors, multiplied out, or as outputs.

C = streams in a chunk, S = support pairs (padded), Q = query pairs (padded), N = S + Q,
D = source dim, E = target dim, H = hidden, G = H + 1, T = S + 1, J = rows of all steps, A = anchors

    W1′ = W1 + aᵀ·x, b1′ = b1 + β, [W2′, b2′] = [W2, b2]·(I + n) + yᵀ·v

What steps did to the second layer is [W2′, b2′] = [W2, b2] + Vᵀ·κ with κ = [Σ_j c_jᵀ·H_j, sumsᵀ]
(H + A, G) by `model.inner.hidden.span`. Rows of V are W2ᵀ, ŷ = y − b2 and, for some losses, b2. So
v is κ's rows for ŷ; n is its rows for W2ᵀ, and below them, for b2, its row for b2 less the sum of
those for ŷ.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.inner.hidden.loop import Descent, Projected, Terms
from model.inner.hidden.span import parts
from model.mappings.mlp import Mlp


class Factors(NamedTuple):
    """θ′ − θ, thin. Rows of padded pairs are 0."""

    a_CSH: Tensor
    beta_CH: Tensor
    n_CGG: Tensor
    v_CSG: Tensor


class FactorRoom:
    """Memory for the factors of many chunks, used again and again: the kernel need not find and
    clear it anew."""

    def __init__(self) -> None:
        self._held: Factors | None = None
        self._streams = self._taken = 0

    def begin(self, streams: int) -> None:
        """What was taken may be overwritten from now on; so many streams will be asked for."""
        self._streams, self._taken = streams, 0

    def take(self, descent: Descent) -> Factors:
        """Room for the factors of a descent."""
        streams, first = len(descent.a_CSH), self._taken
        self._taken += streams
        if self._held is None or self._taken > len(self._held.beta_CH):
            self._held = _made_for(max(self._streams, streams), descent.a_CSH)
            first, self._taken = 0, streams
        return Factors(*(block[first : self._taken] for block in self._held))


def _made_for(streams: int, like_CSH: Tensor) -> Factors:
    _, size, hidden = like_CSH.shape
    shapes = (size, hidden), (hidden,), (hidden + 1, hidden + 1), (size, hidden + 1)
    return Factors(*(like_CSH.new_empty((streams, *shape)) for shape in shapes))


def factors(
    terms: Terms, projected: Projected, descent: Descent, into: Factors | None = None
) -> Factors:
    """For every stream, in given memory or new. Not differentiable: `outputs` is."""
    head, (_, size, hidden) = descent.head, descent.a_CSH.shape
    with torch.no_grad():
        made = into or _made_for(len(descent.a_CSH), descent.a_CSH)
        n_CGG, v_CSG = made.n_CGG, made.v_CSG
        made.a_CSH.copy_(descent.a_CSH)
        made.beta_CH.copy_(descent.beta_CH)
        torch.bmm(head.c_CVJ.h, head.h_CJH, out=n_CGG[:, :hidden, :hidden])
        torch.bmm(head.c_CVJ.a[:, :size], head.h_CJH, out=v_CSG[:, :, :hidden])
        n_CGG[:, :hidden, hidden] = head.sums.h[:, 0]
        v_CSG[:, :, hidden] = head.sums.a[:, 0, :size]
        torch.sum(v_CSG, 1, out=n_CGG[:, hidden]).neg_()
        if head.sums.a.shape[2] > size:
            n_CGG[:, hidden, :hidden] += torch.bmm(head.c_CVJ.a[:, size, None], head.h_CJH)[:, 0]
            n_CGG[:, hidden, hidden] += head.sums.a[:, 0, size]
    return made


def multiplied_out(terms: Terms, factors: Factors, x_CSD: Tensor, y_CSE: Tensor) -> Mlp:
    """θ′ of every stream, stacked. `x_CSD`, `y_CSE` are the support's raw pairs, padded ones 0."""
    a_CSH, beta_CH, n_CGG, v_CSG = factors
    streams, hidden = len(a_CSH), a_CSH.shape[2]
    w1_CHD, w2_CEH = (w.expand(streams, -1, -1) for w in (terms.w1, terms.w2))
    # b2 and y are thin, side by side; θ comes last: what is added to it is small
    thin_CTE = torch.cat([y_CSE, terms.b2.expand(streams, 1, -1)], 1)
    added_CTG = torch.cat([v_CSG, n_CGG[:, hidden:]], 1)
    added_CTH, bias_CT1 = torch.split(added_CTG, [hidden, 1], 2)
    added_CEH = torch.bmm(w2_CEH, n_CGG[:, :hidden, :hidden].contiguous())
    added_CEH.baddbmm_(thin_CTE.transpose(1, 2), added_CTH.contiguous())
    added_CE1 = torch.bmm(w2_CEH, n_CGG[:, :hidden, hidden:].contiguous())
    added_CE1.baddbmm_(thin_CTE.transpose(1, 2), bias_CT1.contiguous())
    return Mlp(
        w1=torch.baddbmm(w1_CHD, a_CSH.transpose(1, 2), x_CSD),
        b1=terms.b1 + beta_CH,
        w2=added_CEH.add_(terms.w2),
        b2=terms.b2 + added_CE1.squeeze(2),
    )


def outputs(terms: Terms, descent: Descent, h_CQH: Tensor, y_CSE: Tensor) -> Tensor:
    """W2′·h + b2′ (C, Q, E), given θ′'s hidden features; differentiable. `y_CSE` as in
    `multiplied_out`.

    In first order θ′ − θ is a constant but for the rates (Finn et al. 2017, §5.2): then V is a
    constant in what the steps added, c·V, and h and θ's own W2, b2 are not.
    """
    head, size = descent.head, y_CSE.shape[1]
    t_CQJ = torch.bmm(h_CQH, head.h_CHJ)
    c_CQH, c_CQA = parts(torch.baddbmm(head.sums_C1V, t_CQJ, head.c_CJV), h_CQH.shape[2])
    # c·V with ŷ = y − b2: how often b2 is in it
    bias_CQ1 = -c_CQA[:, :, :size].sum(2, keepdim=True)
    if c_CQA.shape[2] > size:
        bias_CQ1 = bias_CQ1 + c_CQA[:, :, size, None]
    if descent.first_order:
        w2, b2, y_CSE = terms.w2.detach(), terms.b2.detach(), y_CSE.detach()
        own_CQE = functional.linear(h_CQH, terms.w2, terms.b2)
        o_CQE = own_CQE.add_(functional.linear(c_CQH, w2))
    else:
        b2 = terms.b2
        o_CQE = functional.linear(h_CQH + c_CQH, terms.w2, b2)
    # b2 as one more target: one product less of this size
    targets_CTE = torch.cat([y_CSE, b2.expand(len(y_CSE), 1, -1)], 1)
    return o_CQE.baddbmm_(torch.cat([c_CQA[:, :, :size], bias_CQ1], 2), targets_CTE)
