"""What `python -m benchmarks learners` gives to everyone: the same θ, rates and episodes.

T = streams in batch, S = support pairs (padded), Q = query pairs, D = source dim, H = hidden,
E = target dim, K = inner steps
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.losses import MSE
from model.mappings.mlp import Mlp
from model.meta.episodes import EpisodeBatch
from model.meta.parameters import MetaParameters
from model.meta.recipe import LearnerKind, Recipe, Term

EPS = 1e-12
"""Adam's ε: far below any gradient, for its forms differ where a gradient is about ε."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of one outer step."""

    streams: int = 16
    support: int = 32
    query: int = 32
    source_dim: int = 64
    hidden_dim: int = 128
    target_dim: int = 32
    inner_steps: int = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """One learner's outer step. Losses are MSE, inside and outside, σ is tanh."""

    kind: LearnerKind
    theta: Mlp
    """Leaves."""
    logarithms: Tensor
    """A leaf: of rates (K, 4 or 2), or r2d2's penalties (2)."""
    batch: EpisodeBatch

    @property
    def learned(self) -> tuple[Tensor, ...]:
        """What the outer gradient is asked for."""
        return (*self.theta, self.logarithms) if self.logarithms.requires_grad else self.theta


def recipe(kind: LearnerKind, sizes: Sizes) -> Recipe:
    """As our own meta-training takes it."""
    return Recipe(
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


def parameters(kind: LearnerKind, sizes: Sizes, dtype: torch.dtype) -> MetaParameters:
    """Fresh θ and rates, by seed."""
    fresh = MetaParameters.fresh(sizes.source_dim, sizes.target_dim, recipe(kind, sizes))
    if kind == "adam":
        fresh.learner_config["eps"] = EPS
    return fresh.to(dtype)


def problem(kind: LearnerKind, sizes: Sizes, dtype: torch.dtype) -> Problem:
    """The same for other libraries: copies of our θ and rates, and the episodes."""
    ours = parameters(kind, sizes, dtype)
    theta = Mlp(*(t.detach().clone().requires_grad_() for t in ours.theta()))
    (stored,) = ours.learner_tensors.values()
    logarithms = stored.detach().clone().requires_grad_(stored.requires_grad)
    return Problem(kind, theta, logarithms, episodes(sizes, dtype))


def episodes(sizes: Sizes, dtype: torch.dtype) -> EpisodeBatch:
    """Random pairs; supports of all lengths from 3, the rest is padding."""
    g = torch.Generator().manual_seed(0)
    s, q, streams = sizes.support, sizes.query, sizes.streams
    x_TND = torch.randn(streams, s + q, sizes.source_dim, generator=g).to(dtype)
    y_TNE = torch.randn(streams, s + q, sizes.target_dim, generator=g).to(dtype)
    length_T1 = torch.randint(min(3, s), s + 1, (streams, 1), generator=g)
    real_TS = torch.arange(s) < length_T1
    real_TQ = torch.ones(streams, q, dtype=torch.bool)
    x, y = x_TND, y_TNE
    batch = EpisodeBatch(x[:, :s], y[:, :s], real_TS, x[:, s:], y[:, s:], real_TQ)
    padded_TS1 = ~real_TS.unsqueeze(2)
    return batch._replace(
        x_support_BSD=batch.x_support_BSD.masked_fill(padded_TS1, 0.0),
        y_support_BSE=batch.y_support_BSE.masked_fill(padded_TS1, 0.0),
    )


def support_only(given: Problem) -> Problem:
    """Reptile's: its inner steps take all pairs of an episode, support and query in one."""
    b = given.batch
    together = b._replace(
        x_support_BSD=torch.cat([b.x_support_BSD, b.x_query_BQD], 1),
        y_support_BSE=torch.cat([b.y_support_BSE, b.y_query_BQE], 1),
        real_support_BS=torch.cat([b.real_support_BS, b.real_query_BQ], 1),
    )
    return replace(given, batch=together)
