"""One outer gradient of every learner: ours, and as people write it with torch.func, with torchopt
and with higher.

B = streams in batch, S = support pairs (padded), Q = query pairs, N = pairs of a stream,
D = source dim, H = hidden units, E = target dim, K = inner steps

torch.func and torchopt: the inner loop for ONE stream, over all by vmap, padded pairs masked.
higher has no vmap: a loop over streams, each with its real pairs alone. Each returns the gradient
with respect to `Problem.learned`, as our own does. Of Reptile that is θ − mean θ′. Losses are MSE,
inside and outside, σ is tanh.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, func
from torch.nn import functional

from benchmarks.inner.peers import (
    CannotTakePart,
    Descend,
    groups_of,
    imported,
    module_of,
    moved_by_grad,
    sgd,
    torchopt_sgd,
    unrolled,
)
from benchmarks.inner.problem import Sizes, Tensors
from model.losses import MSE
from model.mappings.mlp import Mlp, apply
from model.meta import outer
from model.meta.episodes import EpisodeBatch
from model.meta.parameters import MetaParameters
from model.meta.recipe import LearnerKind, Recipe, Term

FIRST_ORDER = ("fomaml", "reptile")
BETAS = (0.9, 0.999)
EPS = 1e-12  # Adam's ε: far below any gradient, for its forms differ where a gradient is about ε


@dataclass(frozen=True, slots=True)
class Problem:
    """One learner's outer step: the same θ, rates and episodes for everyone."""

    kind: LearnerKind
    theta: Mlp  # leaves
    logarithms: Tensor  # A leaf: of rates (K, 4 or 2), or r2d2's penalties (2)
    batch: EpisodeBatch

    @property
    def learned(self) -> Tensors:
        """What the outer gradient is asked for."""
        return (*self.theta, self.logarithms) if self.logarithms.requires_grad else self.theta


Contender = Callable[[Problem], Tensors]


def problem(kind: LearnerKind, sizes: Sizes, dtype: torch.dtype) -> Problem:
    """Copies our θ and rates for other libraries, and makes the episodes."""
    ours = parameters(kind, sizes, dtype)
    theta = Mlp(*(t.detach().clone().requires_grad_() for t in ours.theta()))
    (stored,) = ours.learner_tensors.values()
    logarithms = stored.detach().clone().requires_grad_(stored.requires_grad)
    return Problem(kind, theta, logarithms, episodes(sizes, dtype))


def parameters(kind: LearnerKind, sizes: Sizes, dtype: torch.dtype) -> MetaParameters:
    """Makes fresh θ and rates by seed, as our own meta-training takes them."""
    recipe = Recipe(
        learner=kind,
        inner_steps=sizes.inner_steps,
        inner_rate=0.01 if kind == "adam" else 0.3,
        outer_losses=(Term(MSE),),
        hidden_dim=sizes.hidden_dim,
        activation="tanh",
        streams=sizes.streams,
        max_support=sizes.support,
        query=sizes.query,
        minibatches=1,
    )
    fresh = MetaParameters.fresh(sizes.source_dim, sizes.target_dim, recipe)
    if kind == "adam":
        fresh.learner_config["eps"] = EPS
    return fresh.to(dtype)


def episodes(sizes: Sizes, dtype: torch.dtype) -> EpisodeBatch:
    """Makes random pairs; supports of all lengths from 3, the rest is padding."""
    g = torch.Generator().manual_seed(0)
    s, q, streams = sizes.support, sizes.query, sizes.streams
    x_BND = torch.randn(streams, s + q, sizes.source_dim, generator=g).to(dtype)
    y_BNE = torch.randn(streams, s + q, sizes.target_dim, generator=g).to(dtype)
    length_B1 = torch.randint(min(3, s), s + 1, (streams, 1), generator=g)
    real_BS, real_BQ = torch.arange(s) < length_B1, torch.ones(streams, q, dtype=torch.bool)
    x_BSD, y_BSE = (t[:, :s].masked_fill(~real_BS.unsqueeze(2), 0.0) for t in (x_BND, y_BNE))
    return EpisodeBatch(x_BSD, y_BSE, real_BS, x_BND[:, s:], y_BNE[:, s:], real_BQ)


def contenders(kind: LearnerKind, sizes: Sizes, dtype: torch.dtype) -> dict[str, Contender]:
    """Returns all by name, ours with parameters of the same values as `problem` makes; each may
    raise CannotTakePart when called."""
    meta = parameters(kind, sizes, dtype)
    learned = [t for t in (*meta.theta(), *meta.learner_tensors.values()) if t.requires_grad]

    def ours(problem: Problem) -> Tensors:
        meta.zero_grad()
        outer.accumulate(meta, problem.batch, sizes.streams)
        return tuple(p.grad for p in learned if p.grad is not None)

    others = {"torch.func": with_torch_func, "torchopt": with_torchopt, "higher": with_higher}
    return {"ours": ours, **others}


def with_torch_func(problem: Problem) -> Tensors:
    """vmap over streams of a functional loop of grad."""
    return _over_streams(problem, _adam if problem.kind == "adam" else sgd)


def with_torchopt(problem: Problem) -> Tensors:
    """vmap over streams of a loop of grad, with torchopt's functional optimisers."""
    if problem.kind == "r2d2":
        raise CannotTakePart("torchopt optimises; a closed-form head is not its affair")
    torchopt: Any = imported("torchopt")
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

    return _over_streams(problem, torchopt_sgd() if problem.logarithms.requires_grad else fixed)


def with_higher(problem: Problem) -> Tensors:
    """A differentiable optimiser over a monkey-patched module, one stream after another."""
    if problem.kind == "r2d2":
        raise CannotTakePart("higher unrolls optimisers; a closed-form head is not its affair")
    imported("higher")
    net, batch = module_of(problem.theta), _inner_batch(problem)
    linears = list(net.parameters())
    total: list[Tensor] = [torch.zeros_like(t) for t in problem.learned]
    for episode in zip(*batch, strict=True):
        loss, ends = _one_by_higher(net, problem, episode)
        if problem.kind == "reptile":
            found: Any = [t.detach() - e.detach() for t, e in zip(linears, ends, strict=True)]
        else:
            leaves = ends if problem.kind == "fomaml" else [*linears, *problem.learned[4:]]
            found = torch.autograd.grad(loss, leaves)
        total = [t + g for t, g in zip(total, found, strict=True)]
    return tuple(t / len(batch[0]) for t in total)


def _one_by_higher(net: Any, problem: Problem, episode: Tensors) -> tuple[Tensor, list[Tensor]]:
    """Returns the query loss of one stream, and θ′."""
    x_SD, y_SE, real_S, x_QD, y_QE, _ = episode
    rates, exact = problem.logarithms.exp(), problem.kind not in FIRST_ORDER
    groups = groups_of(list(net.parameters())[4 - rates.shape[1] :])
    first = float(rates[0, 0].detach())  # all are equal
    adam = partial(torch.optim.Adam, betas=BETAS, eps=EPS)
    optimiser = (adam if problem.kind == "adam" else torch.optim.SGD)(groups, lr=first)
    pairs, learned = (x_SD[real_S], y_SE[real_S]), problem.logarithms.requires_grad
    with unrolled(net, optimiser, rates, pairs, exact=exact, override=learned) as patched:
        return functional.mse_loss(patched(x_QD), y_QE), list(patched.parameters())


def _over_streams(problem: Problem, descend: Descend) -> Tensors:
    """Returns the gradient of the mean query loss at θ′, with vmap over streams."""
    theta, first_order = tuple(problem.theta), problem.kind in FIRST_ORDER

    def adapted(*support: Tensor) -> Tensors:
        if problem.kind == "r2d2":
            return _with_ridge_head(theta, problem.logarithms, *support)
        rates = problem.logarithms.exp()
        return moved_by_grad(
            theta, rates, descend, lambda t: _masked_loss(t, *support), first_order=first_order
        )

    if problem.kind == "reptile":
        with torch.no_grad():
            ends = func.vmap(adapted)(*_inner_batch(problem)[:3])
        return tuple(t.detach() - e.mean(0) for t, e in zip(theta, ends, strict=True))
    losses_B = func.vmap(lambda *e: _masked_loss(adapted(*e[:3]), *e[3:]))(*problem.batch)
    return torch.autograd.grad(losses_B.mean(), problem.learned)


def _inner_batch(problem: Problem) -> EpisodeBatch:
    """Reptile's inner steps take all pairs of an episode, support and query in one."""
    if problem.kind != "reptile":
        return problem.batch
    support, query = problem.batch[:3], problem.batch[3:]
    every = (torch.cat(both, 1) for both in zip(support, query, strict=True))
    return EpisodeBatch._make((*every, *query))


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
    """Solves the dual: there are fewer pairs than hidden units (Bertinetto et al. 2019, eq. 4)."""
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
