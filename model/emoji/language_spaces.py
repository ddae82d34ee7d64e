"""A space of its own for each language, learned from what that language calls emoji alone.

Y = candidates (1,914 concepts, or some of them), R = rows (concepts that a language names),
Z = slots (languages), I = inputs of a layer (character n-grams), U = numbers of an embedding,
E = target dim

A family of tenants that nobody drew: which concepts lie close together depends on a language's
words, and how it spells them. The n-grams of 2 to 4 characters of every word of a name and its
keywords, with a space at either end, are counted, weighed by TF-IDF and brought to E dimensions by
a truncated singular value decomposition (Deerwester et al. 1990), which is found by subspace
iteration (Halko et al. 2011) from a fixed start. Directions get signs by a rule, as they have none.
The vectors are centred and have norm √E.

Languages are told apart by their base code ("pt" of "pt-PT"): those of one code are all trained on,
or none is. `universal64.npy` knows all languages, so what is trained on it knows something of those
to be judged on. `clean_embedding` has seen names in the trained ones alone, and takes its place
where a θ is trained for languages:

    python -m model.emoji.language_spaces --out model/emoji/data/clean64.npy      (two minutes)
"""

import argparse
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model.emoji import names as emoji_names
from model.emoji.drawings import concepts, universal
from model.emoji.training_episodes import NameFeatures
from model.values.arrays import FloatArray

SHORTEST, LONGEST = 2, 4
"""Characters of an n-gram."""
TRAINED_SHARE = 75
"""Of 100 base codes so many are trained on."""
LEAST_FOUND = 3
"""An n-gram that fewer concepts have is left out."""
MAX_DIM = 64
ITERATIONS = 3
SPARE = 16
"""Directions that the iteration carries beyond those wanted, so that these come out sharp."""


class Space(NamedTuple):
    """One language's space."""

    concepts_R: NDArray[np.int64]
    """The concepts that it names, ascending."""
    vectors_RE: FloatArray
    """Their vectors, of norm √E."""


def is_trained_on(language: str) -> bool:
    """Returns whether θs may be trained on this language: by a hash of its base code."""
    return zlib.crc32(language.partition("-")[0].encode()) % 100 < TRAINED_SHARE


def split_languages(*, trained: bool) -> tuple[str, ...]:
    """Returns the languages that θs are trained on, or the others, sorted."""
    return tuple(name for name in emoji_names.languages() if is_trained_on(name) is trained)


def space_of(language: str, dim: int) -> Space:
    """Returns a language's space of `dim` dimensions, 64 at most. Raises KeyError for an unknown
    language."""
    concepts_R, directions_RU = directions_of(language)
    vectors_RE = directions_RU[:, :dim]
    norms_R1 = np.linalg.norm(vectors_RE, axis=1, keepdims=True)
    vectors_RE = vectors_RE * (np.sqrt(dim) / np.maximum(norms_R1, 1e-6))
    return Space(concepts_R, vectors_RE.astype(np.float32))


@cache
def directions_of(language: str) -> tuple[NDArray[np.int64], FloatArray]:
    """Returns the concepts that a language names (R), and their leading 64 directions (R, U), from
    the widest to the narrowest. Raises KeyError for an unknown language."""
    names = emoji_names.names_in(language)
    concepts = sorted(names)
    texts = [" ".join((names[c].name, *names[c].keywords)) for c in concepts]
    return np.array(concepts, np.int64), _turned(_centred(_leading(_tf_idf(texts), MAX_DIM)))


def _turned(directions_RU: FloatArray) -> FloatArray:
    """The directions, each with the sign that makes its third moment positive: few concepts stand
    far out on that side, and languages then agree on what they mean by it."""
    moment_U = (directions_RU.astype(np.float64) ** 3).sum(axis=0)
    return directions_RU * np.where(moment_U < 0.0, -1.0, 1.0).astype(np.float32)


def read_spaces(languages: Sequence[str], concepts: Sequence[int], dim: int) -> NameFeatures:
    """Returns the languages' vectors of these concepts, to train on."""
    y_ZYE = np.zeros((len(languages), len(concepts), dim), np.float32)
    known_ZY = np.zeros(y_ZYE.shape[:2], np.bool_)
    for row, language in enumerate(languages):
        space = space_of(language, dim)
        found_Y = np.searchsorted(space.concepts_R, concepts).clip(max=len(space.concepts_R) - 1)
        known_ZY[row] = space.concepts_R[found_Y] == concepts
        y_ZYE[row] = space.vectors_RE[found_Y] * known_ZY[row, :, None]
    return NameFeatures(torch.from_numpy(y_ZYE), torch.from_numpy(known_ZY))


def clean_embedding() -> FloatArray:
    """Returns an embedding of concepts (Y, 64) that has seen names in trained languages alone.

    Each language's leading directions stand side by side; the leading directions of all of them are
    mapped onto the universal embedding by least squares, so that its dimensions mean what they mean
    there.
    """
    every_YU = []
    for language in split_languages(trained=True):
        rows, directions_RU = directions_of(language)
        own_YU = np.zeros((len(concepts()), MAX_DIM), np.float32)
        own_YU[rows] = directions_RU
        every_YU.append(own_YU)
    meant_YU = _centred(_leading(np.concatenate(every_YU, axis=1), universal().shape[1]))
    aligned_YU: FloatArray = meant_YU @ np.linalg.lstsq(meant_YU, universal(), rcond=None)[0]
    return aligned_YU


def _tf_idf(texts: list[str]) -> FloatArray:
    """Rows of unit length."""
    counted = [Counter(_n_grams(text)) for text in texts]
    names_of = Counter(n_gram for own in counted for n_gram in own)
    column = {
        n: i
        for i, n in enumerate(sorted(n for n, found in names_of.items() if found >= LEAST_FOUND))
    }
    weights_RI = np.zeros((len(texts), len(column)), np.float32)
    for row, own in enumerate(counted):
        for n_gram, count in own.items():
            if n_gram in column:
                weights_RI[row, column[n_gram]] = count
    found_I = np.array([names_of[n] for n in column])
    weights_RI *= (np.log((1 + len(texts)) / (1 + found_I)) + 1.0).astype(np.float32)
    weights_RI /= np.maximum(np.linalg.norm(weights_RI, axis=1, keepdims=True), 1e-6)
    return weights_RI


def _n_grams(text: str) -> list[str]:
    return [
        padded[i : i + size]
        for padded in (f" {word} " for word in text.casefold().split())
        for size in range(SHORTEST, LONGEST + 1)
        for i in range(len(padded) - size + 1)
    ]


def _leading(weights_RI: FloatArray, dim: int) -> FloatArray:
    """The leading left singular vectors, each times its singular value."""
    start = np.random.default_rng(0).standard_normal((len(weights_RI), dim + SPARE))
    basis_RU = np.linalg.qr(start.astype(np.float32))[0]
    for _ in range(ITERATIONS):
        basis_RU = np.linalg.qr(weights_RI @ (weights_RI.T @ basis_RU))[0]
    small_IU = weights_RI.T @ basis_RU
    values_U, vectors_UU = np.linalg.eigh(small_IU.T @ small_IU)
    order = np.argsort(-values_U)[:dim]
    found_RU: FloatArray = basis_RU @ (
        vectors_UU[:, order] * np.sqrt(np.maximum(values_U[order], 0.0))
    )
    return found_RU


def _centred(vectors_RU: FloatArray) -> FloatArray:
    centred_RU: FloatArray = vectors_RU - vectors_RU.mean(axis=0)
    return centred_RU


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Make the embedding without test languages.")
    parser.add_argument("--out", type=Path, required=True)
    np.save(parser.parse_args().out, clean_embedding().astype(np.float16))


if __name__ == "__main__":
    main()
