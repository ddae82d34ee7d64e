"""Our own inner loops, as contenders of `python -m benchmarks adapt`.

B = streams, C = streams of a chunk, S = support pairs, Q = query pairs, D = source dim,
E = target dim, K = inner steps

`materialised` has every stream's weights go through memory at every step (`model.inner.batched`);
the others descend in hidden space (`model.inner.hidden.descent`), a chunk at a time, from raw pairs
or from pairs that were projected when they arrived, as far as asked for:

    steps    until the last step: all that judging on a query needs
    factors  and on to the factors of θ′ − θ, which are published as `lowrank`
    weights  and on to w1, b1, w2, b2 of every stream, which are published as `full`
"""

from typing import Literal

import torch
from torch import Tensor

from benchmarks.numerics.adapt_peers import Tensors, Timed, leaves_of, whole
from benchmarks.numerics.adapt_problem import Given
from model.inner import batched
from model.inner.batched import Objective
from model.inner.hidden.descent import Descent, descend
from model.inner.hidden.memory import Workspace
from model.inner.hidden.projected import Projected, Terms, project, terms
from model.inner.hidden.result import FactorRoom, Factors, factors, hidden_space_outputs, weights_of
from model.inner.learner import Support
from model.losses import MSE
from model.mappings.mlp import Mlp, apply_batched

Result = Literal["steps", "factors", "weights"]

Adapted = Descent | Factors | Mlp

OBJECTIVE = Objective(MSE, "tanh", "none")
CHUNK = 32
"""C."""


def adapt_materialised(given: Given) -> Timed:
    """θ′ by hand-derived gradients, all streams in one batch."""
    real_BS = all_real(given.x_BSD)

    def run() -> Mlp:
        with torch.inference_mode():
            return batched.adapt_batched(
                given.theta, given.rates_K4, given.x_BSD, given.y_BSE, real_BS, "tanh"
            )

    return Timed(run, lambda mlp, streams: tuple(t[streams] for t in mlp))


def gradient_materialised(given: Given) -> Timed:
    """The outer gradient by autograd through the same."""
    leaves, real_BS = leaves_of(given), all_real(given.x_BSD)

    def run() -> Tensors:
        moved = batched.adapt_batched(
            Mlp(*leaves[:4]), leaves[4], given.x_BSD, given.y_BSE, real_BS, "tanh"
        )
        loss = (apply_batched(moved, given.x_BQD, "tanh") - given.y_BQE).square().mean()
        return torch.autograd.grad(loss, leaves)

    return Timed(run, whole)


def adapt_hidden(given: Given, *, cached: bool, result: Result) -> Timed:
    """θ′ by descent in hidden space, in the daemon's memory: one workspace for all chunks, whose
    steps the next chunk overwrites, and room for the factors of all streams."""
    workspace, room = Workspace(), FactorRoom()
    chunks = [
        _Chunk(given.some(slice(start, start + CHUNK)), result, workspace, room)
        for start in range(0, len(given.x_BSD), CHUNK)
    ]

    def run() -> list[Adapted]:
        room.begin(len(given.x_BSD))
        with torch.inference_mode():
            return [chunk.adapted(cached=cached) for chunk in chunks]

    def found(results: list[Adapted], streams: list[int]) -> Tensors:
        alone = []
        with torch.inference_mode():
            for i in streams:
                chunk, adapted = chunks[i // CHUNK], results[i // CHUNK]
                if isinstance(adapted, Descent):  # of the last chunk by now
                    adapted = chunk.adapted(cached=cached)
                alone.append(tuple(t[i % CHUNK] for t in chunk.weights(adapted)))
        return tuple(torch.stack(tensors) for tensors in zip(*alone, strict=True))

    return Timed(run, found)


def gradient_hidden(given: Given) -> Timed:
    """The outer gradient by autograd through hidden space, projections and query included."""
    leaves = leaves_of(given)
    support = Support(given.x_BSD, given.y_BSE, all_real(given.x_BSD))

    def adapt(made: Terms, projected: Projected) -> Descent:
        return descend(made, projected, leaves[4], OBJECTIVE)

    def run() -> Tensors:
        made = terms(Mlp(*leaves[:4]))
        o_BQE = hidden_space_outputs(made, support, given.x_BQD, adapt).o_BQE
        return torch.autograd.grad((o_BQE - given.y_BQE).square().mean(), leaves)

    return Timed(run, whole)


def all_real(x_BND: Tensor) -> Tensor:
    """No pair is padding."""
    return torch.ones(x_BND.shape[:2], dtype=torch.bool, device=x_BND.device)


class _Chunk:
    """A chunk's pairs and their projections."""

    def __init__(
        self, given: Given, result: Result, workspace: Workspace, room: FactorRoom
    ) -> None:
        self._given, self._result = given, result
        self._real_CS = all_real(given.x_BSD)
        self._terms = terms(given.theta)
        self._kept = self._projected()
        self._workspace, self._room = workspace, room

    def adapted(self, *, cached: bool) -> Adapted:
        """As far as asked for; steps last until the next call."""
        projected = self._kept if cached else self._projected()
        descent = descend(self._terms, projected, self._given.rates_K4, OBJECTIVE, self._workspace)
        if self._result == "steps":
            return descent
        made = factors(self._terms, projected, descent, self._room.take(descent))
        return made if self._result == "factors" else self._multiplied_out(made)

    def weights(self, adapted: Adapted) -> Mlp:
        """Of what `adapted` gave."""
        if isinstance(adapted, Descent):
            adapted = factors(self._terms, self._kept, adapted)
        return self._multiplied_out(adapted) if isinstance(adapted, Factors) else adapted

    def _projected(self) -> Projected:
        x_CSD, y_CSE = self._given.x_BSD, self._given.y_BSE
        return project(self._terms, x_CSD, y_CSE, self._real_CS, x_CSD.shape[1])

    def _multiplied_out(self, made: Factors) -> Mlp:
        return weights_of(self._terms, made, self._given.x_BSD, self._given.y_BSE)
