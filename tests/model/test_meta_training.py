"""Meta-training learns, repeats itself, and gives the encoder that it trained.

T = tenants, S = support pairs, Q = query pairs, V = concepts, A = pictures, D = source dim
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.data import emoji
from model.encoders.image import ImageEncoder, normalised
from model.errors import BadMetaInit
from model.meta import maml
from model.meta.schedule import Schedule
from model.meta.train_encoder import TRAIN_VENDORS, TrainableEncoder, augmented, training_pictures
from model.meta_init import EncoderSpec

RECIPE = maml.MamlRecipe(
    steps=60, tenants=4, hidden_dim=16, inner_steps=2, max_support=16, query=12, rate=1e-2
)


def features() -> maml.Features:
    g = torch.Generator().manual_seed(0)
    u_VE = torch.tensor(emoji.concept_vectors(32)[:60])
    noise_VAD = 0.3 * torch.randn(60, 2, 32, generator=g)
    return maml.Features(u_VE.unsqueeze(1) + noise_VAD, u_VE)


def losses_of(parameters: maml.MetaParameters) -> float:
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        batches = [maml.draw(features(), RECIPE, g) for _ in range(8)]
        return float(np.mean([maml.outer_loss(parameters, b, RECIPE).item() for b in batches]))


def test_the_outer_loop_lowers_the_outer_loss_and_repeats_itself() -> None:
    trained = maml.train(features(), RECIPE, seed=1, minutes=None)
    again = maml.train(features(), RECIPE, seed=1, minutes=None)
    for mine, theirs in zip(trained.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    untrained = maml.train(features(), replace(RECIPE, steps=1), seed=1, minutes=None)
    assert losses_of(trained) < losses_of(untrained) - 0.02
    assert (trained.rates_K4() > 0).all()


def test_support_and_query_share_no_concept_and_lengths_stay_in_range() -> None:
    numbered = maml.Features(torch.arange(60.0).view(60, 1, 1).expand(60, 2, 32), features().u_VE)
    lengths = set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        batch = maml.draw(numbered, RECIPE, generator)
        for support, query in zip(batch.x_support_TSD, batch.x_query_TQD, strict=True):
            assert not set(support[:, 0].tolist()) & set(query[:, 0].tolist())
        lengths |= set(batch.real_TS.sum(1).tolist())
    assert lengths == set(range(RECIPE.min_support, RECIPE.max_support + 1))


def test_drawn_rotations_are_low_rank_tenants() -> None:
    rotation_EE = maml.draw_rotations(1, torch.Generator().manual_seed(4))[0].numpy()
    a_3 = torch.rand(1, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected_EE = emoji.low_rank_rotation(a_3[0].numpy() * 2.0 - 1.0)
    np.testing.assert_allclose(rotation_EE, expected_EE, atol=1e-5)


def test_training_never_sees_the_held_out_vendor_or_concepts() -> None:
    assert emoji.HELD_OUT_VENDOR not in TRAIN_VENDORS
    pictures, concept_N, vectors_VU = training_pictures()
    assert len(pictures) == len(concept_N) == 599 + 796 + 786 + 782 + 782
    assert len(vectors_VU) == 796
    assert concept_N.min() == 0


def trained_a_little() -> TrainableEncoder:
    torch.manual_seed(0)
    model = TrainableEncoder()
    for _ in range(3):
        model(torch.rand(16, 3, 32, 32))
    return model.eval()


def test_the_folded_encoder_is_the_trained_one() -> None:
    model = trained_a_little()
    pictures = torch.from_numpy(emoji.sheet("noto")[:20].copy())
    with torch.no_grad():
        expected = model(normalised(pictures))
    found = ImageEncoder(model.folded(), torch.device("cpu")).encode(pictures)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_an_encoder_whose_tensors_do_not_fit_is_refused() -> None:
    spec = trained_a_little().folded()
    cpu = torch.device("cpu")
    with pytest.raises(BadMetaInit, match="encoder kind is 'rnn/1'"):
        ImageEncoder(EncoderSpec(dict(spec.config) | {"kind": "rnn/1"}, spec.tensors), cpu)
    with pytest.raises(BadMetaInit, match="malformed"):
        ImageEncoder(EncoderSpec({"kind": "cnn/1"}, spec.tensors), cpu)
    with pytest.raises(BadMetaInit, match="encoder tensors have shapes"):
        ImageEncoder(EncoderSpec(dict(spec.config) | {"dim": 65}, spec.tensors), cpu)


def test_augmentation_keeps_shape_range_and_paper() -> None:
    ink = torch.zeros(8, 3, 32, 32)
    generator = torch.Generator().manual_seed(0)
    assert (augmented(ink, generator) == 0).all()
    drawn = augmented(torch.rand(8, 3, 32, 32), generator)
    assert drawn.shape == ink.shape
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_a_schedule_rises_falls_and_ends_by_steps_or_by_time() -> None:
    schedule = Schedule(steps=100, minutes=None)
    factors = []
    while not schedule.finished:
        factors.append(schedule.rate_factor())
        schedule.advance()
    assert len(factors) == 100
    assert max(factors) == factors[5] == 1.0
    assert factors[-1] < 0.01
    assert Schedule(steps=100, minutes=1e-9).finished
