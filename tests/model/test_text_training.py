"""Training the text encoder: the data are what they should be, and it learns from them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.emoji import drawings as emoji
from model.emoji import name_retrieval as evaluate
from model.emoji import names as emoji_names
from model.emoji import train_names as train_text
from model.emoji.train_names import TextRecipe, Texts
from model.encoders.text import TextEncoder, TextNet, TextSizes, code_points
from model.encoders.trained_part import fresh_net
from model.theta.part_file import load_encoder, save_part

CPU = torch.device("cpu")
SMALL = TextRecipe(
    sizes=TextSizes(dim=64, buckets=512, width=16, hidden=16), steps=80, batch=64, pool=2
)


@pytest.fixture(scope="module")
def texts() -> Texts:
    return train_text.training_texts(("en", "cs"), SMALL.longest)


def test_there_are_102_languages_and_some_are_held_out() -> None:
    assert len(emoji_names.languages()) == 102
    assert set(emoji_names.HELD_OUT_LANGUAGES) < set(emoji_names.languages())
    assert not set(emoji_names.trained_languages()) & set(emoji_names.HELD_OUT_LANGUAGES)
    assert len(emoji_names.trained_languages()) == 91
    near = {language for relatives in emoji_names.RELATIVES.values() for language in relatives}
    assert near <= set(emoji_names.trained_languages())


def test_a_name_belongs_to_its_emoji() -> None:
    place = {concept.character: i for i, concept in enumerate(emoji.concepts())}
    grinning = emoji_names.names_in("en")[place["😀"]]
    assert grinning.name == "grinning face"
    assert "smile" in grinning.keywords
    assert emoji_names.names_in("de")[place["😀"]].name == "grinsendes Gesicht"


def test_no_text_of_another_split_is_trained_on(texts: Texts) -> None:
    train = emoji_names.concepts_of("train")
    known = emoji_names.names_in("en")
    names = {"".join(map(chr, name)) for name in texts.names}
    assert len(texts.names) == sum(
        c in emoji_names.names_in(la) for la in ("en", "cs") for c in train
    )
    for row, place in enumerate(texts.concept_R[: len(train)]):
        # languages come in the order asked for
        expected = code_points(known[train[place]].name, SMALL.longest)
        np.testing.assert_array_equal(texts.names[row], expected)
    unseen = [known[c].name.casefold() for c in emoji_names.concepts_of("validation") if c in known]
    assert len(names & set(unseen)) < 3


def test_batches_are_the_texts_drawn_with_their_concepts(texts: Texts) -> None:
    recipe = TextRecipe(sizes=SMALL.sizes, batch=32, pool=4, blank=0.0)
    codes_RT, length_R, concept_R = next(
        train_text.batches(texts, recipe, np.random.default_rng(0))
    )
    assert codes_RT.shape[0] == len(length_R) == len(concept_R) == 32
    assert codes_RT.shape[1] % 8 == 0
    rows_of = {place: np.flatnonzero(texts.concept_R == place) for place in set(concept_R.tolist())}
    for codes_T, length, place in zip(codes_RT, length_R, concept_R.tolist(), strict=True):
        text = "".join(map(chr, codes_T[:length]))
        assert not codes_T[length:].any()
        rows = rows_of[place]
        whole = {"".join(map(chr, texts.names[row])) for row in rows}
        words = {"".join(map(chr, word)) for row in rows for word in texts.keywords[row]}
        assert text in whole or all(part in " ".join(words) for part in text.split(" "))


def test_blanked_characters_leave_the_data_as_they_are(texts: Texts) -> None:
    recipe = TextRecipe(sizes=SMALL.sizes, blank=1.0, name_share=1.0)
    before = texts.names[0].copy()
    assert not train_text.drawn_text(texts, 0, recipe, np.random.default_rng(0)).any()
    np.testing.assert_array_equal(texts.names[0], before)


def test_training_is_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoji_names, "trained_languages", lambda: ("en",))
    recipe = replace(SMALL, steps=3)
    one, again, other = (train_text.train_text(recipe, seed, None) for seed in (1, 1, 2))
    assert all(np.array_equal(one.tensors[n], again.tensors[n]) for n in one.tensors)
    assert any(not np.array_equal(one.tensors[n], other.tensors[n]) for n in one.tensors)


def test_it_learns_names_and_words_of_another_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoji_names, "trained_languages", lambda: ("no",))
    recipe = replace(SMALL, steps=80, name_share=1.0, rate=3e-2)
    encoder = TextEncoder(train_text.train_text(recipe, 1, None), CPU)
    scores = evaluate.by_language(encoder, ("no", "da", "ka"), "train")
    assert scores["no"][0] > 0.3
    assert scores["da"][0] > 0.12  # much of Danish is written as Norwegian is
    assert scores["ka"][0] < 0.05  # nothing of Georgian; chance is 1 / 128


def test_a_saved_encoder_is_read_back(tmp_path: Path) -> None:
    spec = fresh_net(lambda: TextNet(SMALL.sizes), 0).spec()
    save_part(spec, tmp_path / "text.safetensors", {"training": "none"})
    again = load_encoder(tmp_path / "text.safetensors", "text")
    assert again.config == spec.config
    assert all(np.array_equal(spec.tensors[n], again.tensors[n]) for n in spec.tensors)


def as_named(features_RU: np.ndarray, concepts: list[int]) -> evaluate.NamedConcepts:
    return evaluate.NamedConcepts(np.array(concepts), features_RU.astype(np.float32))


def test_the_figures_are_1_for_a_perfect_encoder_and_chance_for_a_blind_one() -> None:
    concepts = emoji_names.concepts_of("train")[:300]
    perfect = as_named(emoji.concept_vectors(64)[concepts], concepts)
    blind = as_named(np.random.default_rng(0).standard_normal((300, 64)), concepts)
    assert evaluate.name_to_concept(perfect, 64) > 0.999
    assert evaluate.name_to_concept(blind, 64) == pytest.approx(1 / 128, abs=0.01)
    assert evaluate.name_to_name(perfect, perfect) > 0.999
    assert evaluate.name_to_name(perfect, blind) == pytest.approx(1 / 128, abs=0.01)


def test_only_concepts_that_both_languages_name_are_compared() -> None:
    concepts = emoji_names.concepts_of("train")[:300]
    vectors_RU = emoji.concept_vectors(64)[concepts]
    ours, theirs = (
        as_named(vectors_RU[:200], concepts[:200]),
        as_named(vectors_RU[50:], concepts[50:]),
    )
    assert evaluate.name_to_name(ours, theirs) > 0.999
    same, different = evaluate.closeness(ours, theirs)
    assert same == pytest.approx(1.0)
    assert abs(different) < 0.5
    with pytest.raises(ValueError, match="128 are needed"):
        evaluate.name_to_name(ours, as_named(vectors_RU[190:], concepts[190:]))
