"""The steps of `model.inner.hidden.descent` in memory that is made once and used for every chunk.

B = streams in batch, S = support pairs, N = pairs of a stream (those that are judged), H = hidden
units, A = anchors, V = spanning rows (H + A), K = inner steps, J = rows of all inner steps (those
of all steps so far)

`descent.descend_plainly` is the same mathematics, operation by operation; read that first. Here
every operation writes into a tensor that lies ready, which takes two thirds of the time: nothing is
allocated, no page is touched for the first time, and what a chunk works on stays in the cache. The
results are the same to the bit (tests/model/test_hidden.py).

Steps leave their h and c one below another in (B, K·S, H) and (B, K·S, V): step k writes its own
rows and multiplies with all above. All views are made with the memory: on one stream, making them
would cost as much as the products. Products are written by `out=` rather than by in-place methods,
which torch's FlopCounterMode, that the cost rule is tested with, does not count.
"""

import math
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from model.inner.hidden.activation import apply_sigma, gain, sigma_backward
from model.inner.hidden.coefficients import Anchors, Columns, Head, columns, head_of
from model.inner.hidden.losses import direction
from model.inner.hidden.projected import Chunk

Sizes = tuple[int, int, int, int, int]
Laid = TypeVar("Laid")
LINE = 16
"""Float32 numbers in a cache line."""


class OutputRoom(NamedTuple):
    """Room for the outputs of N pairs as coefficients, and for their products with V."""

    c_BNV: Tensor
    f_BNH: Tensor
    u_BNA: Tensor
    t_BNJ: Tensor
    c: Columns
    """Views of `c_BNV`."""
    c_rows: Tensor
    """`c.h` as a matrix (B·N, H)."""
    f_rows: Tensor
    """`f_BNH` as a matrix (B·N, H)."""

    def through_steps(self, h_BNH: Tensor, own_BNA: Tensor, head: Head | None) -> None:
        """Fills c: the rows h·W2ᵀ + own·anchors, by the second layer as `head` moved it. (2)"""
        if head is None:
            torch.cat([h_BNH, own_BNA], 2, out=self.c_BNV)
            return
        torch.bmm(h_BNH, head.h_BHJ, out=self.t_BNJ)
        torch.add(h_BNH, head.sums.h, out=self.c.h)
        torch.add(own_BNA, head.sums.a, out=self.c.a)
        torch.baddbmm(self.c_BNV, self.t_BNJ, head.c_BJV, out=self.c_BNV)

    def onto_hidden(self, m_HH: Tensor, at: Anchors, anchored: float = 1.0) -> Tensor:
        """Fills and returns f = c·V·W2, with the anchors' part `anchored` times. (3)"""
        torch.mm(self.c_rows, m_HH, out=self.f_rows)
        return torch.baddbmm(self.f_BNH, self.c.a, at.r_BAH, alpha=anchored, out=self.f_BNH)

    def onto_anchors(self, at: Anchors) -> Tensor:
        """Fills and returns u = c·V·anchorsᵀ. (3)"""
        torch.bmm(self.c.h, at.r_BHA, out=self.u_BNA)
        return torch.baddbmm(self.u_BNA, self.c.a, at.gram_BAA, out=self.u_BNA)


class StepRoom(NamedTuple):
    """Room for what one step computes."""

    z_BSH: Tensor
    h_BSH: Tensor
    """This step's rows of all steps' h, so its streams lie apart."""
    outputs: OutputRoom
    dh_BSH: Tensor
    dz_BSH: Tensor
    moves_BSS: Tensor
    """What step k − 1's dz is multiplied with to move z."""
    e_BSJ: Tensor
    weighted_BSV: Tensor
    """This step's rows of all steps' c, so its streams lie apart."""


class Weights(NamedTuple):
    """One step's rates times the weights of pairs, as columns and as rows."""

    w1_BS1: Tensor
    w1_B1S: Tensor
    b1_B1S: Tensor
    w2_BS1: Tensor
    b2_B1S: Tensor


class Memory(NamedTuple):
    """Room for a whole descent of chunks of one shape, and in the end its results."""

    steps: list[StepRoom]
    heads: list[Head]
    """The second layer after every step."""
    weights_K4BS: Tensor
    weights: list[Weights]
    """Views of `weights_K4BS`, per step."""
    a_BSH: Tensor
    beta_B1H: Tensor


class JudgingRoom(NamedTuple):
    """Room for the losses of pairs."""

    z_BNH: Tensor
    h_BNH: Tensor
    spare_BNH: Tensor
    outputs: OutputRoom


def descend_in(memory: Memory, chunk: Chunk) -> None:
    """Takes all steps on `chunk`, with `memory.weights`; leaves θ′ in a, beta and the last head."""
    z_BSH = chunk.p_BSH
    dz_BSH = z_BSH  # of the step before
    for k, (room, weights) in enumerate(zip(memory.steps, memory.weights, strict=True)):
        if k:
            z_BSH = _next_z(chunk, z_BSH, dz_BSH, memory.weights[k - 1], room)
        head = memory.heads[k - 1] if k else None
        h_BSH = apply_sigma(chunk.activation, z_BSH, room.h_BSH, room.dz_BSH, gained=k > 0)
        c_BSV, dh_BSH = _second_layer(chunk, h_BSH, head, room)
        dz_BSH = sigma_backward(chunk.activation, dh_BSH, z_BSH, h_BSH, room.dz_BSH)
        torch.mul(c_BSV, weights.w2_BS1, out=room.weighted_BSV)
        sums_B1V = memory.heads[k].sums_B1V
        if k == 0:
            torch.mul(dz_BSH, weights.w1_BS1, out=memory.a_BSH)
            torch.bmm(weights.b1_B1S, dz_BSH, out=memory.beta_B1H)
            torch.bmm(weights.b2_B1S, c_BSV, out=sums_B1V)
        else:
            memory.a_BSH.addcmul_(dz_BSH, weights.w1_BS1)
            torch.baddbmm(memory.beta_B1H, weights.b1_B1S, dz_BSH, out=memory.beta_B1H)
            torch.baddbmm(sums_B1V, weights.b2_B1S, c_BSV, out=sums_B1V)


def _next_z(
    chunk: Chunk, z_BSH: Tensor, dz_BSH: Tensor, weights: Weights, room: StepRoom
) -> Tensor:
    """z of this step, times σ's gain: (1), as what the last step added."""
    torch.addcmul(weights.b1_B1S, chunk.g_BSS, weights.w1_B1S, out=room.moves_BSS)
    times = gain(chunk.activation, z_BSH.dtype)
    before = times if z_BSH is chunk.p_BSH else 1.0
    return torch.baddbmm(z_BSH, room.moves_BSS, dz_BSH, beta=before, alpha=times, out=room.z_BSH)


def _second_layer(
    chunk: Chunk, h_BSH: Tensor, head: Head | None, room: StepRoom
) -> tuple[Tensor, Tensor]:
    """c and D·W2_k: (2), (3)."""
    outputs = room.outputs
    outputs.through_steps(h_BSH, chunk.own_BSA, head)
    c_BSV, f_BSH = outputs.c_BNV, outputs.onto_hidden(chunk.m_HH, chunk.at)
    if chunk.loss.kind == "mse" and head is None:
        return c_BSV, f_BSH
    g = Columns(f_BSH, outputs.onto_anchors(chunk.at))
    if chunk.loss.kind != "mse":
        c_BSV, g = direction(chunk.loss, outputs.c, g, chunk.at, chunk.real_BS)
    if head is None:
        return c_BSV, g.h
    torch.bmm(g.h, head.c_BVJ.h, out=room.e_BSJ)
    torch.baddbmm(room.e_BSJ, g.a, head.c_BVJ.a, out=room.e_BSJ)
    return c_BSV, torch.baddbmm(g.h, room.e_BSJ, head.h_BJH, out=room.dh_BSH)


class Reused(Generic[Laid]):
    """Memory that grows to what it is used for. What lies in it lasts until the next use."""

    def __init__(self, lay_out: Callable[[Sizes, Callable[..., Tensor]], Laid]) -> None:
        self._lay_out = lay_out
        self._numbers = torch.empty(0)
        self._by_sizes: dict[Sizes, Laid] = {}

    def of(self, sizes: Sizes, like: Tensor) -> Laid:
        """Returns memory for a chunk of such sizes, of `like`'s type and on its device."""
        if self._numbers.dtype != like.dtype or self._numbers.device != like.device:
            self._numbers, self._by_sizes = like.new_empty(0), {}
        if sizes not in self._by_sizes:
            self._by_sizes[sizes] = self._laid_out(sizes)
        return self._by_sizes[sizes]

    def _laid_out(self, sizes: Sizes) -> Laid:
        needed = _Arena(torch.empty(2**60, device="meta"))
        self._lay_out(sizes, needed)
        if self._numbers.numel() < needed.used:
            self._numbers, self._by_sizes = self._numbers.new_zeros(needed.used), {}
        return self._lay_out(sizes, _Arena(self._numbers))


class Workspace(Reused[Memory]):
    """Memory for descents, by sizes B, S, H, A, K."""

    def __init__(self) -> None:
        super().__init__(laid_out)


class JudgingSpace(Reused[JudgingRoom]):
    """Memory for the losses of pairs, by sizes B, N, H, A, J."""

    def __init__(self) -> None:
        super().__init__(_for_judging)


def laid_out(sizes: Sizes, new: Callable[..., Tensor], *, kept: bool = False) -> Memory:
    """Returns memory for a descent, of tensors that `new` makes.

    What a step does not leave to later ones is overwritten by the next step, unless `kept`: then
    each step has memory of its own, for a backward pass to read.
    """
    b, s, h, a, k = sizes
    h_all, c_all, weights_K4BS = new(b, k * s, h), new(b, k * s, h + a), new(k, 4, b, s)
    a_BSH, beta_B1H, sums_B1V = new(b, s, h), new(b, 1, h), new(b, 1, h + a)
    shared = None if kept else _room_for_step(sizes, k, new, kept=False)
    steps = []
    for step, start in enumerate(range(0, k * s, s)):
        room = shared or _room_for_step(sizes, step, new, kept=True)
        t_BSJ, e_BSJ = (_first_columns(each, start) for each in (room.outputs.t_BNJ, room.e_BSJ))
        h_own, c_own = (all_steps[:, start : start + s] for all_steps in (h_all, c_all))
        outputs = room.outputs._replace(t_BNJ=t_BSJ)
        steps.append(room._replace(h_BSH=h_own, weighted_BSV=c_own, outputs=outputs, e_BSJ=e_BSJ))
    heads = [head_of(h_all[:, :j], c_all[:, :j], sums_B1V) for j in range(s, k * s + 1, s)]
    return Memory(steps, heads, weights_K4BS, _views_of(weights_K4BS), a_BSH, beta_B1H)


def _room_for_step(
    sizes: Sizes, earlier: int, new: Callable[..., Tensor], *, kept: bool
) -> StepRoom:
    """Room for a step after so many others, but for h and weighted, which lie elsewhere.

    Unless kept, dh takes f's place and e takes t's.
    """
    b, s, h, a, _ = sizes
    outputs = _room_for_outputs((b, s, h, a, earlier * s), new)
    return StepRoom(
        z_BSH=new(b, s, h),
        h_BSH=outputs.f_BNH,
        outputs=outputs,
        dh_BSH=new(b, s, h) if kept else outputs.f_BNH,
        dz_BSH=new(b, s, h),
        moves_BSS=new(b, s, s),
        e_BSJ=new(b, s, earlier * s) if kept else outputs.t_BNJ,
        weighted_BSV=outputs.c_BNV,
    )


def _for_judging(sizes: Sizes, new: Callable[..., Tensor]) -> JudgingRoom:
    b, n, h, _, _ = sizes
    return JudgingRoom(new(b, n, h), new(b, n, h), new(b, n, h), _room_for_outputs(sizes, new))


def _room_for_outputs(sizes: Sizes, new: Callable[..., Tensor]) -> OutputRoom:
    b, n, h, a, j = sizes
    c_BNV, f_BNH = new(b, n, h + a), new(b, n, h)
    c = columns(c_BNV, h)
    rows = (c.h.view(-1, h), f_BNH.view(-1, h))
    return OutputRoom(c_BNV, f_BNH, new(b, n, a), new(b, n, j), c, *rows)


def _views_of(weights_K4BS: Tensor) -> list[Weights]:
    columns = weights_K4BS.unsqueeze(4).flatten(0, 1).unbind()
    rows = weights_K4BS.unsqueeze(3).flatten(0, 1).unbind()
    return [
        Weights(columns[k], rows[k], rows[k + 1], columns[k + 2], rows[k + 3])
        for k in range(0, 4 * len(weights_K4BS), 4)
    ]


def _first_columns(room: Tensor, count: int) -> Tensor:
    """(B, S, count) at the beginning of that memory, contiguous."""
    b, s, _ = room.shape
    return room.view(-1)[: b * s * count].view(b, s, count)


class _Arena:
    """Hands out parts of one tensor, each at the beginning of a cache line."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers
        self.used = 0

    def __call__(self, *shape: int) -> Tensor:
        start, size = self.used, math.prod(shape)
        self.used += size + -size % LINE
        return self._numbers[start : start + size].view(shape)
