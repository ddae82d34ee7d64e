"""Our own inner loops, as contenders of `python -m benchmarks adapt`.

B = streams in batch (or in a chunk), S = support pairs, Q = query pairs, N = pairs of a stream,
D = source dim, E = target dim, K = inner steps

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

from benchmarks.inner.peers import Timed, What, leaves_of, one_for_all, some
from benchmarks.inner.problem import Given, Tensors
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
CHUNK = 32  # streams


def materialised(given: Given, what: What) -> Timed:
    """Hand-derived gradients, all streams in one batch; the outer gradient by autograd through
    them."""
    leaves, real_BS = leaves_of(given), _all_real(given.x_BSD)
    learned = leaves if what == "gradient" else (*given.theta, given.rates_K4)

    def moved() -> Mlp:
        theta, pairs = Mlp(*learned[:4]), (given.x_BSD, given.y_BSE)
        return batched.adapt_batched(theta, learned[4], *pairs, real_BS, "tanh")

    def gradient() -> Tensors:
        loss = (apply_batched(moved(), given.x_BQD, "tanh") - given.y_BQE).square().mean()
        return torch.autograd.grad(loss, leaves)

    adapt = torch.inference_mode()(moved)
    return Timed(adapt, some) if what == "adapt" else Timed(gradient, one_for_all)


def in_hidden_space(
    given: Given, what: What, *, cached: bool = False, result: Result = "factors"
) -> Timed:
    """Descent in hidden space. θ′ in the daemon's memory: one workspace for all chunks, whose steps
    the next chunk overwrites, and room for the factors of all streams. The outer gradient by
    autograd, projections and query included."""
    if what == "gradient":
        leaves = leaves_of(given)
        return Timed(lambda: _gradient(given, leaves), one_for_all)
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


def _gradient(given: Given, leaves: Tensors) -> Tensors:
    support = Support(given.x_BSD, given.y_BSE, _all_real(given.x_BSD))

    def adapt(made: Terms, projected: Projected) -> Descent:
        return descend(made, projected, leaves[4], OBJECTIVE)

    o_BQE = hidden_space_outputs(terms(Mlp(*leaves[:4])), support, given.x_BQD, adapt).o_BQE
    return torch.autograd.grad((o_BQE - given.y_BQE).square().mean(), leaves)


def _all_real(x_BND: Tensor) -> Tensor:
    """Says that no pair is padding."""
    return torch.ones(x_BND.shape[:2], dtype=torch.bool, device=x_BND.device)


class _Chunk:
    """A chunk's pairs and their projections."""

    def __init__(
        self, given: Given, result: Result, workspace: Workspace, room: FactorRoom
    ) -> None:
        self._given, self._result = given, result
        self._workspace, self._room = workspace, room
        self._real_BS, self._terms = _all_real(given.x_BSD), terms(given.theta)
        self._kept = self._projected()

    def adapted(self, *, cached: bool) -> Adapted:
        """Descends as far as asked for; steps last until the next call."""
        projected, rates_K4 = self._kept if cached else self._projected(), self._given.rates_K4
        descent = descend(self._terms, projected, rates_K4, OBJECTIVE, self._workspace)
        if self._result == "steps":
            return descent
        made = factors(self._terms, projected, descent, self._room.take(descent))
        return made if self._result == "factors" else self.weights(made)

    def weights(self, adapted: Adapted) -> Mlp:
        """Returns the weights of what `adapted` gave."""
        if isinstance(adapted, Descent):
            adapted = factors(self._terms, self._kept, adapted)
        if isinstance(adapted, Mlp):
            return adapted
        return weights_of(self._terms, adapted, self._given.x_BSD, self._given.y_BSE)

    def _projected(self) -> Projected:
        x_BSD, y_BSE = self._given.x_BSD, self._given.y_BSE
        return project(self._terms, x_BSD, y_BSE, self._real_BS, x_BSD.shape[1])
