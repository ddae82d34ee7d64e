"""Other people's inner loops in PyTorch, in the fastest form that their documentation shows.

B = streams, S = support pairs, N = support or query pairs, D = source dim, E = target dim,
K = inner steps

`loop`        the inner loop written by hand: autograd, one stream after another
`higher`      a differentiable optimiser over a monkey-patched module, one stream after another
`torch.func`  the loop of `grad` for ONE stream, all streams by `vmap`
`torchopt`    the same with torchopt's functional SGD

No one masks padding, for there is none, and no one keeps a graph where none is asked for.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, func, nn
from torch.nn import functional

from benchmarks.numerics.adapt_problem import Given

Tensors = tuple[Tensor, ...]
Descend = Callable[[Tensor, Tensors, Tensors], Tensors]
"""(rates of this step (4), tensors, gradients) to tensors."""


class CannotTakePart(Exception):
    """The library is not here, or has no such thing."""


class Timed(NamedTuple):
    """A contender that is ready."""

    run: Callable[[], Any]
    """What is timed."""
    found: Callable[[Any, list[int]], Tensors]
    """What is compared, of its result, and not timed: θ′ of these streams, each tensor with a
    leading axis, or the gradient with respect to θ and rates, whatever the streams."""


def adapt_loop(given: Given) -> Timed:
    """θ′ by autograd, stream by stream."""

    def run() -> list[Tensors]:
        return [_by_hand(given, x, y) for x, y in zip(given.x_BSD, given.y_BSE, strict=True)]

    return Timed(run, _stacked)


def adapt_higher(given: Given) -> Timed:
    """θ′ by higher, stream by stream."""
    higher = imported("higher")
    net, optimiser = _module_and_sgd(given)

    def one(x_SD: Tensor, y_SE: Tensor) -> Tensors:
        with higher.innerloop_ctx(net, optimiser, track_higher_grads=False) as (patched, steps):
            _higher_steps(patched, steps, given.rates_K4, x_SD, y_SE)
            return tuple(t.detach() for t in patched.parameters())

    def run() -> list[Tensors]:
        return [one(x, y) for x, y in zip(given.x_BSD, given.y_BSE, strict=True)]

    return Timed(run, _stacked)


def adapt_torch_func(given: Given) -> Timed:
    """θ′ by vmap over grad."""
    return _adapt_vmapped(given, plain)


def adapt_torchopt(given: Given) -> Timed:
    """θ′ by vmap over grad and torchopt's SGD."""
    return _adapt_vmapped(given, by_torchopt())


def gradient_loop(given: Given) -> Timed:
    """The outer gradient by autograd, stream by stream."""
    leaves = leaves_of(given)

    def one(x_SD: Tensor, y_SE: Tensor, x_QD: Tensor, y_QE: Tensor) -> Tensors:
        theta = leaves[:4]
        for rate_4 in leaves[4]:
            inner = _loss(theta, x_SD, y_SE)
            found = torch.autograd.grad(inner, theta, create_graph=True)
            theta = plain(rate_4, theta, found)
        return torch.autograd.grad(_loss(theta, x_QD, y_QE) / len(given.x_BSD), leaves)

    return Timed(lambda: _summed(one, given), whole)


def gradient_higher(given: Given) -> Timed:
    """The outer gradient by higher, stream by stream."""
    higher = imported("higher")
    net, optimiser = _module_and_sgd(given)
    rates_K4 = given.rates_K4.clone().requires_grad_()
    options = {"copy_initial_weights": False, "track_higher_grads": True}

    def one(x_SD: Tensor, y_SE: Tensor, x_QD: Tensor, y_QE: Tensor) -> Tensors:
        with higher.innerloop_ctx(net, optimiser, **options) as (patched, steps):
            _higher_steps(patched, steps, rates_K4, x_SD, y_SE)
            loss = functional.mse_loss(patched(x_QD), y_QE) / len(given.x_BSD)
            return torch.autograd.grad(loss, (*net.parameters(), rates_K4))

    return Timed(lambda: _summed(one, given), whole)


def gradient_torch_func(given: Given) -> Timed:
    """The outer gradient by autograd over vmap over grad."""
    return _gradient_vmapped(given, plain)


def gradient_torchopt(given: Given) -> Timed:
    """The same with torchopt's SGD."""
    return _gradient_vmapped(given, by_torchopt())


def imported(name: str) -> Any:
    """An optional library. Raises CannotTakePart."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CannotTakePart(f"{name} is not installed: pip install {name}") from error


def picked(tensors: Tensors, streams: list[int]) -> Tensors:
    """These streams of stacked tensors."""
    return tuple(t[streams] for t in tensors)


def whole(tensors: Tensors, streams: list[int]) -> Tensors:
    """A gradient is one for all streams."""
    return tensors


def leaves_of(given: Given) -> Tensors:
    """θ and rates, to differentiate by."""
    return tuple(t.detach().clone().requires_grad_() for t in (*given.theta, given.rates_K4))


def plain(rate_4: Tensor, tensors: Tensors, found: Tensors) -> Tensors:
    """SGD, written out."""
    return tuple(t - r * g for t, r, g in zip(tensors, rate_4, found, strict=True))


def by_torchopt() -> Descend:
    """SGD by torchopt: an optimiser a tensor, for each has a rate of its own."""
    torchopt = imported("torchopt")

    def descend(rate_4: Tensor, tensors: Tensors, found: Tensors) -> Tensors:
        moved: list[Tensor] = []
        for i, tensor in enumerate(tensors):  # its rates are numbers or functions of the step
            one = torchopt.sgd(lambda _, i=i: rate_4[i])
            updates, _ = one.update((found[i],), one.init((tensor,)), inplace=False)
            moved += torchopt.apply_updates((tensor,), updates, inplace=False)
        return tuple(moved)

    return descend


def _by_hand(given: Given, x_SD: Tensor, y_SE: Tensor) -> Tensors:
    theta: Tensors = tuple(t.detach().requires_grad_() for t in given.theta)
    for rate_4 in given.rates_K4:
        found = torch.autograd.grad(_loss(theta, x_SD, y_SE), theta)
        with torch.no_grad():
            theta = tuple(t.requires_grad_() for t in plain(rate_4, theta, found))
    return tuple(t.detach() for t in theta)


def _loss(theta: Tensors, x_ND: Tensor, y_NE: Tensor) -> Tensor:
    w1, b1, w2, b2 = theta
    hidden_NH = torch.tanh(functional.linear(x_ND, w1, b1))
    return functional.mse_loss(functional.linear(hidden_NH, w2, b2), y_NE)


def _descended(
    theta: Tensors, rates_K4: Tensor, descend: Descend, x_SD: Tensor, y_SE: Tensor
) -> Tensors:
    """One stream's θ′."""
    for rate_4 in rates_K4:
        theta = descend(rate_4, theta, func.grad(_loss)(theta, x_SD, y_SE))
    return theta


def _adapt_vmapped(given: Given, descend: Descend) -> Timed:
    theta = tuple(given.theta)
    over = func.vmap(lambda x, y: _descended(theta, given.rates_K4, descend, x, y))

    def run() -> Tensors:
        with torch.no_grad():
            found: Tensors = over(given.x_BSD, given.y_BSE)
            return found

    return Timed(run, picked)


def _gradient_vmapped(given: Given, descend: Descend) -> Timed:
    leaves = leaves_of(given)

    def query_loss(x_SD: Tensor, y_SE: Tensor, x_QD: Tensor, y_QE: Tensor) -> Tensor:
        return _loss(_descended(leaves[:4], leaves[4], descend, x_SD, y_SE), x_QD, y_QE)

    def run() -> Tensors:
        return torch.autograd.grad(func.vmap(query_loss)(*given[2:]).mean(), leaves)

    return Timed(run, whole)


def _module_and_sgd(given: Given) -> tuple[nn.Module, torch.optim.Optimizer]:
    """θ and its optimiser as people have them, a group a tensor."""
    (hidden, inputs), outputs = given.theta.w1.shape, len(given.theta.w2)
    net = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))
    net = net.to(given.theta.w1)
    with torch.no_grad():
        for parameter, tensor in zip(net.parameters(), given.theta, strict=True):
            parameter.copy_(tensor)
    return net, torch.optim.SGD([{"params": [t]} for t in net.parameters()], lr=0.1)


def _higher_steps(patched: Any, steps: Any, rates_K4: Tensor, x_SD: Tensor, y_SE: Tensor) -> None:
    for rate_4 in rates_K4:
        loss = functional.mse_loss(patched(x_SD), y_SE)
        steps.step(loss, override={"lr": list(rate_4)})


def _summed(one: Callable[..., Tensors], given: Given) -> Tensors:
    """Over streams; memory for one stream's graph at a time."""
    total: Tensors | None = None
    for episode in zip(*given[2:], strict=True):
        found = one(*episode)
        if total is None:
            total = found
        else:
            total = tuple(t.add_(g) for t, g in zip(total, found, strict=True))
    return total or ()


def _stacked(results: list[Tensors], streams: list[int]) -> Tensors:
    return tuple(torch.stack(t) for t in zip(*(results[i] for i in streams), strict=True))
