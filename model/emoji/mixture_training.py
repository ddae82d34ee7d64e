"""Meta-trains the mixture generator: one θ for tenants of every family, those nobody drew included.

B = streams in batch (tenants), S = support pairs (padded), Q = query pairs, N = pairs of a stream
(pictures of the outer step), Y = candidates (concepts, or those of a batch), Z = slots (languages),
R = rows (pictures of a concept), U = numbers of an embedding (rows of the covariance factor),
D = source dim, H = hidden units, E = target dim, K = inner steps (candidate prior means)

    python -m model.emoji.mixture_training --parent FILE --out FILE

It goes on from two θs: one with an attention generator (`model.emoji.train_tenants`), and one of
languages with the learner alpaca, which it trains first, on features by the former's encoder. Their
hidden units stand side by side: u(x) is the former's, prior mean and factor P of the kernel are the
latter's to begin with. Tenants are those of `model.emoji.tenant_training`, and languages
(`model.emoji.language_spaces`).

What decides between prior means is trained on contents that are read badly too, or it would trust
itself where it should not: how noisy features are differs from step to step, and a quarter of the
streams have wrong targets in their support.
"""

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.emoji import drawings as emoji
from model.emoji import language_spaces
from model.emoji.language_spaces import read_spaces
from model.emoji.tenant_training import (
    Features,
    TenantRecipe,
    TrainingFamily,
    draw_matrices,
    feature_loss,
    for_its_own,
    noisy_pictures,
    unit,
)
from model.emoji.train_pictures import TRAIN_VENDORS
from model.emoji.train_tenants import as_meta_init, cache_features
from model.emoji.train_thetas import FORM, RECIPES
from model.emoji.training_episodes import LanguageEpisodes, NameFeatures, Pictures
from model.inner.learners import FACTOR
from model.mappings.attention import Attention
from model.mappings.mlp import Mlp, expand, sigma
from model.mappings.prior_mixture import Mixture
from model.meta.loop import run
from model.meta.parameters import MetaParameters
from model.meta.progress import TrainingSchedule
from model.meta.progress_lines import lines_of
from model.meta.recipe import Recipe
from model.meta.state import TrainingState
from model.meta.training import Data, train_theta
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import load_meta_init, save_meta_init

log = logging.getLogger(__name__)

NAME = "emoji-every"
LANGUAGES = RECIPES["languages"]


@dataclass(frozen=True, slots=True)
class MixtureRecipe:
    """How the mixture is meta-trained; the shipped one with these values."""

    shares: tuple[tuple[TrainingFamily, float], ...] = (
        ("low-rank", 0.3),
        ("rotation", 0.2),
        ("sheared", 0.15),
    )
    """The share of tenants that each family has; the others are languages."""
    steps: int = 400
    tenants: int = 24
    languages: Recipe = LANGUAGES
    """How the θ of languages is trained."""
    pictures: int = 512
    query: int = 64
    candidates: int = 160
    min_support: int = 3
    max_support: int = 64
    empty: float = 0.04
    """The share of tenants without a single pair."""
    noise: tuple[float, float] = (0.1, 0.8)
    """Standard deviation of the noise on each number of features, between which a step draws."""
    mislabelled: float = 0.25
    """The share of tenants with wrong targets."""
    most_wrong: float = 0.4
    """Up to so many of such a tenant's targets are wrong."""
    attention_rate: float = 3e-4
    head_rate: float = 3e-3
    mapping_rate: float = 3e-4
    temperature: float = 0.1
    max_gradient_norm: float = 2.0
    averaging: float = 1e-2


class MixtureBatch(NamedTuple):
    """B tenants and the pictures they share; those of languages come last."""

    x_ND: Tensor
    v_N: Tensor
    """The concept of each picture."""
    y_BNE: Tensor
    known_BN: Tensor
    """Whether the tenant has a vector of that concept."""
    support_BS: Tensor
    """Indices among the N, never one of the first Q."""
    real_BS: Tensor
    wrong_BS: Tensor
    """Whether the support has another pair's target here."""
    spoken: int
    """How many of the B are languages."""


class MixtureModel(nn.Module):
    """θ, which all tenants share, and its mixture generator."""

    def __init__(self, parent: MetaInit, spoken: MetaParameters) -> None:
        """Takes over a θ whose generator is an attention, and one whose learner is alpaca."""
        super().__init__()
        self.activation = parent.activation
        first = Mlp(**{n: torch.tensor(array) for n, array in parent.mapping.items()})
        second = Mlp(*(t.detach() for t in spoken.theta()))
        known, new = len(first.b1), len(second.b1)
        self.w1 = nn.Parameter(torch.cat([first.w1, second.w1]))
        self.b1 = nn.Parameter(torch.cat([first.b1, second.b1]))
        self.w2 = nn.Parameter(functional.pad(first.w2, (0, new)))
        self.b2 = nn.Parameter(first.b2)
        dims = (parent.source_dim, known, parent.target_dim)
        attention = Attention.from_spec(parent.generator, *dims)
        factor_UH = spoken.learner_tensors[FACTOR].detach()
        mixture = Mixture(attention.config, known + new, len(factor_UH))
        mixture.attention = attention.requires_grad_(True)
        with torch.no_grad():
            mixture.factor_UH.copy_(functional.pad(factor_UH, (known, 0)))
            mixture.mean_EH.copy_(functional.pad(second.w2, (known, 0)))
            mixture.mean_E.copy_(second.b2)
        self.mixture = mixture

    def theta(self) -> Mlp:
        """Return θ's mapping, u(x)."""
        return Mlp(self.w1, self.b1, self.w2, self.b2)


def train_mixture(
    features: Features, spaces: NameFeatures, parent: MetaInit, recipe: MixtureRecipe, seed: int
) -> MixtureModel:
    """Meta-train. Returns the moving average of the parameters, the same for the same arguments."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = MixtureModel(parent, _languages_first(features, spaces, recipe))
    attention = list(model.mixture.attention.parameters())
    theirs = {id(p) for p in attention}
    head = [p for p in model.mixture.parameters() if id(p) not in theirs]
    optimiser = torch.optim.Adam(
        [
            {"params": attention, "lr": recipe.attention_rate},
            {"params": head, "lr": recipe.head_rate},
            {"params": list(model.theta()), "lr": recipe.mapping_rate},
        ]
    )
    state = TrainingState(model, optimiser, averaged=True, name="mixture")

    def accumulate(step: int) -> dict[str, float]:
        loss = mixture_loss(
            model, features, draw_mixture_batch(features, spaces, recipe, generator), recipe
        )
        torch.autograd.backward(loss)
        return {"outer_loss": loss.item()}

    schedule = TrainingSchedule(
        recipe.steps, max_gradient_norm=recipe.max_gradient_norm, averaging=recipe.averaging
    )
    run(state, schedule, accumulate, on_step=lines_of(log.info))
    return state.result


def _languages_first(
    features: Features, spaces: NameFeatures, recipe: MixtureRecipe
) -> MetaParameters:
    sizes = recipe.languages.episode_sizes()
    source = LanguageEpisodes(Pictures(features.x_YRD), spaces, sizes)
    on_step = lines_of(log.info)
    return train_theta(Data(source), recipe.languages, on_step=on_step, form=FORM).parameters


def mixture_loss(
    model: MixtureModel, features: Features, batch: MixtureBatch, recipe: MixtureRecipe
) -> Tensor:
    """Return the outer loss of a batch, a scalar: that of `model.emoji.tenant_training`, taken for
    the mixture. Attention's own maps answer for tenants that are no languages alone."""
    theta, streams = model.theta(), len(batch.y_BNE)
    h_NH = sigma(model.activation)(functional.linear(batch.x_ND, theta.w1, theta.b1))
    u_NE = functional.linear(h_NH, theta.w2, theta.b2)
    y_BSE = _support_targets(batch)
    unreal_BS1 = ~batch.real_BS.unsqueeze(2)
    x_BSD, h_BSH = (t[batch.support_BS].masked_fill(unreal_BS1, 0.0) for t in (batch.x_ND, h_NH))
    attention = model.mixture.attention
    read = attention.read_out(x_BSD, u_NE[batch.support_BS], y_BSE, batch.real_BS)
    found = model.mixture.solved(expand(theta, streams), h_BSH, y_BSE, read)
    candidates = (batch.y_BNE[:, : recipe.candidates], batch.known_BN[:, : recipe.candidates])

    def query_loss_B(o_BQE: Tensor) -> Tensor:
        return _query_loss(o_BQE, *candidates, recipe)

    def loss_of_B(matrix_BEE: Tensor, bias_BE: Tensor) -> Tensor:
        e = y_BSE.shape[2]
        o_BQE = torch.matmul(u_NE[: recipe.query], matrix_BEE[:, :e, :e].transpose(1, 2))
        return query_loss_B(o_BQE + bias_BE[:, None, :e])

    h_QH = h_NH[: recipe.query]
    final_B = query_loss_B(torch.matmul(h_QH, found.w2_BEH.transpose(1, 2)) + found.b2_BE[:, None])
    no_bias_BE = torch.zeros_like(read.bias_BE)
    family_B = for_its_own(loss_of_B(read.family_BEE, no_bias_BE), final_B)
    rotation_B = loss_of_B(read.rotation_BEE, no_bias_BE)
    linear_B = loss_of_B(read.matrix_BEE, read.bias_BE)
    drawn_B = (torch.arange(streams) < streams - batch.spoken).float()
    parts_B = final_B + drawn_B * (0.5 * family_B + 0.3 * rotation_B + 0.3 * linear_B)
    usual = TenantRecipe()
    half = recipe.pictures // 2
    shared = feature_loss(u_NE[:half], batch.v_N[:half], features, usual)
    true_BSE = features.u_YE[batch.v_N][batch.support_BS]
    off_BS = (read.u_BSE[:, :, : y_BSE.shape[2]] - true_BSE).square().mean(2)
    counted_BS = (batch.real_BS & ~batch.wrong_BS) * drawn_B[:, None]
    repair = (off_BS * counted_BS).sum() / (counted_BS.sum() + 1.0)
    return parts_B.mean() + usual.feature_weight * shared + usual.repair_weight * repair


def draw_mixture_batch(
    features: Features, spaces: NameFeatures, recipe: MixtureRecipe, generator: torch.Generator
) -> MixtureBatch:
    """Draw new tenants, and pictures that are read well or badly."""
    v_N = torch.randperm(len(features.u_YE), generator=generator)[: recipe.pictures]
    y_BNE, known_BN, spoken = _targets(features, spaces, v_N, recipe, generator)
    low, high = recipe.min_support, recipe.max_support
    longest = round(low * (high / low) ** float(torch.rand((), generator=generator)))
    streams, rest = len(y_BNE), len(v_N) - recipe.query
    draws_BN = torch.rand(streams, rest, generator=generator)
    support_BS = draws_BN.argsort(1)[:, :longest] + recipe.query
    length_B = (longest * (0.4 + 0.6 * torch.rand(streams, generator=generator))).ceil()
    empty_B = torch.rand(streams, generator=generator) < recipe.empty
    real_BS = torch.arange(longest) < length_B.masked_fill(empty_B, 0.0)[:, None]
    chosen_B = torch.rand(streams, generator=generator) < recipe.mislabelled
    share_B = chosen_B * recipe.most_wrong * torch.rand(streams, generator=generator)
    least, most = recipe.noise
    noise = least + (most - least) * float(torch.rand((), generator=generator))
    return MixtureBatch(
        x_ND=noisy_pictures(features, v_N, noise, generator),
        v_N=v_N,
        y_BNE=y_BNE,
        known_BN=known_BN,
        support_BS=support_BS,
        real_BS=real_BS & known_BN.gather(1, support_BS),
        wrong_BS=torch.rand(streams, longest, generator=generator) < share_B[:, None],
        spoken=spoken,
    )


def _targets(
    features: Features,
    spaces: NameFeatures,
    v_N: Tensor,
    recipe: MixtureRecipe,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, int]:
    """Vectors of the pictures' concepts in each tenant's space, which there are, and the number of
    languages."""
    shares = [share for _, share in recipe.shares]
    every = torch.tensor([*shares, 1.0 - sum(shares)])
    drawn = torch.multinomial(every, recipe.tenants, replacement=True, generator=generator)
    *counts, spoken = torch.bincount(drawn, minlength=len(every)).tolist()
    dim = features.u_YE.shape[1]
    matrices = [
        draw_matrices(family, count, dim, generator)
        for (family, _), count in zip(recipe.shares, counts, strict=True)
        if count
    ]
    drawn_BNE = features.u_YE[v_N] @ torch.cat(matrices)
    l_B = torch.randint(len(spaces.y_ZYE), (spoken,), generator=generator)
    known_BN = torch.ones(len(drawn_BNE), len(v_N), dtype=torch.bool)
    y_BNE = torch.cat([drawn_BNE, spaces.y_ZYE[l_B][:, v_N]])
    return y_BNE, torch.cat([known_BN, spaces.known_ZY[l_B][:, v_N]]), spoken


def _support_targets(batch: MixtureBatch) -> Tensor:
    """Targets of the supports (B, S, E): a wrong one is the pair's before; 0 where padded."""
    rows = batch.support_BS.unsqueeze(2).expand(-1, -1, batch.y_BNE.shape[2])
    y_BSE = batch.y_BNE.gather(1, rows)
    y_BSE = torch.where(batch.wrong_BS.unsqueeze(2), y_BSE.roll(1, 1), y_BSE)
    return y_BSE.masked_fill(~batch.real_BS.unsqueeze(2), 0.0)


def _query_loss(
    o_BQE: Tensor, candidates_BYE: Tensor, known_BY: Tensor, recipe: MixtureRecipe
) -> Tensor:
    """Return each tenant's loss (B) over the concepts that it knows."""
    query = o_BQE.shape[1]
    counted_BQ = known_BY[:, :query].float()
    squared_BQ = (o_BQE - candidates_BYE[:, :query]).square().mean(2)
    cosine_BQY = torch.bmm(unit(o_BQE), unit(candidates_BYE).transpose(1, 2))
    logits_BQY = (cosine_BQY / recipe.temperature).masked_fill(~known_BY.unsqueeze(1), -100.0)
    truth_BQ = torch.arange(query).expand(o_BQE.shape[:2])
    logits_BYQ = logits_BQY.transpose(1, 2)
    retrieval_BQ = functional.cross_entropy(logits_BYQ, truth_BQ, reduction="none")
    return ((squared_BQ + retrieval_BQ) * counted_BQ).sum(1) / counted_BQ.sum(1).clamp(min=1.0)


def mixture_meta_init(trained: MixtureModel, parent: MetaInit, facts: dict[str, str]) -> MetaInit:
    """Return θ with its generator, and its parent's encoder and usual sources, as it is
    published."""
    return as_meta_init(
        trained.theta(),
        parent.activation,
        trained.mixture.spec(),
        parent.source_encoder,
        parent.usual_sources,
        NAME,
        facts,
        parent.version,
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Meta-train a θ with a mixture generator.")
    parser.add_argument("--parent", type=Path, required=True, help="a θ with an attention")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=MixtureRecipe().steps)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second
    parent, recipe = load_meta_init(arguments.parent), MixtureRecipe(steps=arguments.steps)
    assert parent.source_encoder is not None
    started = time.process_time()
    features = cache_features(parent.source_encoder, parent.target_dim, arguments.seed)
    concepts = emoji.drawn_by(emoji.HELD_OUT_VENDOR, "train").tolist()
    languages = language_spaces.split_languages(trained=True)
    spaces = read_spaces(languages, concepts, parent.target_dim)
    trained = train_mixture(features, spaces, parent, recipe, arguments.seed)
    log.info("trained in %.0f s of a core", time.process_time() - started)
    facts = {
        "training": f"seed {arguments.seed}, from {parent.version}, {recipe}",
        "data": f"{', '.join(TRAIN_VENDORS)}; training split; synthetic tenants; spaces of "
        f"{len(languages)} languages",
    }
    save_meta_init(mixture_meta_init(trained, parent, facts), arguments.out)


if __name__ == "__main__":
    main()
