"""The training of the mixture: what it draws, that all of it learns, and that it is repeatable.

B = streams in batch, S = support pairs, N = pairs of a stream, Y = candidates (concepts), Z = slots
(languages), R = rows (pictures of a concept), D = source dim, E = target dim
"""

from dataclasses import replace

import torch

from model.emoji.mixture_training import (
    LANGUAGES,
    MixtureModel,
    MixtureRecipe,
    draw_mixture_batch,
    mixture_loss,
    mixture_meta_init,
    train_mixture,
)
from model.emoji.tenant_training import Features
from model.emoji.training_episodes import NameFeatures
from model.inner.generators import generator_of
from model.meta.fresh import fresh_theta_of_kind
from model.meta.parameters import MetaParameters

DIMS = (64, 32, 16)
SPOKEN = replace(LANGUAGES, hidden_dim=32, steps=2, streams=3, max_support=8, query=8)
RECIPE = MixtureRecipe(
    steps=3, tenants=8, pictures=40, query=8, candidates=20, max_support=12, languages=SPOKEN
)


def features() -> Features:
    generator = torch.Generator().manual_seed(0)
    x_YRD = 8.0 * torch.nn.functional.normalize(torch.randn(60, 3, 64, generator=generator), dim=2)
    u_YE = 4.0 * torch.nn.functional.normalize(torch.randn(60, 16, generator=generator), dim=1)
    return Features(x_YRD, u_YE)


def spaces() -> NameFeatures:
    generator = torch.Generator().manual_seed(1)
    y_ZYE = 4.0 * torch.nn.functional.normalize(torch.randn(5, 60, 16, generator=generator), dim=2)
    known_ZY = torch.rand(5, 60, generator=generator) < 0.8
    return NameFeatures(y_ZYE * known_ZY.unsqueeze(2), known_ZY)


def test_what_is_drawn_has_languages_last_and_only_what_they_name() -> None:
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        batch = draw_mixture_batch(features(), spaces(), RECIPE, generator)
        assert len(batch.y_BNE) == RECIPE.tenants
        drawn = RECIPE.tenants - batch.spoken
        assert batch.known_BN[:drawn].all()
        norms_BN = batch.y_BNE.norm(dim=2)
        assert (norms_BN[drawn:][~batch.known_BN[drawn:]] == 0.0).all()
        assert (batch.support_BS >= RECIPE.query).all()
        assert batch.known_BN.gather(1, batch.support_BS)[batch.real_BS].all()


def test_everything_of_the_mixture_learns() -> None:
    parent = fresh_theta_of_kind(DIMS, generator="attention")
    model = MixtureModel(parent, MetaParameters.fresh(64, 16, SPOKEN))
    generator = torch.Generator().manual_seed(4)
    for _ in range(3):
        batch = draw_mixture_batch(features(), spaces(), RECIPE, generator)
        torch.autograd.backward(mixture_loss(model, features(), batch, RECIPE))
    idle = ("attention", "decide.hidden", "log_usual")  # the decisions' last layer begins at 0
    for name, parameter in model.mixture.named_parameters():
        if not name.startswith(idle):
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0.0, name


def test_a_training_is_repeatable_and_gives_a_theta_that_serves() -> None:
    parent = fresh_theta_of_kind(DIMS, generator="attention")
    made = []
    for _ in range(2):
        trained = train_mixture(features(), spaces(), parent, RECIPE, seed=0)
        made.append(mixture_meta_init(trained, parent, {"training": "a test's"}))
    assert made[0].content_hash == made[1].content_hash
    assert made[0].hidden_dim == 64
    assert made[0].parent == parent.version
    generator_of(made[0], torch.device("cpu"))
