"""One step of gradient descent in hidden space.

C = streams in a chunk, S = support pairs (padded), H = hidden, A = anchors, V = H + A

Numbers in brackets are the equations of `model.inner.hidden.loop`. Z is not made anew from A and β:
what a step adds to it, α·G·dZ + β·1·1ᵀ·dZ (both rates with the pairs' weights), is one product.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.hidden.activation import backward, forward, gain
from model.inner.hidden.gradient import direction
from model.inner.hidden.span import (
    NEW,
    Anchors,
    Buffers,
    Head,
    Parts,
    head_of,
    moved,
    onto_anchors,
    onto_hidden,
    parts,
    through_head,
)
from model.inner.hidden.workspace import Memory, Weights
from model.losses import Loss
from model.mappings.mlp import AnyActivation


class Chunk(NamedTuple):
    """The support as the steps see it, and what they lower."""

    p_CSH: Tensor
    g_CSS: Tensor
    real_CS: Tensor
    weight_CS: Tensor
    """Minus what every pair's gradient is multiplied with; 0 on padded pairs."""
    at: Anchors
    own_CSA: Tensor
    """What coefficients start with on the anchors: −y of mse, b2 of the others' outputs."""
    m_HH: Tensor
    loss: Loss
    activation: AnyActivation


class Step(NamedTuple):
    """One step's gradient in factors, unweighted."""

    z_CSH: Tensor
    h_CSH: Tensor
    c_CSV: Tensor
    dz_CSH: Tensor


class State(NamedTuple):
    """Where the descent stands."""

    last: Step
    weights: Weights
    """Of the last step."""
    a_CSH: Tensor
    beta_C1H: Tensor
    head: Head


def run(
    chunk: Chunk, weights: Sequence[Weights], memory: Memory | None, *, first_order: bool = False
) -> State:
    """All steps. Raises ValueError for none."""
    state = None
    for k, of_step in enumerate(weights):
        into = memory.steps[k] if memory else NEW
        with torch.no_grad() if first_order else nullcontext():
            last = step(chunk, state, into)
        state = stepped(state, last, of_step, memory.heads[k] if memory else None, into)
    if state is None:
        raise ValueError("no steps")
    return state


def step(chunk: Chunk, state: State | None, into: Buffers) -> Step:
    """The gradient where the descent stands (None: at θ)."""
    activation = chunk.activation
    if state is None:
        z_CSH, head = chunk.p_CSH, None
        h_CSH = forward(activation, z_CSH, into.h, into.dz)
    else:
        z_CSH, head = _first_layer(chunk, state, into), state.head
        h_CSH = forward(activation, z_CSH, into.h, into.dz, gained=True)
    c_CSV, dh_CSH = _second_layer(chunk, h_CSH, head, into)
    return Step(z_CSH, h_CSH, c_CSV, backward(activation, dh_CSH, z_CSH, h_CSH, into.dz))


def stepped(
    state: State | None, last: Step, weights: Weights, room: Head | None, into: Buffers
) -> State:
    """One step on, (2) and (4); `room` is the head in given memory, after this step."""
    _, h_CSH, c_CSV, dz_CSH = last
    weighted_CSV = torch.mul(c_CSV, weights.w2_CS1, out=into.c_weighted)
    if state is None:
        a_CSH = torch.mul(dz_CSH, weights.w1_CS1, out=into.a)
        beta_C1H = torch.bmm(weights.b1_C1S, dz_CSH, out=into.beta)
        sums_C1V = torch.bmm(weights.b2_C1S, c_CSV, out=into.sums)
        head = room or head_of(h_CSH, weighted_CSV, sums_C1V)
    else:
        past = state.head
        a_CSH = torch.addcmul(state.a_CSH, dz_CSH, weights.w1_CS1, out=into.a)
        beta_C1H = torch.baddbmm(state.beta_C1H, weights.b1_C1S, dz_CSH, out=into.beta)
        sums_C1V = torch.baddbmm(past.sums_C1V, weights.b2_C1S, c_CSV, out=into.sums)
        head = room or head_of(
            torch.cat([past.h_CJH, h_CSH], 1), torch.cat([past.c_CJV, weighted_CSV], 1), sums_C1V
        )
    return State(last, weights, a_CSH, beta_C1H, head)


def _first_layer(chunk: Chunk, state: State, into: Buffers) -> Tensor:
    """Z times σ's gain: (1), as what the last step added."""
    z_CSH, weights = state.last.z_CSH, state.weights
    moves_CSS = torch.addcmul(weights.b1_C1S, chunk.g_CSS, weights.w1_C1S, out=into.g)
    times = gain(chunk.activation, z_CSH.dtype)
    before = times if z_CSH is chunk.p_CSH else 1.0
    return torch.baddbmm(z_CSH, moves_CSS, state.last.dz_CSH, beta=before, alpha=times, out=into.z)


def _second_layer(
    chunk: Chunk, h_CSH: Tensor, head: Head | None, into: Buffers
) -> tuple[Tensor, Tensor]:
    """c and D·W2_k. (2), (3)"""
    c_CSV = moved(h_CSH, chunk.own_CSA, head, into)
    c = into.c_parts or parts(c_CSV, h_CSH.shape[2])
    f_CSH = onto_hidden(c, chunk.m_HH, chunk.at, into)
    if chunk.loss.kind == "mse" and head is None:
        return c_CSV, f_CSH
    g = Parts(f_CSH, onto_anchors(c, chunk.at, into))
    if chunk.loss.kind != "mse":
        c_CSV, g = direction(chunk.loss, c, g, chunk.at, chunk.real_CS)
    return c_CSV, g.h if head is None else through_head(g, head, into)
