"""The descent on the mse with its backward pass written out: the outer gradient's fast way.

C = streams in a batch, S = support pairs (padded), H = hidden, A = S anchors, V = H + A,
K = inner steps, J = rows of all earlier steps

Forward is the code that serves (`model.inner.hidden.step.run`), in memory that keeps what every
step made. Backward goes through the steps from the last to the first. x̄ is ∂L/∂x; H_j and c_j,
weighted, are the rows of earlier steps below one another (`model.inner.hidden.loop` (1) to (4)):

    z′ = z + Q·dz, Q = w1∘G + b1     d̄z = Qᵀ·z̄′ + w1∘Ā + b1ᵀ·β̄,  Q̄ = z̄′·dzᵀ
    dz = dh ∘ σ′(z)                  d̄h = d̄z ∘ σ′,  z̄ = z̄′ + d̄z ∘ dh ∘ σ″ + h̄ ∘ σ′
    dh = F + E·H_j                   Ē = d̄h·H_jᵀ,  H̄_j += Eᵀ·d̄h
    E = [F, U]·c_jᵀ                  F̄ = d̄h + Ē·c_jᴴ,  Ū = Ē·c_jᴬ,  c̄_j += Ēᵀ·[F, U]
    [F, U] = c·[M, Rᵀ; R, Γ]         c̄ += [F̄, Ū]·[M, Rᵀ; R, Γ],  M̄ += cᴴᵀ·F̄,
                                     R̄ += cᴬᵀ·F̄ + Ūᵀ·cᴴ,  Γ̄ += cᴬᵀ·Ū
    c = [h, −I] + sums + T·c_j       T̄ = c̄·c_jᵀ,  c̄_j += Tᵀ·c̄,  s̄ums += 1ᵀ·c̄
    T = h·H_jᵀ                       h̄ = H̄ + c̄ᴴ + T̄·H_j,  H̄_j += T̄ᵀ·h

where c̄ begins with what its row in c_j and in sums met: w2 ∘ c̄_j + b2ᵀ·s̄ums. About twice the
forward pass, without the graph of some thirty operations a step that autograd keeps for it
(tests/model/test_hidden_outer.py compares the two).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.inner.hidden.activation import backward, second
from model.inner.hidden.span import Head, Parts, anchors, head_of, parts
from model.inner.hidden.step import Chunk, run
from model.inner.hidden.workspace import Memory, Weights, laid_out


def by_hand(chunk: Chunk, rates_K4: Tensor) -> bool:
    """Whether there is a gradient to be had, and this way."""
    inputs = (chunk.p_CSH, chunk.at.r_CAH, chunk.g_CSS, rates_K4)
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    return wanted and chunk.loss.kind == "mse" and len(rates_K4) > 0


def descended(chunk: Chunk, rates_K4: Tensor) -> tuple[Tensor, Tensor, Head]:
    """A (C, S, H), β (C, 1, H) and the head."""
    weights_K4CS = rates_K4.unsqueeze(2).unsqueeze(3) * chunk.weight_CS
    at = chunk.at
    inputs = (chunk.p_CSH, chunk.g_CSS, at.r_CAH, at.gram_CAA, chunk.m_HH, weights_K4CS)
    a_CSH, beta_C1H, *head = _Descent.apply(chunk, *inputs)
    return a_CSH, beta_C1H, head_of(*head)


class _Descent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, chunk: Chunk, *inputs: Tensor) -> tuple[Tensor, ...]:
        p_CSH, g_CSS, r_CAH, gram_CAA, m_HH, weights_K4CS = (t.detach() for t in inputs)
        chunk = chunk._replace(p_CSH=p_CSH, g_CSS=g_CSS, at=anchors(r_CAH, gram_CAA), m_HH=m_HH)
        shape = (*p_CSH.shape, gram_CAA.shape[2], len(weights_K4CS))
        memory = laid_out(shape, p_CSH.new_empty, kept=True)
        memory.weights_K4CS.copy_(weights_K4CS)
        last = run(chunk, memory.weights, memory)
        ctx.chunk, ctx.memory = chunk, memory
        # aliases: what is returned gets a graph, and ctx must not hold on to that
        return tuple(t.detach() for t in (last.a_CSH, last.beta_C1H, *last.head[:3]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        bars = _start(ctx.chunk, ctx.memory, outputs)
        for k in reversed(range(len(ctx.memory.steps))):
            _back(bars, ctx.chunk, _kept(ctx.chunk, ctx.memory, k), bars.weights_K4CS[k])
        return None, bars.z_CSH, bars.g_CSS, bars.r_CAH, bars.gram_CAA, bars.m_HH, bars.weights_K4CS


class Kept(NamedTuple):
    """What the forward pass made in one step."""

    z: Tensor
    h: Tensor
    f: Tensor
    dh: Tensor
    dz: Tensor
    c: Parts
    weights: Weights
    rows: slice
    """Of h and c in those of all steps."""
    after: Tensor | None
    """Q (C, S, S) of the next step's z; None at the last."""
    head: Head | None
    """Before the step; None at the first, like t, e (C, S, J) and u (C, S, A)."""
    t: Tensor
    e: Tensor
    u: Tensor


class Bars(NamedTuple):
    """The gradients that add up over steps, in place."""

    a_CSH: Tensor
    beta_CH1: Tensor
    h_CKH: Tensor
    """Rows of all steps."""
    c: Parts
    sums: Parts
    z_CSH: Tensor
    g_CSS: Tensor
    r_CAH: Tensor
    gram_CAA: Tensor
    m_HH: Tensor
    weights_K4CS: Tensor


def _kept(chunk: Chunk, memory: Memory, k: int) -> Kept:
    size, steps = chunk.p_CSH.shape[1], memory.steps
    into, both = steps[k], steps[k].c_parts
    dh_CSH = _there(into.dh if k else into.f)
    assert both is not None
    return Kept(
        z=_there(into.z) if k else chunk.p_CSH,
        h=_there(into.h),
        f=_there(into.f),
        dh=dh_CSH,
        dz=dh_CSH if chunk.activation == "none" else _there(into.dz),
        c=both,
        weights=memory.weights[k],
        rows=slice(k * size, (k + 1) * size),
        after=steps[k + 1].g if k + 1 < len(steps) else None,
        head=memory.heads[k - 1] if k else None,
        t=_there(into.t),
        e=_there(into.e),
        u=_there(into.u),
    )


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def _start(chunk: Chunk, memory: Memory, outputs: tuple[Tensor, ...]) -> Bars:
    a_CSH, beta_C1H, h_CKH, c_CKV, sums_C1V = outputs
    c, sums = (parts(bar, h_CKH.shape[2]) for bar in (c_CKV, sums_C1V))
    return Bars(
        a_CSH=a_CSH.contiguous(),
        beta_CH1=beta_C1H.transpose(1, 2).contiguous(),
        h_CKH=h_CKH.clone(memory_format=torch.contiguous_format),
        c=Parts(c.h.contiguous(), c.a.contiguous()),
        sums=Parts(sums.h.clone(), sums.a.clone()),
        z_CSH=torch.zeros_like(a_CSH, memory_format=torch.contiguous_format),
        g_CSS=torch.zeros_like(chunk.g_CSS, memory_format=torch.contiguous_format),
        r_CAH=torch.zeros_like(chunk.at.r_CAH, memory_format=torch.contiguous_format),
        gram_CAA=torch.zeros_like(chunk.at.gram_CAA, memory_format=torch.contiguous_format),
        m_HH=torch.zeros_like(chunk.m_HH),
        weights_K4CS=torch.zeros_like(memory.weights_K4CS),
    )


def _back(bars: Bars, chunk: Chunk, kept: Kept, weights_4CS: Tensor) -> None:
    """Through one step: the bars before it, and those of its weights."""
    dz_CSH = _first_layer(bars, chunk, kept, weights_4CS)
    c = _own_coefficients(bars, kept, weights_4CS)
    dh_CSH = backward(chunk.activation, dz_CSH, kept.z, kept.h, None)
    f_CSH, u_CSA = dh_CSH, None
    if kept.head is not None:
        e_CSJ = torch.bmm(dh_CSH, kept.head.h_CHJ)
        c_CJV = parts(kept.head.c_CJV, dh_CSH.shape[2])
        f_CSH, u_CSA = torch.baddbmm(dh_CSH, e_CSJ, c_CJV.h), torch.bmm(e_CSJ, c_CJV.a)
        _add(bars.c.h, e_CSJ, kept.f)
        _add(bars.c.a, e_CSJ, kept.u)
        _add(bars.h_CKH, kept.e, dh_CSH)
    _onto_basis(bars, chunk, kept, c, f_CSH, u_CSA)
    h_CSH = bars.h_CKH[:, kept.rows] + c.h
    if kept.head is not None:
        _coefficients(bars, kept, kept.head, c, h_CSH)
    bars.z_CSH.add_(second(chunk.activation, dz_CSH, kept.dh, kept.dz, kept.z, kept.h))
    bars.z_CSH.add_(backward(chunk.activation, h_CSH, kept.z, kept.h, None))


def _first_layer(bars: Bars, chunk: Chunk, kept: Kept, weights_4CS: Tensor) -> Tensor:
    """d̄z."""
    w, w1_CS, b1_CS = kept.weights, weights_4CS[0], weights_4CS[1]
    b1_CS1 = w.b1_C1S.transpose(1, 2)
    dz_CSH = torch.baddbmm(bars.a_CSH * w.w1_CS1, b1_CS1, bars.beta_CH1.transpose(1, 2))
    torch.sum(bars.a_CSH * kept.dz, 2, out=w1_CS)
    b1_CS.copy_(torch.bmm(kept.dz, bars.beta_CH1).squeeze(2))
    if kept.after is not None:
        dz_CSH.baddbmm_(kept.after.transpose(1, 2), bars.z_CSH)
        q_CSS = torch.bmm(bars.z_CSH, kept.dz.transpose(1, 2))
        w1_CS.add_((q_CSS * chunk.g_CSS).sum(1))
        b1_CS.add_(q_CSS.sum(1))
        bars.g_CSS.addcmul_(q_CSS, w.w1_C1S)
    return dz_CSH


def _own_coefficients(bars: Bars, kept: Kept, weights_4CS: Tensor) -> Parts:
    """What c̄ begins with."""
    w, b2_CS1 = kept.weights, kept.weights.b2_C1S.transpose(1, 2)
    own = [part[:, kept.rows] for part in bars.c]
    for c, c_bar, s_bar in zip(kept.c, own, bars.sums, strict=True):
        weights_4CS[2].add_((c_bar * c).sum(2))
        weights_4CS[3].add_(torch.bmm(c, s_bar.transpose(1, 2)).squeeze(2))
    return Parts(
        *(torch.baddbmm(c * w.w2_CS1, b2_CS1, s) for c, s in zip(own, bars.sums, strict=True))
    )


def _onto_basis(
    bars: Bars, chunk: Chunk, kept: Kept, c: Parts, f_CSH: Tensor, u_CSA: Tensor | None
) -> None:
    at, hidden = chunk.at, f_CSH.shape[2]
    rows = f_CSH.view(-1, hidden)
    c.h.view(-1, hidden).addmm_(rows, chunk.m_HH)
    c.a.baddbmm_(f_CSH, at.r_CHA)
    bars.m_HH.addmm_(kept.c.h.reshape(-1, hidden).t(), rows)
    bars.r_CAH.baddbmm_(kept.c.a.transpose(1, 2), f_CSH)
    if u_CSA is not None:
        c.h.baddbmm_(u_CSA, at.r_CAH)
        c.a.baddbmm_(u_CSA, at.gram_CAA)
        bars.r_CAH.baddbmm_(u_CSA.transpose(1, 2), kept.c.h)
        bars.gram_CAA.baddbmm_(kept.c.a.transpose(1, 2), u_CSA)


def _coefficients(bars: Bars, kept: Kept, head: Head, c: Parts, h_CSH: Tensor) -> None:
    t_CSJ = torch.bmm(c.h, head.c_CVJ.h).baddbmm_(c.a, head.c_CVJ.a)
    _add(bars.c.h, kept.t, c.h)
    _add(bars.c.a, kept.t, c.a)
    _add(bars.h_CKH, t_CSJ, kept.h)
    h_CSH.baddbmm_(t_CSJ, head.h_CJH)
    for sums_C1X, part in zip(bars.sums, c, strict=True):
        sums_C1X.add_(part.sum(1, keepdim=True))


def _add(rows_CKX: Tensor, weights_CSJ: Tensor, step_CSX: Tensor) -> None:
    """weightsᵀ·step, to the rows of earlier steps."""
    added_CJX = torch.bmm(weights_CSJ.transpose(1, 2), step_CSX)
    rows_CKX[:, : added_CJX.shape[1]].add_(added_CJX)
