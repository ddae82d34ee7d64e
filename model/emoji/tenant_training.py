"""The outer loop of the attention generator: one θ for synthetic tenants of several families.

B = streams in batch (tenants), S = support pairs (padded), Q = query pairs, N = pairs of a stream
(pictures of the outer step), Y = candidates (all concepts, or those of a batch), R = rows (pictures
of a concept), D = source dim, E = target dim

All tenants of an outer step draw from the same N pictures, whose features u(x) are computed once;
the first Q of them are every tenant's query, and in no tenant's support. The loss is that of the
query: squared error, and the cross-entropy of picking the right concept among Y by cosine. It is
taken for the final matrix and, with less weight, for the generator's intermediate ones, so that
each learns from the first step on.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.emoji.tenants import low_rank_generators
from model.mappings.attention import Attention, AttentionConfig, Readout
from model.mappings.mlp import Activation, Mlp, apply
from model.meta.loop import run
from model.meta.progress import TrainingSchedule
from model.meta.progress_lines import lines_of
from model.meta.state import TrainingState

log = logging.getLogger(__name__)

TrainingFamily = Literal["low-rank", "rotation", "sheared"]


@dataclass(frozen=True, slots=True)
class TenantRecipe:
    """How θ and its attention are meta-trained; the shipped ones with these values."""

    shares: tuple[tuple[TrainingFamily, float], ...] = (
        ("low-rank", 0.8),
        ("rotation", 0.1),
        ("sheared", 0.1),
    )
    """The share of tenants that each family has. `sheared` is two rotations with a stretch between
    them: it shows the generator tenants that are no rotation."""
    dim: int = 32
    steps: int = 1_400
    feature_steps: int = 2_000
    """Steps before the outer loop, in which u(x) alone learns the universal embedding."""
    tenants: int = 32
    hidden_dim: int = 256
    activation: Activation = "gelu"
    width: int = 64
    generators: int = 4
    refinements: int = 1
    repairs: int = 2
    pictures: int = 512
    query: int = 64
    candidates: int = 160
    min_support: int = 4
    max_support: int = 64
    empty: float = 0.04
    """The share of tenants without a single pair, from which θ learns what to be without any."""
    feature_noise: float = 0.2
    """Standard deviation of noise on each number of features of norm √D, while u(x) learns
    alone."""
    tenant_noise: float = 0.4
    """The same in the outer loop: vendors not seen are encoded less well than those trained on."""
    rate: float = 2e-3
    feature_rate: float = 1e-4
    """Peak learning rate of u(x) in the outer loop."""
    feature_weight: float = 0.3
    """Weight, in the outer loop, of the loss that u(x) began with."""
    family_weight: float = 0.5
    rotation_weight: float = 0.3
    repair_weight: float = 1.0
    """Weight of the squared error of the support's repaired features against their concepts'
    vectors."""
    feature_temperature: float = 0.03
    """Temperature of the loss of u(x)."""
    temperature: float = 0.1
    """Temperature of the tenants' losses."""
    max_gradient_norm: float = 2.0
    averaging: float = 5e-3
    """How much of each step's parameters goes into the moving average, which is the result."""


class Features(NamedTuple):
    """Features and vectors of concepts, from which tenants' pairs are drawn."""

    x_YRD: Tensor
    """Features of every picture of every concept."""
    u_YE: Tensor
    """The concepts' vectors before a tenant's matrix."""


class OuterBatch(NamedTuple):
    """B tenants and the pictures they share."""

    x_ND: Tensor
    v_N: Tensor
    """The concept of each picture; none occurs twice."""
    matrix_BEE: Tensor
    """u (a row) is u·matrix in the tenant's space."""
    support_BS: Tensor
    """Indices of the support's pictures among the N; never one of the first Q."""
    real_BS: Tensor


class TenantModel(nn.Module):
    """θ, which all tenants share, and its attention generator."""

    def __init__(self, source_dim: int, recipe: TenantRecipe) -> None:
        super().__init__()
        hidden, dim = recipe.hidden_dim, recipe.dim
        self.w1 = nn.Parameter(torch.randn(hidden, source_dim) / math.sqrt(source_dim))
        self.b1 = nn.Parameter(torch.zeros(hidden))
        self.w2 = nn.Parameter(torch.randn(dim, hidden) / math.sqrt(hidden))
        self.b2 = nn.Parameter(torch.zeros(dim))
        self.attention = Attention(
            AttentionConfig(
                source_dim=source_dim,
                target_dim=dim,
                width=recipe.width,
                generators=recipe.generators,
                refinements=recipe.refinements,
                repairs=recipe.repairs,
            )
        )

    def theta(self) -> Mlp:
        """Return θ's mapping, u(x)."""
        return Mlp(self.w1, self.b1, self.w2, self.b2)


def train_tenant_model(
    features: Features, recipe: TenantRecipe, seed: int, minutes: float | None = None
) -> TenantModel:
    """Meta-train θ and its generator. Returns the moving average of the parameters.

    The same arguments give the same result, unless the time limit `minutes` cuts in.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = TenantModel(features.x_YRD.shape[2], recipe)
    train_features(model, features, recipe, generator)
    attention = {"params": list(model.attention.parameters()), "lr": recipe.rate}
    theta = {"params": list(model.theta()), "lr": recipe.feature_rate}
    state = TrainingState(
        model, torch.optim.Adam([attention, theta]), averaged=True, name="tenants"
    )

    def accumulate(step: int) -> dict[str, float]:
        loss = outer_loss(model, features, draw(features, recipe, generator), recipe)
        torch.autograd.backward(loss)
        return {"outer_loss": loss.item()}

    schedule = TrainingSchedule(
        recipe.steps,
        max_gradient_norm=recipe.max_gradient_norm,
        averaging=recipe.averaging,
        minutes=minutes,
    )
    # an episode may be beyond float32; the next is another
    run(state, schedule, accumulate, on_step=lines_of(log.info))
    return state.result


def train_features(
    model: TenantModel, features: Features, recipe: TenantRecipe, generator: torch.Generator
) -> None:
    """Train u(x) in place to map noisy features to the concepts' vectors."""
    theta = nn.ParameterList(model.theta())
    state = TrainingState(theta, torch.optim.Adam(theta, lr=1.5 * recipe.rate), name="u(x)")

    def accumulate(step: int) -> dict[str, float]:
        v_N = torch.randint(len(features.u_YE), (recipe.pictures,), generator=generator)
        x_ND = noisy_pictures(features, v_N, recipe.feature_noise, generator)
        u_NE = apply(model.theta(), x_ND, recipe.activation)
        loss = feature_loss(u_NE, v_N, features, recipe)
        torch.autograd.backward(loss)
        return {"outer_loss": loss.item()}

    run(
        state,
        TrainingSchedule(recipe.feature_steps),
        accumulate,
        on_step=lines_of(log.info),
    )


def outer_loss(
    model: TenantModel, features: Features, batch: OuterBatch, recipe: TenantRecipe
) -> Tensor:
    """Return the outer loss of a batch, a scalar."""
    u_NE = apply(model.theta(), batch.x_ND, recipe.activation)
    y_BNE = features.u_YE[batch.v_N] @ batch.matrix_BEE
    rows = batch.support_BS.unsqueeze(2).expand(-1, -1, recipe.dim)
    y_BSE = y_BNE.gather(1, rows)
    x_BSD, u_BSE = batch.x_ND[batch.support_BS], u_NE[batch.support_BS]
    x_BSD = x_BSD.masked_fill(~batch.real_BS.unsqueeze(2), 0.0)
    read: Readout = model.attention.read_out(x_BSD, u_BSE, y_BSE, batch.real_BS)
    u_QE = u_NE[: recipe.query]
    candidates_BYE = y_BNE[:, : recipe.candidates]

    def query_loss_B(matrix_BEE: Tensor, bias_BE: Tensor | float) -> Tensor:
        e = recipe.dim
        o_BQE = torch.matmul(u_QE, matrix_BEE[:, :e, :e].transpose(1, 2))
        bias = bias_BE[:, None, :e] if isinstance(bias_BE, Tensor) else bias_BE
        return _query_loss(o_BQE + bias, candidates_BYE, recipe)

    final_B = query_loss_B(read.matrix_BEE, read.bias_BE)
    family_B = for_its_own(query_loss_B(read.family_BEE, 0.0), final_B)
    rotation_B = query_loss_B(read.rotation_BEE, 0.0)
    parts_B = final_B + recipe.family_weight * family_B + recipe.rotation_weight * rotation_B
    half = recipe.pictures // 2
    shared = feature_loss(u_NE[:half], batch.v_N[:half], features, recipe)
    true_BSE = features.u_YE[batch.v_N][batch.support_BS]
    wrong_BS = (read.u_BSE[:, :, : recipe.dim] - true_BSE).square().mean(2)
    repair = (wrong_BS * batch.real_BS).sum() / (batch.real_BS.sum() + 1)
    return parts_B.mean() + recipe.feature_weight * shared + recipe.repair_weight * repair


def draw(features: Features, recipe: TenantRecipe, generator: torch.Generator) -> OuterBatch:
    """Draw new tenants. S, the longest support, is log-uniform from step to step: most steps are
    short ones, and cheap."""
    pictures = min(recipe.pictures, len(features.u_YE))
    v_N = torch.randperm(len(features.u_YE), generator=generator)[:pictures]
    low, high = recipe.min_support, recipe.max_support
    exponent = torch.rand((), generator=generator).item()
    longest = round(low * (high / low) ** exponent)
    draws_BN = torch.rand(recipe.tenants, pictures - recipe.query, generator=generator)
    length_B = longest * (0.4 + 0.6 * torch.rand(recipe.tenants, generator=generator))
    empty_B = torch.rand(recipe.tenants, generator=generator) < recipe.empty
    length_B = length_B.ceil().masked_fill(empty_B, 0.0)
    return OuterBatch(
        x_ND=noisy_pictures(features, v_N, recipe.tenant_noise, generator),
        v_N=v_N,
        matrix_BEE=torch.cat(list(_draw_tenants(recipe, generator))),
        support_BS=draws_BN.argsort(1)[:, :longest] + recipe.query,
        real_BS=torch.arange(longest) < length_B[:, None],
    )


def draw_matrices(
    family: TrainingFamily, count: int, dim: int, generator: torch.Generator
) -> Tensor:
    """Draw matrices (count, dim, dim) of new tenants; see `model.emoji.tenants.Tenant`."""
    if family == "low-rank":
        a_B3 = torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2.0 - 1.0
        directions = torch.from_numpy(low_rank_generators(dim))
        return torch.matrix_exp(4.0 * torch.tensordot(a_B3, directions, dims=1)).float()
    rotation_BEE = _rotations(count, dim, generator)
    if family == "rotation":
        return rotation_BEE
    spread_B1 = 1.2 * torch.rand(count, 1, generator=generator)
    stretch_BE = torch.exp(spread_B1 * torch.randn(count, dim, generator=generator))
    stretch_BE = stretch_BE / stretch_BE.square().mean(1, keepdim=True).sqrt()
    return rotation_BEE * stretch_BE.unsqueeze(1) @ _rotations(count, dim, generator)


def _draw_tenants(recipe: TenantRecipe, generator: torch.Generator) -> Iterator[Tensor]:
    families = [family for family, _ in recipe.shares]
    shares = torch.tensor([share for _, share in recipe.shares])
    drawn = torch.multinomial(shares, recipe.tenants, replacement=True, generator=generator)
    counts = torch.bincount(drawn, minlength=len(families)).tolist()
    for family, count in zip(families, counts, strict=True):
        if count:
            yield draw_matrices(family, count, recipe.dim, generator)


def _rotations(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Draw uniformly random rotations (count, dim, dim) of determinant +1."""
    q_BEE, r_BEE = torch.linalg.qr(torch.randn(count, dim, dim, generator=generator))
    q_BEE = q_BEE * torch.diagonal(r_BEE, dim1=1, dim2=2).sign().unsqueeze(1)
    return torch.cat([q_BEE[:, :, :1] * torch.linalg.det(q_BEE)[:, None, None], q_BEE[:, :, 1:]], 2)


def noisy_pictures(
    features: Features, v_N: Tensor, noise: float, generator: torch.Generator
) -> Tensor:
    """Return features (N, D) of one picture of each concept, with noise but at the norm they
    had."""
    a_N = torch.randint(features.x_YRD.shape[1], v_N.shape, generator=generator)
    x_ND = features.x_YRD[v_N, a_N]
    strength_N1 = torch.rand(len(v_N), 1, generator=generator) * 0.7 + 0.65
    noise_ND = torch.randn(x_ND.shape, generator=generator)
    noisy_ND = x_ND + noise * strength_N1 * noise_ND
    norm_N1 = x_ND.square().sum(1, keepdim=True).sqrt()
    return functional.normalize(noisy_ND, dim=1) * norm_N1


def feature_loss(u_NE: Tensor, v_N: Tensor, features: Features, recipe: TenantRecipe) -> Tensor:
    cosine_NY = unit(u_NE) @ unit(features.u_YE).T
    squared_error = (u_NE - features.u_YE[v_N]).square().mean()
    return squared_error + functional.cross_entropy(cosine_NY / recipe.feature_temperature, v_N)


def _query_loss(o_BQE: Tensor, candidates_BYE: Tensor, recipe: TenantRecipe) -> Tensor:
    """Return each tenant's loss (B); the first Q candidates are the queries' own targets."""
    query = o_BQE.shape[1]
    squared_error_B = (o_BQE - candidates_BYE[:, :query]).square().mean((1, 2))
    cosine_BQY = torch.bmm(unit(o_BQE), unit(candidates_BYE).transpose(1, 2))
    truth_BQ = torch.arange(query).expand(o_BQE.shape[:2])
    logits_BYQ = cosine_BQY.transpose(1, 2) / recipe.temperature
    retrieval_BQ = functional.cross_entropy(logits_BYQ, truth_BQ, reduction="none")
    return squared_error_B + retrieval_BQ.mean(1)


def for_its_own(family_B: Tensor, final_B: Tensor) -> Tensor:
    """Return the learned family's loss, softly bounded by the final one plus 3, so that a tenant
    that is plainly not of the family does not shape it."""
    bound_B = final_B.detach() + 3.0
    return -2.0 * torch.logsumexp(torch.stack([-family_B / 2.0, -bound_B / 2.0]), dim=0)


def unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=-1, eps=1e-6)
