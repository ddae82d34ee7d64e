"""The adversarial generator: its losses by their formulas, and what it does to outputs.

B = streams in batch, Q = query pairs, S = support pairs, E = target dim, D = source dim, N = pairs
of a stream
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.losses import MSE
from model.meta import outer
from model.meta.adversary import (
    Discriminator,
    context_of,
    discriminator_loss,
    output_loss,
    weight_at,
)
from model.meta.episodes import EpisodeBatch
from model.meta.progress import seeded
from model.meta.recipe import Adversary, Recipe, Term
from model.meta.training import Data, MetaTrained, train_theta

RECIPE = Recipe(
    generator="adversarial",
    hidden_dim=32,
    activation="tanh",
    inner_steps=1,
    inner_rate=0.1,
    outer_losses=(Term(MSE),),
    streams=8,
    steps=250,
    rate=5e-3,
    averaging=0.05,
    adversary=Adversary(weight=3.0, hidden_dim=32, rate=5e-3, ramp_end=0.1),
)


class TwoMeanings:
    """A target's first number follows from the source; the second is 1 or -1, and nothing tells
    which: the least squared error is at 0, where no target is. Two source dims are noise."""

    source_dim, target_dim = 3, 2

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        x_BND = torch.randn(streams, 40, 3, generator=generator)
        gain_B1 = 1.0 + 0.3 * torch.randn(streams, 1, generator=generator)
        side_BN = torch.randint(2, (streams, 40), generator=generator) * 2.0 - 1.0
        side_BN = side_BN + 0.1 * torch.randn(streams, 40, generator=generator)
        y_BNE = torch.stack([x_BND[..., 0] * gain_B1, side_BN], 2)
        real_BN = torch.ones(streams, 40, dtype=torch.bool)
        whole = (x_BND, y_BNE, real_BN)
        return EpisodeBatch(*(t[:, :8] for t in whole), *(t[:, 8:] for t in whole))


def judged(result: MetaTrained) -> tuple[Tensor, Tensor]:
    """Outputs and targets of twenty new streams, (N, E) each."""
    batch = TwoMeanings().draw(seeded(1, "judged"), 20)
    with torch.no_grad():
        o_BQE = outer.adapted_outputs(result.parameters, batch)
    return o_BQE.flatten(0, 1), batch.y_query_BQE.flatten(0, 1)


def energy_distance(a_NE: Tensor, b_NE: Tensor) -> float:
    """0 for equal distributions alone (Székely and Rizzo 2013)."""
    between, within = torch.cdist(a_NE, b_NE).mean(), torch.cdist(a_NE, a_NE).mean()
    return float(2.0 * between - within - torch.cdist(b_NE, b_NE).mean())


def test_the_paired_loss_shrinks_outputs_and_the_adversarial_one_spreads_them_again() -> None:
    paired, y_NE = judged(train_theta(Data(TwoMeanings()), replace(RECIPE, generator="mlp")))
    adversarial, _ = judged(train_theta(Data(TwoMeanings()), RECIPE))
    assert y_NE[:, 1].std() > 0.95
    assert paired[:, 1].std() < 0.35
    assert adversarial[:, 1].std() > 0.6
    assert energy_distance(adversarial, y_NE) < 0.5 * energy_distance(paired, y_NE)
    # what does follow from the source still does
    assert functional.mse_loss(adversarial[:, 0], y_NE[:, 0]) < 0.15
    # and it costs squared error where nothing can be known: the price is real
    assert functional.mse_loss(adversarial[:, 1], y_NE[:, 1]) > 1.1


def test_without_weight_the_mapping_is_the_plain_one_to_the_last_bit() -> None:
    short = replace(RECIPE, steps=6)
    plain = train_theta(Data(TwoMeanings()), replace(short, generator="mlp"))
    for adversary in (Adversary(weight=0.0), Adversary(weight=9.0, ramp_start=1.0, ramp_end=1.0)):
        found = train_theta(Data(TwoMeanings()), replace(short, adversary=adversary))
        for name, tensor in plain.parameters.mapping.items():
            assert torch.equal(tensor, found.parameters.mapping[name])


def test_the_weight_rises_between_start_and_end() -> None:
    recipe = replace(RECIPE, adversary=Adversary(weight=2.0, ramp_start=0.2, ramp_end=0.6))
    weights = [weight_at(progress, recipe) for progress in (0.0, 0.2, 0.4, 0.6, 1.0)]
    assert weights == pytest.approx([0.0, 0.0, 1.0, 2.0, 2.0])


def test_what_is_published_is_a_plain_mapping() -> None:
    result = train_theta(Data(TwoMeanings()), replace(RECIPE, steps=2))
    meta_init = result.parameters.meta_init("theta")
    assert dict(meta_init.generator.config) == {"kind": "adversarial"}
    assert not meta_init.generator.tensors
    assert set(meta_init.tensors()) == {
        "mapping.w1",
        "mapping.b1",
        "mapping.w2",
        "mapping.b2",
        "learner.rates",
    }


def ragged() -> tuple[EpisodeBatch, Tensor]:
    """Padded pairs hold large numbers, so that they would show; and outputs."""
    batch = TwoMeanings().draw(seeded(2, "ragged"), 3)
    real_BS = torch.arange(8) < torch.tensor([[8], [1], [3]])
    real_BQ = torch.arange(32) < torch.tensor([[32], [5], [1]])
    y_BSE = batch.y_support_BSE.masked_fill(~real_BS.unsqueeze(2), 1e4)
    y_BQE = batch.y_query_BQE.masked_fill(~real_BQ.unsqueeze(2), 1e4)
    batch = batch._replace(
        y_support_BSE=y_BSE, real_support_BS=real_BS, y_query_BQE=y_BQE, real_query_BQ=real_BQ
    )
    return batch, torch.randn(3, 32, 2, generator=seeded(2, "outputs"))


def test_both_losses_are_their_formulas_one_stream_and_real_pair_at_a_time() -> None:
    recipe = replace(RECIPE, adversary=Adversary(condition="support_mean", penalty=0.7))
    discriminator = Discriminator(2, recipe)
    batch, o_BQE = ragged()
    of_discriminator = discriminator_loss(discriminator, batch, o_BQE, 0.7)
    of_outputs = output_loss(discriminator, batch, o_BQE)
    for t in range(3):
        y_QE = batch.y_query_BQE[t][batch.real_query_BQ[t]]
        o_QE = o_BQE[t][batch.real_query_BQ[t]]
        mean_E = batch.y_support_BSE[t][batch.real_support_BS[t]].mean(0)
        torch.testing.assert_close(context_of(batch)[t], mean_E)
        terms, outputs = [], []
        for y_E, o_E in zip(y_QE, o_QE, strict=True):

            def logit(v_E: Tensor, mean_E: Tensor = mean_E) -> Tensor:
                logits: Tensor = discriminator(v_E.view(1, 1, 2), mean_E.view(1, 2))
                return logits.squeeze()

            at_E = y_E.clone().requires_grad_()
            (slope,) = torch.autograd.grad(logit(at_E), at_E)
            true, false = torch.sigmoid(logit(y_E)), torch.sigmoid(logit(o_E))
            terms.append(-true.log() - (1.0 - false).log() + 0.35 * slope.square().sum())
            outputs.append(-false.log())
        torch.testing.assert_close(
            of_discriminator[t], torch.stack(terms).mean(), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(of_outputs[t], torch.stack(outputs).mean(), rtol=1e-4, atol=1e-5)


def test_the_discriminators_gradient_does_not_reach_the_outputs() -> None:
    batch, o_BQE = ragged()
    o_BQE.requires_grad_()
    discriminator = Discriminator(2, RECIPE)
    outer.accumulate_discriminator(discriminator, batch, o_BQE, 3, 1.0)
    assert o_BQE.grad is None
    assert all(p.grad is not None for p in discriminator.parameters())


def told_apart(recipe: Recipe) -> float:
    """The discriminator's loss after some steps, where every stream's targets lie about a place of
    its own, and its outputs about the place of another stream."""
    discriminator = Discriminator(2, recipe)
    optimiser = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    total = 0.0
    for step in range(150):
        g = seeded(3, "places", step)
        place_B12 = torch.randn(16, 1, 2, generator=g) * 3.0
        batch = TwoMeanings().draw(g, 16)
        batch = batch._replace(
            y_support_BSE=0.1 * batch.y_support_BSE + place_B12,
            y_query_BQE=0.1 * batch.y_query_BQE + place_B12,
        )
        o_BQE = batch.y_query_BQE.roll(1, 0)
        optimiser.zero_grad()
        loss = outer.accumulate_discriminator(discriminator, batch, o_BQE, 16, 0.01)
        optimiser.step()
        total = float(loss) if step == 0 else 0.9 * total + 0.1 * float(loss)
    return total


def test_a_discriminator_that_sees_the_support_knows_a_stream_from_another() -> None:
    indifferent = 2.0 * math.log(2.0)
    blind = told_apart(replace(RECIPE, adversary=Adversary(condition="none")))
    seeing = told_apart(replace(RECIPE, adversary=Adversary(condition="support_mean")))
    assert blind > 0.9 * indifferent
    assert seeing < 0.6 * indifferent
