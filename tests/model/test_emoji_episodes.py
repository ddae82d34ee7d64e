"""Episodes of emoji are what they should be: no concept on both sides, maps that are the streams'.

B = streams in batch, S = support pairs, Q = query pairs, N = pairs of a stream, Y = candidates
(concepts), R = rows (pictures), Z = slots (languages), D = source dim, E = target dim
"""

import numpy as np
import pytest
import torch

from model.emoji import drawings as emoji
from model.emoji import names as emoji_names
from model.emoji.tenants import LOW_RANK_DIM
from model.emoji.train_pictures import TRAIN_VENDORS
from model.emoji.train_thetas import RECIPES, maml_theta
from model.emoji.training_episodes import (
    LanguageEpisodes,
    NameFeatures,
    Pictures,
    TenantEpisodes,
    read_names,
)
from model.encoders.build import encoder_from, fresh_encoder_spec
from model.meta.episodes import EpisodeSizes

SIZES = EpisodeSizes(min_support=2, max_support=6, query=4)
CONCEPTS = 40


def numbered() -> Pictures:
    """Every picture of a concept has the concept's number in all its features."""
    x_YRD = torch.arange(1.0, CONCEPTS + 1).view(-1, 1, 1).expand(CONCEPTS, 3, 5)
    return Pictures(x_YRD, noise=0.0)


def test_support_and_query_share_no_concept_and_lengths_are_within_the_cut() -> None:
    source = TenantEpisodes(numbered(), torch.randn(CONCEPTS, 4), "rotation", SIZES)
    assert (source.source_dim, source.target_dim) == (5, 4)
    generator, lengths = torch.Generator().manual_seed(0), set()
    for _ in range(30):
        batch = source.draw(generator, 8)
        for support, query in zip(batch.x_support_BSD, batch.x_query_BQD, strict=True):
            assert not set(support[:, 0].tolist()) & set(query[:, 0].tolist())
        lengths |= set(batch.real_support_BS.sum(1).tolist())
    assert lengths == set(range(SIZES.min_support, SIZES.max_support + 1))


@pytest.mark.parametrize("family", ["low-rank", "rotation"])
def test_a_tenants_targets_are_one_rotation_of_the_concepts_vectors(family: str) -> None:
    u_YE = torch.randn(CONCEPTS, 8, generator=torch.Generator().manual_seed(1))
    source = TenantEpisodes(numbered(), u_YE, family, SIZES)  # type: ignore[arg-type]
    batch = source.draw(torch.Generator().manual_seed(2), 3)
    y_BNE = torch.cat([batch.y_support_BSE, batch.y_query_BQE], 1)
    v_BN = torch.cat([batch.x_support_BSD, batch.x_query_BQD], 1)[:, :, 0].round().long() - 1
    for v_N, y_NE in zip(v_BN, y_BNE, strict=True):
        matrix_EE = torch.linalg.lstsq(u_YE[v_N], y_NE).solution
        torch.testing.assert_close(u_YE[v_N] @ matrix_EE, y_NE, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(matrix_EE @ matrix_EE.T, torch.eye(8), atol=1e-4, rtol=1e-4)


def test_the_same_generator_state_gives_the_same_batch() -> None:
    source = TenantEpisodes(numbered(), torch.ones(CONCEPTS, 4), "rotation", SIZES)
    one, two = (source.draw(torch.Generator().manual_seed(5), 4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_noise_leaves_a_pictures_norm() -> None:
    pictures = Pictures(torch.randn(CONCEPTS, 2, 16), noise=0.5)
    v_BN = torch.arange(CONCEPTS)[None]
    drawn = pictures.draw(v_BN, torch.Generator().manual_seed(0))
    clean = Pictures(pictures.x_YRD, noise=0.0).draw(v_BN, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.norm(dim=2), clean.norm(dim=2))
    assert (drawn - clean).abs().max() > 0.1


def test_a_language_without_a_name_has_no_pair_there() -> None:
    known_ZY = torch.zeros(1, CONCEPTS, dtype=torch.bool)
    known_ZY[0, :20] = True
    names = NameFeatures(torch.arange(1.0, CONCEPTS + 1).view(1, -1, 1).expand(1, -1, 3), known_ZY)
    batch = LanguageEpisodes(numbered(), names, SIZES).draw(torch.Generator().manual_seed(0), 16)
    real = batch.real_query_BQ
    assert (batch.x_query_BQD[:, :, 0] <= 20)[real].all()
    assert (batch.x_query_BQD[:, :, 0] > 20)[~real].all()
    assert torch.equal(batch.y_query_BQE[:, :, 0], batch.x_query_BQD[:, :, 0])


def test_names_are_read_as_the_encoder_reads_them() -> None:
    spec = fresh_encoder_spec("char-gru/1", 8, 0, width=8, hidden=8, buckets=64)
    encoder = encoder_from(spec, "text", 8, torch.device("cpu"))
    names = read_names(encoder, ("en", "cs"), [0, 5])
    expected = encoder.encode([encoder.prepare(emoji_names.names_in("cs")[5].name)])
    assert torch.equal(names.y_ZYE[1, 1], expected[0])
    assert names.known_ZY.all()


def test_meta_training_on_tenants_lowers_the_loss_and_sees_no_held_out_vendor() -> None:
    assert emoji.HELD_OUT_VENDOR not in TRAIN_VENDORS
    assert not set(emoji_names.trained_languages()) & set(emoji_names.HELD_OUT_LANGUAGES)
    spec = fresh_encoder_spec("cnn/2", 64, 0, blocks=((8, True), (8, True), (8, True)))
    config = RECIPES["maml"].to_config()
    small = {"steps": 30, "streams": 4, "hidden_dim": 16, "validate_every": 10}
    theta = maml_theta(spec, RECIPES["maml"].from_config(config | small))
    assert (theta.source_modality, theta.target_dim) == ("image", LOW_RANK_DIM)
    assert theta.learner.kind == "meta-sgd"
    assert np.ptp(theta.learner.tensors["rates"]) > 0  # the rates were learned
