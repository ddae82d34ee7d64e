"""Meta-training and meta-testing on sinusoids, y = A·sin(ω·x − φ), by autograd.

B = streams in batch (functions), S = support pairs, N = pairs of a stream (query points),
I = inputs of a layer, D = source dim, E = target dim

A and φ uniform, inputs uniform or evenly spaced, as `sinusoid_protocols` says. (With +φ, as Li et
al. write it, the distribution is this one mirrored in both axes.) The network is its parameters
w_1, b_1, w_2, b_2, ..., shared by all functions or, with a leading B, each function's own.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.methods.sinusoid_protocols import (
    AMPLITUDES,
    HIDDEN,
    INPUTS,
    META_RATE,
    PHASES,
    Protocol,
    Published,
)
from benchmarks.output import Say

DIMS = (1, HIDDEN, HIDDEN, 1)
DEVIATION = 0.01
"""Of fresh weights, as the code of Finn et al. starts its regressor."""
BLOCK = 500  # outer steps to draw functions for at once: calls cost more than numbers
CHUNK = 500  # functions to adapt at once in meta-testing: a chunk's parameters stay near the cache
TEST_SEED = 1_000_003  # Meta-test functions come from generators of their own

Parameters = tuple[Tensor, ...]


class Points(NamedTuple):
    """Support or query points of many functions: x and y (B, S, 1), no padding."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True, slots=True)
class Learned:
    """What meta-training gives."""

    theta: Parameters
    rates: Sequence[Tensor]  # as θ, or one number (0-d) for each of its tensors
    start: float  # what all of them were before meta-training


def sinusoids(
    generator: torch.Generator,
    functions: int,
    frequencies: tuple[float, float],
    counts: tuple[int, int],
    *,
    even: bool = False,
) -> tuple[Points, Points]:
    """Draws new functions and returns S support and N query points of each; `counts` are S and N.
    Inputs are uniform; with `even`, the query's are evenly spaced from end to end."""

    def uniform(bounds: tuple[float, float], points: int = 1) -> Tensor:
        low, high = bounds
        return low + (high - low) * torch.rand(functions, points, 1, generator=generator)

    amplitude, phase, frequency = uniform(AMPLITUDES), uniform(PHASES), uniform(frequencies)
    support_x, query_x = uniform(INPUTS, counts[0]), uniform(INPUTS, counts[1])
    if even:
        query_x = torch.linspace(*INPUTS, counts[1]).view(1, -1, 1).expand_as(query_x)
    values = [amplitude * torch.sin(frequency * x - phase) for x in (support_x, query_x)]
    return Points(support_x, values[0]), Points(query_x, values[1])


def fresh(generator: torch.Generator, dims: Sequence[int] = DIMS) -> Parameters:
    """Makes a network: weights normal, cut off at two deviations, and no biases."""
    theta: list[Tensor] = []
    for inputs, outputs in itertools.pairwise(dims):
        theta += [torch.empty(outputs, inputs), torch.zeros(outputs)]
        cut = 2.0 * DEVIATION
        torch.nn.init.trunc_normal_(theta[-2], 0.0, DEVIATION, -cut, cut, generator=generator)
    return tuple(theta)


def network_outputs(parameters: Parameters, x_BND: Tensor) -> Tensor:
    """Returns every function's outputs (B, N, E) by its own parameters; ReLU between layers."""
    h_BNI = x_BND
    for layer, (w, b) in enumerate(zip(parameters[::2], parameters[1::2], strict=True)):
        h_BNI = h_BNI.relu() if layer else h_BNI
        h_BNI = torch.baddbmm(b.unsqueeze(1), h_BNI, w.transpose(1, 2))
    return h_BNI


def repeated(theta: Parameters, functions: int) -> Parameters:
    """Returns θ for each of so many functions, without copying."""
    return tuple(tensor.expand(functions, *tensor.shape) for tensor in theta)


def inner_step(
    parameters: Parameters, rates: Sequence[Tensor], support: Points, *, exact: bool = False
) -> Parameters:
    """Returns every function's parameters after one step on its support; `exact` keeps the graph,
    so that gradients are second order."""
    if not exact:
        parameters = tuple(tensor.detach().requires_grad_() for tensor in parameters)
    losses_B = (network_outputs(parameters, support.x) - support.y).square().mean((1, 2))
    found = torch.autograd.grad(losses_B.sum(), parameters, create_graph=exact)
    return tuple(t - rate * g for t, rate, g in zip(parameters, rates, found, strict=True))


def meta_trained(protocol: Protocol, seed: int, say: Say) -> Learned:
    """Returns θ and the rates after all outer steps: Adam on the mean query loss after one inner
    step, second order."""
    generator = torch.Generator().manual_seed(seed)
    theta = fresh(generator)
    low, high = protocol.rates
    start = low + (high - low) * torch.rand((), generator=generator)
    rates = [start.expand_as(t).clone() if protocol.learned_rates else start for t in theta]
    leaves = [t.requires_grad_() for t in (*theta, *(rates if protocol.learned_rates else ()))]
    adam = torch.optim.Adam(leaves, lr=META_RATE, fused=True)
    for done, (support, query) in enumerate(_batches(generator, protocol), start=1):
        moved = inner_step(repeated(theta, protocol.meta_batch), rates, support, exact=True)
        loss = (network_outputs(moved, query.x) - query.y).square().mean()
        for leaf, gradient in zip(leaves, torch.autograd.grad(loss, leaves), strict=True):
            leaf.grad = gradient
        adam.step()
        if done % 10_000 == 0:
            say(f"{protocol.method}, seed {seed}: {done:,} of {protocol.iterations:,} outer steps")
    theta = tuple(t.detach() for t in theta)
    return Learned(theta, [rate.detach() for rate in rates], start.item())


def _batches(generator: torch.Generator, protocol: Protocol) -> Iterator[tuple[Points, Points]]:
    counts = (protocol.shots, protocol.queries)
    for begin in range(0, protocol.iterations, BLOCK):
        steps = min(BLOCK, protocol.iterations - begin)
        block = sinusoids(generator, steps * protocol.meta_batch, protocol.frequencies, counts)
        of_step = [torch.split(t, protocol.meta_batch) for pairs in block for t in pairs]
        for x, y, query_x, query_y in zip(*of_step, strict=True):
            yield Points(x, y), Points(query_x, query_y)


def meta_test(protocol: Protocol, learned: Learned, seed: int, cell: Published) -> Tensor:
    """Returns squared errors (cell.steps + 1, B, N) of new functions before and after each inner
    step on the cell's shots."""
    generator = torch.Generator().manual_seed(TEST_SEED + seed)
    counts, even = (cell.shots, protocol.points), protocol.even_points
    block = sinusoids(generator, protocol.functions, protocol.frequencies, counts, even=even)
    later = [cell.rates_after_first_step * rate for rate in learned.rates]
    chunks = []
    for x, y, query_x, query_y in zip(
        *(torch.split(t, CHUNK) for pairs in block for t in pairs), strict=True
    ):
        parameters = repeated(learned.theta, len(x))
        errors = [(network_outputs(parameters, query_x) - query_y).square()]
        for step in range(cell.steps):
            parameters = inner_step(parameters, later if step else learned.rates, Points(x, y))
            errors.append((network_outputs(parameters, query_x) - query_y).square().detach())
        chunks.append(torch.stack(errors).squeeze(3))
    return torch.cat(chunks, 1)
