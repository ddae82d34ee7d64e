"""Spaces of languages: whose names they are made of, and that they are what scikit-learn makes.

R = rows (concepts that a language names), Y = candidates (concepts), Z = slots (languages),
U = numbers of an embedding, E = target dim
"""

import numpy as np
import pytest
import torch

from model.emoji import clean_encoder as cleaning
from model.emoji import language_spaces
from model.emoji.drawings import concept_vectors
from model.emoji.language_spaces import Space, read_spaces, space_of
from model.emoji.names import languages, names_in
from model.emoji.train_pictures import training_pictures
from model.theta.meta_init_file import shipped
from model.theta.part_file import load_encoder


def base(language: str) -> str:
    return language.split("-")[0]


def test_languages_of_one_base_code_are_all_trained_on_or_none_is() -> None:
    trained, others = (language_spaces.split_languages(trained=t) for t in (True, False))
    assert sorted([*trained, *others]) == sorted(languages())
    assert not {base(name) for name in trained} & {base(name) for name in others}
    assert len(others) >= 15


def test_vectors_have_one_norm_and_narrow_spaces_lead_wide_ones() -> None:
    wide, narrow = space_of("sq", 64), space_of("sq", 16)
    for space, dim in ((wide, 64), (narrow, 16)):
        norms = np.linalg.norm(space.vectors_RE, axis=1)
        np.testing.assert_allclose(norms, np.sqrt(dim), rtol=1e-4)
    leading = wide.vectors_RE[:, :16]
    leading = leading / np.linalg.norm(leading, axis=1, keepdims=True) * 4.0
    np.testing.assert_allclose(leading, narrow.vectors_RE, atol=1e-4)
    assert wide.concepts_R.tolist() == sorted(names_in("sq"))


def test_a_space_is_what_scikit_learn_makes_of_the_same_names() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    text = pytest.importorskip("sklearn.feature_extraction.text")
    names = names_in("sq")
    texts = [" ".join((names[c].name, *names[c].keywords)).casefold() for c in sorted(names)]
    counts = text.TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=3)
    svd = decomposition.TruncatedSVD(64, n_iter=10, random_state=0)
    expected = svd.fit_transform(counts.fit_transform(texts))[:, :16]
    expected -= expected.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = space_of("sq", 16).vectors_RE / 4.0
    ours, theirs = (t[::7] @ t[::7].T for t in (found, expected))
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.97


def test_training_reads_the_vectors_of_named_concepts(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Space(np.array([1, 4, 9]), np.arange(6, dtype=np.float32).reshape(3, 2) + 1.0)
    monkeypatch.setattr(language_spaces, "space_of", lambda language, dim: made)
    read = read_spaces(["sq"], [0, 4, 9, 12], 2)
    assert read.known_ZY.tolist() == [[False, True, True, False]]
    assert read.y_ZYE.tolist() == [[[0.0, 0.0], [3.0, 4.0], [5.0, 6.0], [0.0, 0.0]]]


def test_the_clean_embedding_is_near_the_universal_one_and_another() -> None:
    clean, universal = concept_vectors(32, "clean"), concept_vectors(32)
    cosine_R = (clean * universal).sum(axis=1) / 32.0
    assert 0.9 < float(cosine_R.mean()) < 0.99


def test_the_cleaned_encoder_gives_clean_vectors_of_known_concepts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = load_encoder(shipped("emoji-lowrank"), "image")
    pictures, concept_R, vectors_YU = training_pictures("clean")
    few = (pictures[:64], concept_R[:64], vectors_YU)
    monkeypatch.setattr(cleaning, "training_pictures", lambda vectors: few)
    found = cleaning.clean_encoder(spec)
    assert found.config == spec.config
    values = torch.tensor(found.tensors["values"])
    cosine_R = torch.cosine_similarity(values, vectors_YU)
    assert float(cosine_R.min()) > 0.999
    assert (found.tensors["conv0.weight"] == spec.tensors["conv0.weight"]).all()
