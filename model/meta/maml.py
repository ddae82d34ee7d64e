"""The outer loop: second-order MAML over synthetic tenants, on cached picture features.

T = tenants in batch, S = support pairs, Q = query pairs, D = source dim, H = hidden,
E = target dim, K = inner steps, V = concepts, A = pictures of a concept (vendors × augmentations)

θ and the inner rates are moved so that θ′, adapted on a support, does well on other concepts
(Finn et al. 2017; rates per step and tensor after Antoniou et al. 2019). The gradient runs
through the very code that adapts in production, `model.inner.batched`.
"""

import copy
import logging
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.data.emoji import low_rank_generators
from model.inner import batched
from model.mappings.mlp import Activation, Mlp, apply_batched
from model.meta.schedule import Schedule

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MamlRecipe:
    """How θ is meta-trained; the shipped one with these values."""

    steps: int = 4_500
    tenants: int = 16
    hidden_dim: int = 128
    inner_steps: int = 5
    activation: Activation = "gelu"
    rate: float = 2e-3
    log_rate_rate: float = 4e-3
    """The outer learning rate of the inner rates' logarithms."""
    min_support: int = 3
    max_support: int = 64
    query: int = 64
    retrieval_weight: float = 0.2
    """Of the retrieval loss, against the mean squared error of one target number."""
    temperature: float = 0.1
    first_rate: float = 0.5
    feature_noise: float = 0.3
    """Standard deviation of noise on the features: vendors not seen are encoded less well."""
    max_gradient_norm: float = 1.0
    averaging: float = 5e-3
    """How much of each step's parameters goes into the moving average, which is the result."""


@dataclass(frozen=True, slots=True)
class Features:
    """What the outer loop draws episodes from."""

    x_VAD: Tensor
    """Features of every picture of every concept."""
    u_VE: Tensor
    """The concepts' vectors before a tenant's rotation."""


@dataclass(frozen=True, slots=True)
class MetaBatch:
    """Episodes of T tenants; the support of each has its own length, the rest is masked."""

    x_support_TSD: Tensor
    y_support_TSE: Tensor
    real_TS: Tensor
    x_query_TQD: Tensor
    y_query_TQE: Tensor


class MetaParameters(torch.nn.Module):
    """θ and the logarithms of the inner rates: rates stay positive."""

    def __init__(self, source_dim: int, target_dim: int, recipe: MamlRecipe) -> None:
        super().__init__()
        hidden = recipe.hidden_dim
        self.w1 = torch.nn.Parameter(torch.randn(hidden, source_dim) / source_dim**0.5)
        self.b1 = torch.nn.Parameter(torch.zeros(hidden))
        self.w2 = torch.nn.Parameter(torch.randn(target_dim, hidden) / hidden**0.5)
        self.b2 = torch.nn.Parameter(torch.zeros(target_dim))
        log_rates_K4 = torch.full((recipe.inner_steps, 4), recipe.first_rate).log()
        self.log_rates_K4 = torch.nn.Parameter(log_rates_K4)

    def theta(self) -> Mlp:
        """The mapping all tenants start from."""
        return Mlp(self.w1, self.b1, self.w2, self.b2)

    def rates_K4(self) -> Tensor:
        """The rate of every inner step and tensor."""
        return self.log_rates_K4.exp()


def train(
    features: Features, recipe: MamlRecipe, seed: int, minutes: float | None
) -> MetaParameters:
    """θ and rates after the outer loop."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    parameters = MetaParameters(features.x_VAD.shape[2], features.u_VE.shape[1], recipe)
    average = copy.deepcopy(parameters).requires_grad_(False)
    peaks = (recipe.rate, recipe.log_rate_rate)
    groups = (list(parameters.theta()), [parameters.log_rates_K4])
    optimiser = torch.optim.Adam({"params": group} for group in groups)
    schedule = Schedule(recipe.steps, minutes)
    while not schedule.finished:
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * schedule.rate_factor()
        loss = outer_loss(parameters, draw(features, recipe, generator), recipe)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters.parameters(), recipe.max_gradient_norm)
        optimiser.step()
        for slow, fast in zip(average.parameters(), parameters.parameters(), strict=True):
            slow.lerp_(fast.detach(), recipe.averaging)
        schedule.advance()
        if schedule.step % 250 == 0:
            log.info("maml %s outer loss %.3f", schedule, loss.item())
    return average


def outer_loss(parameters: MetaParameters, batch: MetaBatch, recipe: MamlRecipe) -> Tensor:
    """How badly θ′ does on the queries: squared error, and picking the right one among them."""
    adapted = batched.adapt(
        parameters.theta(),
        parameters.rates_K4(),
        batch.x_support_TSD,
        batch.y_support_TSE,
        batch.real_TS,
        recipe.activation,
    )
    o_TQE = apply_batched(adapted, batch.x_query_TQD, recipe.activation)
    squared_error = (o_TQE - batch.y_query_TQE).square().mean()
    cosine_TQQ = _unit(o_TQE) @ _unit(batch.y_query_TQE).transpose(1, 2)
    truth_TQ = torch.arange(o_TQE.shape[1]).expand(o_TQE.shape[:2])
    logits_TQQ = cosine_TQQ / recipe.temperature
    retrieval = functional.cross_entropy(logits_TQQ.flatten(0, 1), truth_TQ.flatten())
    return squared_error + recipe.retrieval_weight * retrieval


def draw(features: Features, recipe: MamlRecipe, generator: torch.Generator) -> MetaBatch:
    """Episodes of new tenants; a tenant's support and query share no concept."""
    concepts, pictures, _ = features.x_VAD.shape
    pairs = recipe.max_support + recipe.query
    order_TV = torch.rand(recipe.tenants, concepts, generator=generator).argsort(1)
    v_TN = order_TV[:, :pairs]
    a_TN = torch.randint(pictures, v_TN.shape, generator=generator)
    rotations_TEE = draw_rotations(recipe.tenants, generator)
    x_TND = features.x_VAD[v_TN, a_TN]
    x_TND = x_TND + recipe.feature_noise * torch.randn(x_TND.shape, generator=generator)
    y_TNE = features.u_VE[v_TN] @ rotations_TEE
    length_T = _draw_lengths(recipe, generator)
    s = recipe.max_support
    return MetaBatch(
        x_support_TSD=x_TND[:, :s],
        y_support_TSE=y_TNE[:, :s],
        real_TS=torch.arange(s) < length_T[:, None],
        x_query_TQD=x_TND[:, s:],
        y_query_TQE=y_TNE[:, s:],
    )


def draw_rotations(count: int, generator: torch.Generator) -> Tensor:
    """Rotations (count, E, E) of new low-rank tenants."""
    a_T3 = torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2.0 - 1.0
    exponent_TEE = 4.0 * torch.tensordot(a_T3, torch.from_numpy(low_rank_generators()), dims=1)
    return torch.matrix_exp(exponent_TEE).to(torch.float32)


def _draw_lengths(recipe: MamlRecipe, generator: torch.Generator) -> Tensor:
    """Log-uniform: short windows are as frequent as long ones."""
    low, high = float(recipe.min_support), recipe.max_support + 1.0
    exponent_T = torch.rand(recipe.tenants, generator=generator)
    return (low * (high / low) ** exponent_T).long()


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=-1, eps=1e-6)
