"""Other people's inner loops in PyTorch, in the fastest form that their documentation shows.

B = streams in batch, S = support pairs, N = pairs of a stream (support or query), D = source dim,
E = target dim, H = hidden units, K = inner steps

No one masks padding, for there is none, and no one keeps a graph where none is asked for.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, func, nn
from torch.nn import functional

from benchmarks.inner.problem import Given, Tensors
from model.mappings.mlp import Mlp

What = Literal["adapt", "gradient"]  # θ′ of every stream, or the outer gradient by θ and rates
Loss = Callable[[Tensors], Tensor]
Moved = Callable[[Tensor, Tensor], Tensors]  # one stream's x and y to its θ′
Descend = Callable[[Tensor, Tensors, Tensors, Any], tuple[Tensors, Any]]
"""(rates of this step, tensors, gradients, optimiser's state or None) to (tensors, state)."""


class CannotTakePart(Exception):
    """The library is not installed, or has no such thing."""


class Timed(NamedTuple):
    """A contender that is ready."""

    run: Callable[[], Any]  # what is timed
    found: Callable[[Any, list[int]], Tensors]
    """What is compared, of its result, and not timed: θ′ of these streams, each tensor with a
    leading axis, or the gradient with respect to θ and rates, whatever the streams."""


def loop(given: Given, what: What) -> Timed:
    """Autograd by hand, stream by stream."""
    leaves, exact = leaves_of(given), what == "gradient"

    def moved(x_SD: Tensor, y_SE: Tensor) -> Tensors:
        theta = leaves[:4]
        for rate_4 in leaves[4]:
            found = torch.autograd.grad(_loss(theta, x_SD, y_SE), theta, create_graph=exact)
            with torch.set_grad_enabled(exact):
                theta, _ = sgd(rate_4, theta, found, None)
            theta = theta if exact else tuple(t.requires_grad_() for t in theta)
        return theta

    return _stream_by_stream(given, what, leaves, moved)


def by_higher(given: Given, what: What) -> Timed:
    """A differentiable optimiser over a monkey-patched module, stream by stream."""
    imported("higher")
    net, rates_K4 = module_of(given.theta), given.rates_K4.clone()
    optimiser = torch.optim.SGD(groups_of(net.parameters()), lr=0.1)
    leaves = (*net.parameters(), rates_K4.requires_grad_(what == "gradient"))

    def moved(x_SD: Tensor, y_SE: Tensor) -> Tensors:
        exact = what == "gradient"
        with unrolled(net, optimiser, rates_K4, (x_SD, y_SE), exact=exact) as patched:
            return tuple(patched.parameters())

    return _stream_by_stream(given, what, leaves, moved)


def by_torch_func(given: Given, what: What) -> Timed:
    """vmap over a loop of grad."""
    return _vmapped(given, what, sgd)


def by_torchopt(given: Given, what: What) -> Timed:
    """vmap over a loop of grad, with torchopt's SGD."""
    return _vmapped(given, what, torchopt_sgd())


def imported(name: str) -> Any:
    """Returns an optional library. Raises CannotTakePart when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CannotTakePart(f"{name} is not installed: pip install {name}") from error


def some(tensors: Tensors, streams: list[int]) -> Tensors:
    """Returns θ′ of these streams."""
    return tuple(t[streams] for t in tensors)


def one_for_all(tensors: Tensors, streams: list[int]) -> Tensors:
    """Returns a gradient as it is: it is one for all streams."""
    return tensors


def leaves_of(given: Given) -> Tensors:
    """Returns copies of θ and rates, to differentiate by."""
    return tuple(t.detach().clone().requires_grad_() for t in (*given.theta, given.rates_K4))


def sgd(rates: Tensor, tensors: Tensors, found: Tensors, state: Any) -> tuple[Tensors, Any]:
    """Takes a step of SGD, written out, a rate a tensor."""
    return tuple(t - r * g for t, r, g in zip(tensors, rates, found, strict=True)), None


def torchopt_sgd() -> Descend:
    """Returns SGD by torchopt: an optimiser a tensor, for each has a rate of its own."""
    torchopt = imported("torchopt")

    def descend(rates: Tensor, tensors: Tensors, found: Tensors, state: Any) -> tuple[Tensors, Any]:
        moved: list[Tensor] = []
        for i, tensor in enumerate(tensors):  # its rates are numbers or functions of the step
            one = torchopt.sgd(lambda _, i=i: rates[i])
            updates, _ = one.update((found[i],), one.init((tensor,)), inplace=False)
            moved += torchopt.apply_updates((tensor,), updates, inplace=False)
        return tuple(moved), None

    return descend


def moved_by_grad(
    theta: Tensors, rates: Tensor, descend: Descend, loss: Loss, *, first_order: bool = False
) -> Tensors:
    """Returns one stream's θ′ after a step for every row of `rates`, by torch.func's grad. Only the
    last tensors of θ move, as many as a row has rates."""
    frozen, state = 4 - rates.shape[1], None
    for of_step in rates:
        fixed, moving = theta[:frozen], theta[frozen:]
        at = tuple(t.detach() for t in moving) if first_order else moving
        found = func.grad(lambda m, f=fixed: loss((*f, *m)))(at)
        moving, state = descend(of_step, moving, found, state)
        theta = (*fixed, *moving)
    return theta


def module_of(theta: Mlp) -> nn.Module:
    """Returns θ as people have it: a module."""
    (hidden, inputs), outputs = theta.w1.shape, len(theta.w2)
    net = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))
    net = net.to(theta.w1)
    with torch.no_grad():
        for parameter, tensor in zip(net.parameters(), theta, strict=True):
            parameter.copy_(tensor)
    return net


def groups_of(parameters: Iterator[Tensor] | Sequence[Tensor]) -> list[dict[str, Any]]:
    """Returns an optimiser's groups, one a tensor, for each has a rate of its own."""
    return [{"params": [tensor]} for tensor in parameters]


@contextmanager
def unrolled(
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    rates: Tensor,
    pairs: tuple[Tensor, Tensor],
    *,
    exact: bool,
    override: bool = True,
) -> Iterator[Any]:
    """Gives the module that higher patched, after a step for every row of `rates` on one stream's
    pairs; `override`: with those rates instead of the optimiser's own."""
    higher, (x_ND, y_NE) = imported("higher"), pairs
    options = {"copy_initial_weights": False, "track_higher_grads": exact}
    with higher.innerloop_ctx(net, optimiser, **options) as (patched, steps):
        for of_step in rates:
            loss = functional.mse_loss(patched(x_ND), y_NE)
            steps.step(loss, override={"lr": list(of_step)} if override else None)
        yield patched


def _loss(theta: Tensors, x_ND: Tensor, y_NE: Tensor) -> Tensor:
    w1, b1, w2, b2 = theta
    hidden_NH = torch.tanh(functional.linear(x_ND, w1, b1))
    return functional.mse_loss(functional.linear(hidden_NH, w2, b2), y_NE)


def _vmapped(given: Given, what: What, descend: Descend) -> Timed:
    leaves = leaves_of(given) if what == "gradient" else (*given.theta, given.rates_K4)

    def moved(x_SD: Tensor, y_SE: Tensor) -> Tensors:
        return moved_by_grad(leaves[:4], leaves[4], descend, lambda t: _loss(t, x_SD, y_SE))

    def adapt() -> Tensors:
        with torch.no_grad():
            found: Tensors = func.vmap(moved)(given.x_BSD, given.y_BSE)
            return found

    def gradient() -> Tensors:
        losses = func.vmap(lambda x, y, *query: _loss(moved(x, y), *query))
        return torch.autograd.grad(losses(*given[2:]).mean(), leaves)

    return Timed(adapt, some) if what == "adapt" else Timed(gradient, one_for_all)


def _stream_by_stream(given: Given, what: What, leaves: Tensors, moved: Moved) -> Timed:
    def adapt() -> list[Tensors]:
        pairs = zip(given.x_BSD, given.y_BSE, strict=True)
        return [tuple(t.detach() for t in moved(x, y)) for x, y in pairs]

    def stacked(results: list[Tensors], streams: list[int]) -> Tensors:
        return tuple(torch.stack(t) for t in zip(*(results[i] for i in streams), strict=True))

    def gradient() -> Tensors:
        total: Tensors = ()
        for x, y, *query in zip(*given[2:], strict=True):  # memory for one stream's graph at a time
            loss = _loss(moved(x, y), *query) / len(given.x_BSD)
            found = torch.autograd.grad(loss, leaves)
            total = tuple(t.add_(g) for t, g in zip(total, found, strict=False)) or found
        return total

    return Timed(adapt, stacked) if what == "adapt" else Timed(gradient, one_for_all)
