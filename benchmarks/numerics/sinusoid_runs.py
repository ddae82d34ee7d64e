"""Meta-training and meta-testing on sinusoids, y = A·sin(ω·x − φ).

F = functions (streams), B = functions of one outer step, S = support points, N = query points,
P = all parameters in one vector

A and φ uniform, inputs uniform or evenly spaced, as `benchmarks.numerics.sinusoid_protocols` says.
(With +φ, as Li et al. write it, the distribution is this one mirrored in both axes.)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.numerics.outer_gradient import Pairs, layers_of, outer_gradient
from benchmarks.numerics.sinusoid_protocols import (
    AMPLITUDES,
    HIDDEN,
    INPUTS,
    META_RATE,
    PHASES,
    Protocol,
)
from model.inner import deep as inner
from model.inner.learner import Support
from model.mappings import deep

DIMS = (1, HIDDEN, HIDDEN, 1)
BLOCK = 500
"""Outer steps to draw functions for at once: calls cost more than numbers."""
CHUNK = 500
"""Functions to adapt at once in meta-testing: a chunk's parameters stay near the cache."""
TEST_SEED = 1_000_003
"""Meta-test functions come from generators of their own."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Learned:
    """What meta-training gives."""

    theta_P: Tensor
    rates: Tensor
    """One per parameter (P), or one number (0-d)."""
    start: float
    """What all of them were before meta-training."""


def sinusoids(
    generator: torch.Generator,
    functions: int,
    frequencies: tuple[float, float],
    counts: tuple[int, int],
    *,
    even: bool = False,
) -> tuple[Pairs, Pairs]:
    """Support (F, S, 1) and query (F, N, 1) points of new functions; `counts` are S and N.

    Inputs are uniform; with `even`, the query's are evenly spaced from end to end.
    """

    def uniform(bounds: tuple[float, float], points: int = 1) -> Tensor:
        low, high = bounds
        return low + (high - low) * torch.rand(functions, points, 1, generator=generator)

    amplitude, phase, frequency = uniform(AMPLITUDES), uniform(PHASES), uniform(frequencies)
    support_x, query_x = uniform(INPUTS, counts[0]), uniform(INPUTS, counts[1])
    if even:
        query_x = torch.linspace(*INPUTS, counts[1]).view(1, -1, 1).expand_as(query_x)

    def values(x: Tensor) -> Tensor:
        return amplitude * torch.sin(frequency * x - phase)

    return Pairs(support_x, values(support_x)), Pairs(query_x, values(query_x))


def meta_train(protocol: Protocol, seed: int, say: Say) -> Learned:
    """θ and the rates after all outer steps: Adam on the mean query loss after one inner step."""
    generator = torch.Generator().manual_seed(seed)
    theta_P = torch.cat([t.flatten() for t in deep.flat(deep.fresh(DIMS, generator))])
    low, high = protocol.rates
    rates = low + (high - low) * torch.rand((), generator=generator)
    start = rates.item()
    if protocol.learned_rates:
        rates = rates.expand_as(theta_P).clone()
    leaves = [theta_P.requires_grad_()]
    leaves += [rates.requires_grad_()] if protocol.learned_rates else []
    adam = torch.optim.Adam(leaves, lr=META_RATE, fused=True)
    for done, (support, query) in enumerate(_batches(generator, protocol), start=1):
        outer = outer_gradient(theta_P, rates, DIMS, support, query)
        for leaf, gradient in zip(leaves, (outer.theta_P, outer.rates_P), strict=False):
            leaf.grad = gradient
        adam.step()
        if done % 10_000 == 0:
            say(f"{protocol.method}, seed {seed}: {done:,} of {protocol.iterations:,} outer steps")
    return Learned(theta_P.detach(), rates.detach(), start)


def _batches(generator: torch.Generator, protocol: Protocol) -> Iterator[tuple[Pairs, Pairs]]:
    counts = (protocol.shots, protocol.queries)
    for begin in range(0, protocol.iterations, BLOCK):
        steps = min(BLOCK, protocol.iterations - begin)
        block = sinusoids(generator, steps * protocol.meta_batch, protocol.frequencies, counts)
        of_step = [[torch.split(t, protocol.meta_batch) for t in pairs] for pairs in block]
        for x, y, query_x, query_y in zip(*of_step[0], *of_step[1], strict=True):
            yield Pairs(x, y), Pairs(query_x, query_y)


def meta_test(
    protocol: Protocol, learned: Learned, seed: int, shots: int, steps: int, later: float
) -> Tensor:
    """Squared errors (steps + 1, F, N) of new functions before and after each inner step on
    `shots` points; from the second step on at `later` times the rates."""
    generator = torch.Generator().manual_seed(TEST_SEED + seed)
    counts = (shots, protocol.points)
    support, query = sinusoids(
        generator, protocol.functions, protocol.frequencies, counts, even=protocol.even_points
    )
    episodes = [torch.split(t, CHUNK) for t in (*support, *query)]
    chunks = [
        _errors(learned, Pairs(x, y), Pairs(query_x, query_y), steps, later)
        for x, y, query_x, query_y in zip(*episodes, strict=True)
    ]
    return torch.cat(chunks, 1)


def _errors(learned: Learned, support: Pairs, query: Pairs, steps: int, later: float) -> Tensor:
    """Squared errors (steps + 1, B, N) of a chunk, through the inner loop of the product."""
    layers = deep.expand(layers_of(learned.theta_P, DIMS), len(support.x))
    parameters = deep.flat(layers)
    rates = learned.rates.expand_as(learned.theta_P)
    given = Support(*support, torch.ones(support.x.shape[:2], dtype=torch.bool))
    errors = [(_forward(parameters, query.x) - query.y).square()]
    for step in range(steps):
        own = deep.flat(layers_of(rates if step == 0 else later * rates, DIMS))
        parameters = inner.step(_forward, parameters, own, given, second_order=False)
        errors.append((_forward(parameters, query.x) - query.y).square())
    return torch.stack(errors).squeeze(3)


def _forward(parameters: inner.Parameters, x_BND: Tensor) -> Tensor:
    return deep.apply_batched(deep.layered(parameters), x_BND, "relu")
