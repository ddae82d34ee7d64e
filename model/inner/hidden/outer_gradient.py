"""The outer gradient through descent on the mse, written out: twice as fast as autograd's.

B = streams in batch, S = support pairs (padded), N = pairs of a stream, H = hidden units,
A = anchors (S of them), V = spanning rows (H + A), K = inner steps, J = rows of all inner steps
(K·S, those of all earlier steps)

*How to think about it.* θ′ is what K steps make of P, G, R, Γ, M and the rates, and an outer loss
says how it should change. Autograd would keep a graph of some thirty small operations for each
step. Instead the forward pass is the code that serves (`model.inner.hidden.memory.descend_in`), in
memory that keeps what every step made, and the backward pass goes through the steps from the last
to the first. Every line of it is the transpose of one line of the step; x̄ is ∂L/∂x. H_j and c_j,
weighted, are the rows of earlier steps below one another; right columns undo left ones, from the
bottom up (the numbers are those of `model.inner.hidden.descent`):

    forward                               backward
    c = [h, −I] + sums + T·c_j       (2)  T̄ = c̄·c_jᵀ,  c̄_j += Tᵀ·c̄,  s̄ums += 1ᵀ·c̄
    T = h·H_jᵀ                       (2)  h̄ = H̄ + c̄ᴴ + T̄·H_j,  H̄_j += T̄ᵀ·h
    [F, U] = c·[M, Rᵀ; R, Γ]         (3)  c̄ += [F̄, Ū]·[M, Rᵀ; R, Γ],  M̄ += cᴴᵀ·F̄,
                                          R̄ += cᴬᵀ·F̄ + Ūᵀ·cᴴ,  Γ̄ += cᴬᵀ·Ū
    E = [F, U]·c_jᵀ                  (3)  F̄ = d̄h + Ē·c_jᴴ,  Ū = Ē·c_jᴬ,  c̄_j += Ēᵀ·[F, U]
    dh = F + E·H_j                   (3)  Ē = d̄h·H_jᵀ,  H̄_j += Eᵀ·d̄h
    dz = dh ∘ σ′(z)                  (4)  d̄h = d̄z ∘ σ′,  z̄ = z̄′ + d̄z ∘ dh ∘ σ″ + h̄ ∘ σ′
    z′ = z + Q·dz, Q = w1∘G + b1     (1)  d̄z = Qᵀ·z̄′ + w1∘Ā + b1ᵀ·β̄,  Q̄ = z̄′·dzᵀ

where c̄ begins with what its row in c_j and in sums met: w2 ∘ c̄_j + b2ᵀ·s̄ums. The naive form is
autograd through `descent.descend_plainly`; tests/model/test_hidden_outer.py compares the two.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.inner.hidden.activation import sigma_backward, sigma_second
from model.inner.hidden.coefficients import Columns, Head, anchors, columns, head_of
from model.inner.hidden.memory import Memory, OutputRoom, StepRoom, Weights, descend_in, laid_out
from model.inner.hidden.projected import Chunk


def descend_with_gradient(chunk: Chunk, weights_K4BS: Tensor) -> tuple[Tensor, Tensor, Head]:
    """Returns A (B, S, H), β (B, 1, H) and the moved second layer, differentiable once.

    For the mse and one step or more. `weights_K4BS` are the rates times `chunk.weight_BS`.
    """
    at = chunk.at
    inputs = (chunk.p_BSH, chunk.g_BSS, at.r_BAH, at.gram_BAA, chunk.m_HH, weights_K4BS)
    a_BSH, beta_B1H, *head = _Descent.apply(chunk, *inputs)
    return a_BSH, beta_B1H, head_of(*head)


class _Descent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, chunk: Chunk, *inputs: Tensor) -> tuple[Tensor, ...]:
        p_BSH, g_BSS, r_BAH, gram_BAA, m_HH, weights_K4BS = (t.detach() for t in inputs)
        chunk = chunk._replace(p_BSH=p_BSH, g_BSS=g_BSS, at=anchors(r_BAH, gram_BAA), m_HH=m_HH)
        sizes = (*p_BSH.shape, gram_BAA.shape[2], len(weights_K4BS))
        memory = laid_out(sizes, p_BSH.new_empty, kept=True)
        memory.weights_K4BS.copy_(weights_K4BS)
        descend_in(memory, chunk)
        ctx.chunk, ctx.memory = chunk, memory
        # aliases: what is returned gets a graph, and ctx must not hold on to that
        return tuple(t.detach() for t in (memory.a_BSH, memory.beta_B1H, *memory.heads[-1][:3]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        bars = _start(ctx.chunk, ctx.memory, outputs)
        for k in reversed(range(len(ctx.memory.steps))):
            _back(bars, ctx.chunk, _kept(ctx.chunk, ctx.memory, k), bars.weights_K4BS[k])
        return None, bars.z_BSH, bars.g_BSS, bars.r_BAH, bars.gram_BAA, bars.m_HH, bars.weights_K4BS


class Kept(NamedTuple):
    """What the forward pass made in one step."""

    room: StepRoom
    z_BSH: Tensor
    """At the first step P, so not in `room`."""
    dh_BSH: Tensor
    """At the first step F, so not in `room`."""
    dz_BSH: Tensor
    weights: Weights
    rows: slice
    """This step's rows in the h and c of all steps."""
    moves_BSS: Tensor | None
    """Q, which moves the next step's z; None at the last step."""
    head: Head | None
    """The second layer before this step; None at the first, where it is θ's."""

    @property
    def outputs(self) -> OutputRoom:
        """c, [F, U] and T."""
        return self.room.outputs


class Bars(NamedTuple):
    """The gradients that add up over steps, in place."""

    a_BSH: Tensor
    beta_BH1: Tensor
    h_BJH: Tensor
    c: Columns
    """Of `Head.c_BJV`."""
    sums: Columns
    z_BSH: Tensor
    g_BSS: Tensor
    r_BAH: Tensor
    gram_BAA: Tensor
    m_HH: Tensor
    weights_K4BS: Tensor


def _kept(chunk: Chunk, memory: Memory, k: int) -> Kept:
    size, steps, room = chunk.p_BSH.shape[1], memory.steps, memory.steps[k]
    dh_BSH = room.dh_BSH if k else room.outputs.f_BNH
    return Kept(
        room=room,
        z_BSH=room.z_BSH if k else chunk.p_BSH,
        dh_BSH=dh_BSH,
        dz_BSH=dh_BSH if chunk.activation == "none" else room.dz_BSH,
        weights=memory.weights[k],
        rows=slice(k * size, (k + 1) * size),
        moves_BSS=steps[k + 1].moves_BSS if k + 1 < len(steps) else None,
        head=memory.heads[k - 1] if k else None,
    )


def _start(chunk: Chunk, memory: Memory, outputs: tuple[Tensor, ...]) -> Bars:
    a_BSH, beta_B1H, h_BJH, c_BJV, sums_B1V = outputs
    c, sums = (columns(bar, h_BJH.shape[2]) for bar in (c_BJV, sums_B1V))
    return Bars(
        a_BSH=a_BSH.contiguous(),
        beta_BH1=beta_B1H.transpose(1, 2).contiguous(),
        h_BJH=h_BJH.clone(memory_format=torch.contiguous_format),
        c=Columns(c.h.contiguous(), c.a.contiguous()),
        sums=Columns(sums.h.clone(), sums.a.clone()),
        z_BSH=torch.zeros_like(a_BSH, memory_format=torch.contiguous_format),
        g_BSS=torch.zeros_like(chunk.g_BSS, memory_format=torch.contiguous_format),
        r_BAH=torch.zeros_like(chunk.at.r_BAH, memory_format=torch.contiguous_format),
        gram_BAA=torch.zeros_like(chunk.at.gram_BAA, memory_format=torch.contiguous_format),
        m_HH=torch.zeros_like(chunk.m_HH),
        weights_K4BS=torch.zeros_like(memory.weights_K4BS),
    )


def _back(bars: Bars, chunk: Chunk, kept: Kept, weights_4BS: Tensor) -> None:
    """Takes the bars from after a step to before it, and fills its weights' bars (4, B, S)."""
    dz_BSH = _first_layer(bars, chunk, kept, weights_4BS)
    c = _own_coefficients(bars, kept, weights_4BS)
    dh_BSH = sigma_backward(chunk.activation, dz_BSH, kept.z_BSH, kept.room.h_BSH, None)
    f_BSH, u_BSA = dh_BSH, None
    if kept.head is not None:
        e_BSJ = torch.bmm(dh_BSH, kept.head.h_BHJ)
        c_BJV = columns(kept.head.c_BJV, dh_BSH.shape[2])
        f_BSH, u_BSA = torch.baddbmm(dh_BSH, e_BSJ, c_BJV.h), torch.bmm(e_BSJ, c_BJV.a)
        _add(bars.c.h, e_BSJ, kept.outputs.f_BNH)
        _add(bars.c.a, e_BSJ, kept.outputs.u_BNA)
        _add(bars.h_BJH, kept.room.e_BSJ, dh_BSH)
    _onto_basis(bars, chunk, kept, c, f_BSH, u_BSA)
    h_BSH = bars.h_BJH[:, kept.rows] + c.h
    if kept.head is not None:
        _coefficients(bars, kept, kept.head, c, h_BSH)
    bars.z_BSH.add_(
        sigma_second(
            chunk.activation, dz_BSH, kept.dh_BSH, kept.dz_BSH, kept.z_BSH, kept.room.h_BSH
        )
    )
    bars.z_BSH.add_(sigma_backward(chunk.activation, h_BSH, kept.z_BSH, kept.room.h_BSH, None))


def _first_layer(bars: Bars, chunk: Chunk, kept: Kept, weights_4BS: Tensor) -> Tensor:
    """d̄z (B, S, H), and the bars of G, w1 and b1: (1)."""
    w, w1_BS, b1_BS = kept.weights, weights_4BS[0], weights_4BS[1]
    b1_BS1 = w.b1_B1S.transpose(1, 2)
    dz_BSH = torch.baddbmm(bars.a_BSH * w.w1_BS1, b1_BS1, bars.beta_BH1.transpose(1, 2))
    torch.sum(bars.a_BSH * kept.dz_BSH, 2, out=w1_BS)
    b1_BS.copy_(torch.bmm(kept.dz_BSH, bars.beta_BH1).squeeze(2))
    if kept.moves_BSS is not None:
        dz_BSH.baddbmm_(kept.moves_BSS.transpose(1, 2), bars.z_BSH)
        q_BSS = torch.bmm(bars.z_BSH, kept.dz_BSH.transpose(1, 2))
        w1_BS.add_((q_BSS * chunk.g_BSS).sum(1))
        b1_BS.add_(q_BSS.sum(1))
        bars.g_BSS.addcmul_(q_BSS, w.w1_B1S)
    return dz_BSH


def _own_coefficients(bars: Bars, kept: Kept, weights_4BS: Tensor) -> Columns:
    """What c̄ begins with, and the bars of w2 and b2."""
    w, b2_BS1 = kept.weights, kept.weights.b2_B1S.transpose(1, 2)
    own = [part[:, kept.rows] for part in bars.c]
    for c, c_bar, s_bar in zip(kept.outputs.c, own, bars.sums, strict=True):
        weights_4BS[2].add_((c_bar * c).sum(2))
        weights_4BS[3].add_(torch.bmm(c, s_bar.transpose(1, 2)).squeeze(2))
    return Columns(
        *(torch.baddbmm(c * w.w2_BS1, b2_BS1, s) for c, s in zip(own, bars.sums, strict=True))
    )


def _onto_basis(
    bars: Bars, chunk: Chunk, kept: Kept, c: Columns, f_BSH: Tensor, u_BSA: Tensor | None
) -> None:
    at, hidden = chunk.at, f_BSH.shape[2]
    rows = f_BSH.view(-1, hidden)
    c.h.view(-1, hidden).addmm_(rows, chunk.m_HH)
    c.a.baddbmm_(f_BSH, at.r_BHA)
    bars.m_HH.addmm_(kept.outputs.c.h.reshape(-1, hidden).t(), rows)
    bars.r_BAH.baddbmm_(kept.outputs.c.a.transpose(1, 2), f_BSH)
    if u_BSA is not None:
        c.h.baddbmm_(u_BSA, at.r_BAH)
        c.a.baddbmm_(u_BSA, at.gram_BAA)
        bars.r_BAH.baddbmm_(u_BSA.transpose(1, 2), kept.outputs.c.h)
        bars.gram_BAA.baddbmm_(kept.outputs.c.a.transpose(1, 2), u_BSA)


def _coefficients(bars: Bars, kept: Kept, head: Head, c: Columns, h_BSH: Tensor) -> None:
    t_BSJ = torch.bmm(c.h, head.c_BVJ.h).baddbmm_(c.a, head.c_BVJ.a)
    _add(bars.c.h, kept.outputs.t_BNJ, c.h)
    _add(bars.c.a, kept.outputs.t_BNJ, c.a)
    _add(bars.h_BJH, t_BSJ, kept.room.h_BSH)
    h_BSH.baddbmm_(t_BSJ, head.h_BJH)
    for total, part in zip(bars.sums, c, strict=True):
        total.add_(part.sum(1, keepdim=True))


def _add(rows: Tensor, weights_BSJ: Tensor, step: Tensor) -> None:
    """Adds weightsᵀ·step to the rows of earlier steps."""
    added = torch.bmm(weights_BSJ.transpose(1, 2), step)
    rows[:, : added.shape[1]].add_(added)
