"""The memory in which the hidden-space inner loop runs: made once, used for every chunk.

C = streams in a chunk, S = support pairs, N = pairs that are judged, H = hidden, A = anchors,
V = H + A, K = inner steps, J = rows of all steps so far

Steps leave their h and c one below another in (C, K·S, H) and (C, K·S, V): step k writes its own
rows and multiplies with all above. All views of that are made with the memory: on one stream, they
would cost as much as the products.
"""

import math
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from model.inner.hidden.span import Buffers, Head, Parts, head_of, parts

Shape = tuple[int, int, int, int, int]
Laid = TypeVar("Laid")
LINE = 16
"""Numbers; a cache line of float32."""


class Weights(NamedTuple):
    """The rates of one step times the weights of pairs, as columns and as rows."""

    w1_CS1: Tensor
    w1_C1S: Tensor
    b1_C1S: Tensor
    w2_CS1: Tensor
    b2_C1S: Tensor


class Memory(NamedTuple):
    """Of one shape of chunk."""

    steps: list[Buffers]
    heads: list[Head]
    """After every step."""
    weights_K4CS: Tensor
    weights: list[Weights]


class Reused(Generic[Laid]):
    """Grows to what it is used for. What lies in it lasts until the next use."""

    def __init__(self, lay_out: Callable[[Shape, Callable[..., Tensor]], Laid]) -> None:
        self._lay_out = lay_out
        self._numbers = torch.empty(0)
        self._by_shape: dict[Shape, Laid] = {}

    def of(self, shape: Shape, like: Tensor) -> Laid:
        """Memory for a chunk, of `like`'s type and device."""
        if self._numbers.dtype != like.dtype or self._numbers.device != like.device:
            self._numbers, self._by_shape = like.new_empty(0), {}
        if shape not in self._by_shape:
            self._by_shape[shape] = self._laid_out(shape)
        return self._by_shape[shape]

    def _laid_out(self, shape: Shape) -> Laid:
        needed = _Room(torch.empty(2**60, device="meta"))
        self._lay_out(shape, needed)
        if self._numbers.numel() < needed.used:
            self._numbers, self._by_shape = self._numbers.new_zeros(needed.used), {}
        return self._lay_out(shape, _Room(self._numbers))


class Workspace(Reused[Memory]):
    """For steps: C, S, H, A, K."""

    def __init__(self) -> None:
        super().__init__(laid_out)


class JudgingSpace(Reused[Buffers]):
    """For the losses of pairs: C, N, H, A, J."""

    def __init__(self) -> None:
        super().__init__(_for_judging)


def _for_judging(shape: Shape, new: Callable[..., Tensor]) -> Buffers:
    c, n, h, a, j = shape
    c_own, f = new(c, n, h + a), new(c, n, h)
    both = parts(c_own, h)
    return Buffers(
        z=new(c, n, h),
        h=new(c, n, h),
        f=f,
        dz=new(c, n, h),
        c=c_own,
        u=new(c, n, a),
        t=new(c, n, j),
        c_parts=both,
        rows=Parts(both.h.view(-1, h), f.view(-1, h)),
    )


def views_of(weights_K4CS: Tensor) -> list[Weights]:
    """Per step."""
    columns = weights_K4CS.unsqueeze(4).flatten(0, 1).unbind()
    rows = weights_K4CS.unsqueeze(3).flatten(0, 1).unbind()
    return [
        Weights(columns[k], rows[k], rows[k + 1], columns[k + 2], rows[k + 3])
        for k in range(0, 4 * len(weights_K4CS), 4)
    ]


def laid_out(shape: Shape, new: Callable[..., Tensor], *, kept: bool = False) -> Memory:
    """Of tensors that `new` makes. What steps do not leave to later ones is overwritten by the
    next step, or `kept` apart, for a backward pass."""
    c, s, h, a, k = shape
    h_all, c_all, weights_K4CS = new(c, k * s, h), new(c, k * s, h + a), new(k, 4, c, s)
    lasting = Buffers(a=new(c, s, h), beta=new(c, 1, h), sums=new(c, 1, h + a))
    shared = None if kept else _passing(shape, k, new, kept=False)
    steps = []
    for step, start in enumerate(range(0, k * s, s)):
        passing = shared or _passing(shape, step, new, kept=True)
        t, e = (_rows(each, start) for each in (passing.t, passing.e))
        h_own, c_own = (all_steps[:, start : start + s] for all_steps in (h_all, c_all))
        last = {name: value for name, value in lasting._asdict().items() if value is not None}
        steps.append(passing._replace(h=h_own, c_weighted=c_own, t=t, e=e, **last))
    sums = lasting.sums
    assert sums is not None
    heads = [head_of(h_all[:, :j], c_all[:, :j], sums) for j in range(s, k * s + 1, s)]
    return Memory(steps, heads, weights_K4CS, views_of(weights_K4CS))


def _passing(shape: Shape, steps: int, new: Callable[..., Tensor], *, kept: bool) -> Buffers:
    """With t and e for so many earlier steps; dh takes f's place and e takes t's, or both stay."""
    c, s, h, a, _ = shape
    f, c_own, t = new(c, s, h), new(c, s, h + a), new(c, s, steps * s)
    both = parts(c_own, h)
    return Buffers(
        z=new(c, s, h),
        f=f,
        dh=new(c, s, h) if kept else f,
        dz=new(c, s, h),
        c=c_own,
        u=new(c, s, a),
        g=new(c, s, s),
        t=t,
        e=new(c, s, steps * s) if kept else t,
        c_parts=both,
        rows=Parts(both.h.view(-1, h), f.view(-1, h)),
    )


def _rows(buffer: Tensor | None, columns: int) -> Tensor | None:
    """(C, S, columns) at its beginning, contiguous."""
    if buffer is None:
        return None
    c, s, _ = buffer.shape
    return buffer.view(-1)[: c * s * columns].view(c, s, columns)


class _Room:
    """Hands out parts of one tensor, each at the beginning of a cache line."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers
        self.used = 0

    def __call__(self, *shape: int) -> Tensor:
        start, size = self.used, math.prod(shape)
        self.used += size + -size % LINE
        return self._numbers[start : start + size].view(shape)
