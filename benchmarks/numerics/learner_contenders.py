"""One outer gradient as people write it today: with torch.func, with torchopt, with higher.

T = streams in batch, N = pairs of one stream, D = source dim, E = target dim, K = inner steps

torch.func and torchopt: the inner loop for ONE stream, over all by vmap, padded pairs masked.
higher has no vmap: a loop over streams, each with its real pairs alone. Each returns the gradient
with respect to `Problem.learned`, as our own does. Of Reptile that is θ − mean θ′.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, func, nn
from torch.nn import functional

from benchmarks.numerics.learner_problem import EPS, Problem, Sizes, parameters, support_only
from model.mappings.mlp import Mlp, apply
from model.meta import outer
from model.meta.recipe import LearnerKind

Tensors = tuple[Tensor, ...]
Contender = Callable[[Problem], Tensors]
Descent = Callable[[Tensor, Tensors, Tensors, Any], tuple[Tensors, Any]]
"""(rates of this step, tensors, gradients, optimiser's state) to (tensors, state)."""

FIRST_ORDER = ("fomaml", "reptile")
BETAS = (0.9, 0.999)


class CannotTakePart(Exception):
    """The library is not here, or has no such thing."""


def contenders(kind: LearnerKind, sizes: Sizes, dtype: torch.dtype) -> dict[str, Contender]:
    """All by name; each may raise CannotTakePart when called."""
    return {
        "ours": ours(kind, sizes, dtype),
        "torch.func": with_torch_func,
        "torchopt": with_torchopt,
        "higher": with_higher,
    }


def ours(kind: LearnerKind, sizes: Sizes, dtype: torch.dtype) -> Contender:
    """`model.meta.outer` on parameters of the same values."""
    meta = parameters(kind, sizes, dtype)
    learned = [t for t in (*meta.theta(), *meta.learner_tensors.values()) if t.requires_grad]

    def gradients(problem: Problem) -> Tensors:
        meta.zero_grad()
        outer.accumulate(meta, problem.batch, sizes.streams)
        return tuple(p.grad for p in learned if p.grad is not None)

    return gradients


def with_torch_func(problem: Problem) -> Tensors:
    """vmap over streams of a functional loop of grad."""
    return _over_streams(problem, _adam if problem.kind == "adam" else _descent)


def with_torchopt(problem: Problem) -> Tensors:
    """The same loop with torchopt's functional optimisers."""
    if problem.kind == "r2d2":
        raise CannotTakePart("torchopt optimises; a closed-form head is not its affair")
    torchopt: Any = _imported("torchopt")
    rate = float(problem.logarithms.detach().exp().flatten()[0])  # all are equal
    if problem.kind == "adam":
        optimiser = torchopt.adam(rate, BETAS, eps=0.0, eps_root=EPS**2, moment_requires_grad=True)
    else:
        optimiser = torchopt.sgd(rate)

    def fixed(rates: Tensor, tensors: Tensors, found: Tensors, state: Any) -> tuple[Tensors, Any]:
        # of the gradients, for those have the streams' axis: θ itself does not at first
        state = optimiser.init(found) if state is None else state
        updates, state = optimiser.update(found, state, inplace=False)
        return torchopt.apply_updates(tensors, updates, inplace=False), state

    def learned(rates: Tensor, tensors: Tensors, found: Tensors, state: Any) -> tuple[Tensors, Any]:
        moved: list[Tensor] = []
        for i, tensor in enumerate(tensors):  # its rates are a number or a function of the step
            one = torchopt.sgd(lambda _, i=i: rates[i])
            updates, _ = one.update((found[i],), one.init((tensor,)), inplace=False)
            moved += torchopt.apply_updates((tensor,), updates, inplace=False)
        return tuple(moved), None

    return _over_streams(problem, learned if problem.logarithms.requires_grad else fixed)


def with_higher(problem: Problem) -> Tensors:
    """A differentiable optimiser over a monkey-patched module, one stream after another."""
    if problem.kind == "r2d2":
        raise CannotTakePart("higher unrolls optimisers; a closed-form head is not its affair")
    higher: Any = _imported("higher")
    together = support_only(problem) if problem.kind == "reptile" else problem
    net = _module(problem.theta)
    linears = list(net.parameters())
    total: list[Tensor] = [torch.zeros_like(t) for t in problem.learned]
    for episode in zip(*together.batch, strict=True):
        loss, ends = _unrolled(higher, net, problem, episode)
        if problem.kind == "reptile":
            found: Any = [t.detach() - e.detach() for t, e in zip(linears, ends, strict=True)]
        elif problem.kind == "fomaml":
            found = torch.autograd.grad(loss, ends)
        else:
            found = torch.autograd.grad(loss, [*linears, *problem.learned[4:]])
        total = [t + g for t, g in zip(total, found, strict=True)]
    return tuple(t / len(together.batch.x_support_BSD) for t in total)


def _unrolled(
    higher: Any, net: nn.Module, problem: Problem, episode: Tensors
) -> tuple[Tensor, list[Tensor]]:
    """The query loss of one stream, and θ′."""
    x_SD, y_SE, real_S, x_QD, y_QE, _ = episode
    rates = problem.logarithms.exp()
    moving = list(net.parameters())[4 - rates.shape[1] :]
    groups = [{"params": [t]} for t in moving]
    first = [float(r) for r in rates[0].detach()]
    optimiser: torch.optim.Optimizer
    if problem.kind == "adam":
        optimiser = torch.optim.Adam(groups, lr=first[0], betas=BETAS, eps=EPS)
    else:
        optimiser = torch.optim.SGD(groups, lr=first[0])
    exact = problem.kind not in FIRST_ORDER
    options = {"copy_initial_weights": False, "track_higher_grads": exact}
    with higher.innerloop_ctx(net, optimiser, **options) as (patched, steps):
        for rate in rates:
            loss = functional.mse_loss(patched(x_SD[real_S]), y_SE[real_S])
            override = {"lr": list(rate)} if problem.logarithms.requires_grad else None
            steps.step(loss, override=override)
        return functional.mse_loss(patched(x_QD), y_QE), list(patched.parameters())


def _module(theta: Mlp) -> nn.Module:
    """θ as people have it."""
    inputs, outputs = theta.w1.shape[1], theta.w2.shape[0]
    first, last = nn.Linear(inputs, len(theta.b1)), nn.Linear(len(theta.b1), outputs)
    net = nn.Sequential(first, nn.Tanh(), last).to(theta.w1.dtype)
    with torch.no_grad():
        for parameter, tensor in zip(net.parameters(), theta, strict=True):
            parameter.copy_(tensor)
    return net


def _over_streams(problem: Problem, descend: Descent) -> Tensors:
    """The gradient of the mean query loss at θ′, with vmap over streams."""
    theta, logarithms = tuple(problem.theta), problem.logarithms
    if problem.kind == "reptile":
        over = func.vmap(
            lambda *support: _adapted(problem.kind, theta, logarithms, descend, *support)
        )
        with torch.no_grad():
            ends = over(*support_only(problem).batch[:3])
        return tuple(t.detach() - e.mean(0) for t, e in zip(theta, ends, strict=True))

    def query_loss(*episode: Tensor) -> Tensor:
        moved = _adapted(problem.kind, theta, logarithms, descend, *episode[:3])
        return _masked_loss(moved, *episode[3:])

    losses_T = func.vmap(query_loss)(*problem.batch)
    return torch.autograd.grad(losses_T.mean(), problem.learned)


def _adapted(
    kind: LearnerKind,
    theta: Tensors,
    logarithms: Tensor,
    descend: Descent,
    x_ND: Tensor,
    y_NE: Tensor,
    real_N: Tensor,
) -> Tensors:
    """One stream's θ′."""
    if kind == "r2d2":
        return _with_ridge_head(theta, logarithms, x_ND, y_NE, real_N)
    frozen, state = 4 - logarithms.shape[1], None
    for rates in logarithms.exp():
        fixed, moving = theta[:frozen], theta[frozen:]
        at = tuple(t.detach() for t in moving) if kind in FIRST_ORDER else moving
        found = func.grad(lambda m, f=fixed: _masked_loss((*f, *m), x_ND, y_NE, real_N))(at)
        moving, state = descend(rates, moving, found, state)
        theta = (*fixed, *moving)
    return theta


def _descent(rates: Tensor, tensors: Tensors, found: Tensors, state: Any) -> tuple[Tensors, Any]:
    return tuple(t - r * g for t, r, g in zip(tensors, rates, found, strict=True)), None


def _adam(rates: Tensor, tensors: Tensors, found: Tensors, state: Any) -> tuple[Tensors, Any]:
    zeros = tuple(torch.zeros_like(t) for t in tensors)
    k, m, v = (0, zeros, zeros) if state is None else state
    one, two = BETAS
    m = tuple(one * a + (1.0 - one) * g for a, g in zip(m, found, strict=True))
    v = tuple(two * a + (1.0 - two) * g * g for a, g in zip(v, found, strict=True))
    step = k + 1
    moved = tuple(
        t - r * (a / (1.0 - one**step)) / (b / (1.0 - two**step) + EPS**2).sqrt()
        for t, r, a, b in zip(tensors, rates, m, v, strict=True)
    )
    return moved, (step, m, v)


def _with_ridge_head(
    theta: Tensors, logarithms: Tensor, x_ND: Tensor, y_NE: Tensor, real_N: Tensor
) -> Tensors:
    """The dual, for there are fewer pairs than hidden units (Bertinetto et al. 2019, eq. 4)."""
    w1, b1, w2, b2 = theta
    real_N1 = real_N.unsqueeze(1).to(x_ND.dtype)
    h_NH = torch.tanh(x_ND @ w1.T + b1) * real_N1
    precision_w, precision_b = (-logarithms).exp()
    gram_NN = precision_w * h_NH @ h_NH.T + precision_b * real_N1 @ real_N1.T
    residual_NE = (y_NE - h_NH @ w2.T - b2) * real_N1
    c_NE = torch.linalg.solve(gram_NN + torch.eye(len(x_ND), dtype=x_ND.dtype), residual_NE)
    return (w1, b1, w2 + precision_w * c_NE.T @ h_NH, b2 + precision_b * c_NE.sum(0))


def _masked_loss(theta: Tensors, x_ND: Tensor, y_NE: Tensor, real_N: Tensor) -> Tensor:
    """MSE over one stream's real pairs."""
    squared_N = (apply(Mlp(*theta), x_ND, "tanh") - y_NE).square().mean(1)
    return (squared_N * real_N).sum() / real_N.sum().clamp(min=1)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CannotTakePart(f"{name} is not installed: pip install {name}") from error
