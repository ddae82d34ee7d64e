"""What θ′ is for its readers: thin factors, weights in full, outputs, and the losses of pairs.

B = streams in batch, S = support pairs (padded), Q = query pairs (padded), N = pairs of a stream
(S + Q), D = source dim, E = target dim, H = hidden units, G = H + 1, J = rows of all inner steps
(K·S), A = anchors, V = spanning rows (H + A), R = rows (S + 1, the targets and b2)

A descent knows θ′ by coefficients (`model.inner.hidden.descent`). What steps did to the second
layer is [W2′, b2′] = [W2, b2] + Vᵀ·κ with κ = [Σ_j c_jᵀ·H_j, sumsᵀ], (H + A, G). Rows of V are W2ᵀ,
ŷ = y − b2 and, for some losses, b2. So

    W1′ = W1 + aᵀ·x, b1′ = b1 + β, [W2′, b2′] = [W2, b2]·(I + n) + yᵀ·v

where v is κ's rows for ŷ, and n is its rows for W2ᵀ and below them, for b2, its row for b2 less the
sum of those for ŷ.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.inner.hidden.activation import apply_sigma
from model.inner.hidden.coefficients import Columns, columns
from model.inner.hidden.descent import Descent
from model.inner.hidden.losses import Outputs, losses_from
from model.inner.hidden.memory import JudgingSpace
from model.inner.hidden.projected import (
    Projected,
    TargetMean,
    Terms,
    anchors_of,
    project_to_learn,
)
from model.inner.learner import Support
from model.inner.neighbours import missed
from model.inner.units import SideUnits
from model.losses import Loss
from model.mappings.mlp import Mlp


class Factors(NamedTuple):
    """θ′ − θ as thin factors; rows of padded pairs are 0."""

    a_BSH: Tensor
    beta_BH: Tensor
    n_BGG: Tensor
    v_BSG: Tensor


class FactorRoom:
    """Memory for the factors of many chunks that is used again: finding and clearing it anew would
    cost more than filling it."""

    def __init__(self) -> None:
        self._held: Factors | None = None
        self._streams = self._taken = 0

    def begin(self, streams: int) -> None:
        """Lets what was taken be overwritten; factors of so many streams will be asked for."""
        self._streams, self._taken = streams, 0

    def take(self, descent: Descent) -> Factors:
        """Returns room for the factors of a descent."""
        streams, first = len(descent.a_BSH), self._taken
        self._taken += streams
        if self._held is None or self._taken > len(self._held.beta_BH):
            self._held = _made_for(max(self._streams, streams), descent.a_BSH)
            first, self._taken = 0, streams
        return Factors(*(block[first : self._taken] for block in self._held))


def _made_for(streams: int, like_BSH: Tensor) -> Factors:
    _, size, hidden = like_BSH.shape
    shapes = (size, hidden), (hidden,), (hidden + 1, hidden + 1), (size, hidden + 1)
    return Factors(*(like_BSH.new_empty((streams, *shape)) for shape in shapes))


def factors(
    terms: Terms, projected: Projected, descent: Descent, into: Factors | None = None
) -> Factors:
    """Returns θ′ − θ of every stream, in `into` unless that is None. Not differentiable."""
    head, (_, size, hidden) = descent.head, descent.a_BSH.shape
    with torch.no_grad():
        made = into or _made_for(len(descent.a_BSH), descent.a_BSH)
        n_BGG, v_BSG = made.n_BGG, made.v_BSG
        made.a_BSH.copy_(descent.a_BSH)
        made.beta_BH.copy_(descent.beta_BH)
        torch.bmm(head.c_BVJ.h, head.h_BJH, out=n_BGG[:, :hidden, :hidden])
        torch.bmm(head.c_BVJ.a[:, :size], head.h_BJH, out=v_BSG[:, :, :hidden])
        n_BGG[:, :hidden, hidden] = head.sums.h[:, 0]
        v_BSG[:, :, hidden] = head.sums.a[:, 0, :size]
        torch.sum(v_BSG, 1, out=n_BGG[:, hidden]).neg_()
        if head.sums.a.shape[2] > size:
            n_BGG[:, hidden, :hidden] += torch.bmm(head.c_BVJ.a[:, size, None], head.h_BJH)[:, 0]
            n_BGG[:, hidden, hidden] += head.sums.a[:, 0, size]
    return made


def weights_of(terms: Terms, factors: Factors, x_BSD: Tensor, y_BSE: Tensor) -> Mlp:
    """Returns θ′ of every stream, stacked, from the support's raw pairs, padded ones 0."""
    a_BSH, beta_BH, n_BGG, v_BSG = factors
    streams, hidden = len(a_BSH), a_BSH.shape[2]
    w1_BHD, w2_BEH = (w.expand(streams, -1, -1) for w in (terms.w1, terms.w2))
    # b2 and y are thin, side by side; θ comes last: what is added to it is small
    thin_BRE = torch.cat([y_BSE, terms.b2.expand(streams, 1, -1)], 1)
    added_BRG = torch.cat([v_BSG, n_BGG[:, hidden:]], 1)
    added_BRH, bias_BR1 = torch.split(added_BRG, [hidden, 1], 2)
    added_BEH = torch.bmm(w2_BEH, n_BGG[:, :hidden, :hidden].contiguous())
    added_BEH.baddbmm_(thin_BRE.transpose(1, 2), added_BRH.contiguous())
    added_BE1 = torch.bmm(w2_BEH, n_BGG[:, :hidden, hidden:].contiguous())
    added_BE1.baddbmm_(thin_BRE.transpose(1, 2), bias_BR1.contiguous())
    return Mlp(
        w1=torch.baddbmm(w1_BHD, a_BSH.transpose(1, 2), x_BSD),
        b1=terms.b1 + beta_BH,
        w2=added_BEH.add_(terms.w2),
        b2=terms.b2 + added_BE1.squeeze(2),
    )


def outputs(terms: Terms, descent: Descent, h_BQH: Tensor, y_BSE: Tensor) -> Tensor:
    """Returns W2′·h + b2′ (B, Q, E) given θ′'s hidden features; differentiable.

    `y_BSE` are the support's targets, padded ones 0. Outputs are made in full, so that any loss may
    follow and nothing cancels, but no θ′ is written out. In first order θ′ − θ is a constant but
    for the rates (Finn et al. 2017, §5.2): V is then a constant in what the steps added, c·V, and h
    and θ's own W2, b2 are not.
    """
    head, size = descent.head, y_BSE.shape[1]
    t_BQJ = torch.bmm(h_BQH, head.h_BHJ)
    c_BQH, c_BQA = columns(torch.baddbmm(head.sums_B1V, t_BQJ, head.c_BJV), h_BQH.shape[2])
    # c·V with ŷ = y − b2: how often b2 is in it
    bias_BQ1 = -c_BQA[:, :, :size].sum(2, keepdim=True)
    if c_BQA.shape[2] > size:
        bias_BQ1 = bias_BQ1 + c_BQA[:, :, size, None]
    if descent.first_order:
        w2, b2, y_BSE = terms.w2.detach(), terms.b2.detach(), y_BSE.detach()
        own_BQE = functional.linear(h_BQH, terms.w2, terms.b2)
        o_BQE = own_BQE.add_(functional.linear(c_BQH, w2))
    else:
        b2 = terms.b2
        o_BQE = functional.linear(h_BQH + c_BQH, terms.w2, b2)
    # b2 as one more target: one product less of this size
    targets_BRE = torch.cat([y_BSE, b2.expand(len(y_BSE), 1, -1)], 1)
    return o_BQE.baddbmm_(torch.cat([c_BQA[:, :, :size], bias_BQ1], 2), targets_BRE)


class AdaptedOutputs(NamedTuple):
    """What θ′ of B streams makes of their queries."""

    o_BQE: Tensor
    healthy_B: Tensor
    """False where the descent was not finite: leave those streams out and run the rest again."""


def hidden_space_outputs(
    terms: Terms,
    support: Support,
    x_BQD: Tensor,
    descend: Callable[[Terms, Projected], Descent],
) -> AdaptedOutputs:
    """Returns what θ′ makes of the queries, for the outer loop: differentiable.

    `descend` is `descent.descend`, `head.descend_head` or `head.solve_head` with its rates. Queries
    need not be cleaned of what stands in padded ones, if the outer loss is.
    """
    x_BSD, y_BSE, real_BS = support.cleaned()
    descent = descend(terms, project_to_learn(terms, x_BSD, y_BSE, real_BS))
    g_BSQ = torch.bmm(x_BSD, x_BQD.transpose(1, 2))
    h_BQH = hidden_features(functional.linear(x_BQD, terms.w1, terms.b1), g_BSQ, descent)
    return AdaptedOutputs(outputs(terms, descent, h_BQH, y_BSE), descent.healthy_B)


def pair_losses(
    terms: Terms,
    projected: Projected,
    descent: Descent,
    loss: Loss,
    space: JudgingSpace | None = None,
) -> Tensor:
    """Returns the loss by θ′ (B, N) of every pair, support and query alike, alone in its stream.

    `loss` is mse or cosine (`model.losses.judged_by`). Not differentiable.
    """
    return losses_from(terms, projected, pair_outputs(terms, projected, descent, space).own, loss)


class PairOutputs(NamedTuple):
    """What θ′ makes of every pair. Coefficients last until the space's next use."""

    own: Outputs
    c: Columns
    """ô as coefficients on V (B, N, H) and (B, N, A)."""
    y: Columns
    """ŷ's products with V."""

    def support_missed(self, projected: Projected) -> Tensor:
        """Returns 1 for each support pair whose output is nearer to another pair's target than to
        its own, else 0 (B, S)."""
        size = projected.g_BSN.shape[1]
        c_h, c_a, y_h, y_a = (part[:, :size] for side in (self.c, self.y) for part in side)
        onto_BSS = torch.bmm(c_h, y_h.transpose(1, 2))
        onto_BSS = torch.baddbmm(onto_BSS, c_a, y_a.transpose(1, 2))
        return missed(onto_BSS, projected.yy_BN[:, :size], projected.real_BN[:, :size])

    def onto(self, vector: Columns) -> Tensor:
        """Returns ô·v (B, N) of one vector v for each stream, from its products with V (B, 1,
        ...)."""
        # sums and no bmm, whose kernel for one column depends on how many streams there are
        return (self.c.h * vector.h).sum(2) + (self.c.a * vector.a).sum(2)


def pair_outputs(
    terms: Terms, projected: Projected, descent: Descent, space: JudgingSpace | None = None
) -> PairOutputs:
    """Returns the outputs of θ′ less b2, by their products. Not differentiable."""
    head = descent.head
    sizes = (*projected.p_BNH.shape, head.sums.a.shape[2], head.h_BJH.shape[1])
    room = (space or JudgingSpace()).of(sizes, projected.p_BNH)
    torch.add(projected.p_BNH, descent.beta_BH.unsqueeze(1), out=room.z_BNH)
    g_BNS = projected.g_BSN.transpose(1, 2)
    torch.baddbmm(room.z_BNH, g_BNS, descent.a_BSH, out=room.z_BNH)
    h_BNH = apply_sigma(descent.objective.activation, room.z_BNH, room.h_BNH, room.spare_BNH)
    anchors = head.sums.a.shape[2]
    at = anchors_of(terms, projected, with_bias=anchors > projected.g_BSN.shape[1])
    made, nothing_BNA = room.outputs, h_BNH.new_zeros(()).expand(*h_BNH.shape[:2], anchors)
    made.through_steps(h_BNH, nothing_BNA, head)
    # |o·V|² = o·V·Vᵀ·oᵀ, whose mixed terms come twice
    f_BNH, u_BNA = made.onto_hidden(terms.m_HH, at, anchored=2.0), made.u_BNA
    torch.bmm(made.c.a, at.gram_BAA, out=u_BNA)
    oo_BN = _dots(made.c.h, f_BNH, room.z_BNH) + _dots(made.c.a, u_BNA, u_BNA)
    y = _targets(projected, made.c)
    oy_BN = _dots(made.c.h, y.h, room.z_BNH) + _dots(made.c.a, y.a, u_BNA)
    ob_BN = made.c.h @ terms.w2b_H + _onto_bias(terms, projected, made.c.a)
    return PairOutputs(Outputs(oo_BN, oy_BN, ob_BN), made.c, y)


def mean_onto(projected: Projected, mean: TargetMean, units: SideUnits, anchors: int) -> Columns:
    """Returns the products of the support's mean target m with V: W2ᵀ, ŷ and, if there, b2."""
    size = projected.g_BSN.shape[1]
    less_B1 = (units.share_B * mean.own_B).unsqueeze(1)
    y_BS = (mean.y_BN[:, :size] - less_B1) / units.scale_B.unsqueeze(1) - mean.t_B.unsqueeze(1)
    y_BS = y_BS.masked_fill(~projected.real_BN[:, :size], 0.0)
    if anchors > size:
        y_BS = torch.cat([y_BS, mean.t_B.unsqueeze(1)], 1)
    a_BA = functional.pad(y_BS, (0, anchors - y_BS.shape[1]))
    return Columns(mean.r_B1H, a_BA.unsqueeze(1))


def hidden_features(p_BNH: Tensor, g_BSN: Tensor, descent: Descent) -> Tensor:
    """Returns σ(W1′·x + b1′) of any pairs (B, N, H), from their projections; differentiable."""
    z_BNH = p_BNH + descent.beta_BH.unsqueeze(1)
    z_BNH = torch.baddbmm(z_BNH, g_BSN.transpose(1, 2), descent.a_BSH)
    return apply_sigma(descent.objective.activation, z_BNH)


def _dots(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Products row by row (B, N)."""
    return torch.mul(left, right, out=out).sum(2)


def _targets(projected: Projected, c: Columns) -> Columns:
    """ŷ's products with V."""
    gamma_BNS, missing = projected.gamma_BSN.transpose(1, 2), c.a.shape[2]
    if missing == gamma_BNS.shape[2]:
        return Columns(projected.r_BNH, gamma_BNS)
    a_BNA = torch.cat([gamma_BNS, projected.t_BN.unsqueeze(2)], 2)
    a_BNA = functional.pad(a_BNA, (0, missing - a_BNA.shape[2]))
    return Columns(projected.r_BNH, a_BNA)


def _onto_bias(terms: Terms, projected: Projected, c_BNA: Tensor) -> Tensor:
    """The anchors' part of ô·b2 (B, N)."""
    size = projected.g_BSN.shape[1]
    t_BS1 = projected.t_BN[:, :size].unsqueeze(2)
    own_BN = torch.bmm(c_BNA[:, :, :size], t_BS1).squeeze(2)
    return own_BN if c_BNA.shape[2] == size else own_BN + c_BNA[:, :, size] * terms.bb
