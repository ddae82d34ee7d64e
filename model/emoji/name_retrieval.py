"""Measures how well a text encoder knows what emoji names mean, language by language.

R = rows (names), Y = candidates, U = numbers of an embedding, B = streams in batch (draws of
candidates)

Every figure is 128-way R@1 by cosine, the mean over draws of 128 concepts of a split: a name among
the concepts' vectors, or a name among the same concepts' names in another language.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.emoji import drawings as emoji
from model.emoji import names as emoji_names
from model.encoders.text import TextEncoder
from model.retrieval import cosine_scores, scores_of
from model.values.arrays import FloatArray

CANDIDATES = 128
DRAWS = 20
DIMS = (64, 32, 16)


@dataclass(frozen=True, slots=True)
class NamedConcepts:
    """The features (R, U) of one language's names, and the concepts (R) that they name."""

    concepts_R: NDArray[np.int64]
    features_RU: FloatArray


def named_concepts(encoder: TextEncoder, language: str, concepts: Sequence[int]) -> NamedConcepts:
    """Encode the language's names of those concepts that it names."""
    known = emoji_names.names_in(language)
    chosen = [c for c in concepts if c in known]
    features_RU = encoder.encode([encoder.prepare(known[c].name) for c in chosen])
    return NamedConcepts(np.array(chosen, np.int64), features_RU.cpu().numpy())


def name_to_concept(names: NamedConcepts, dims: int, seed: int = 0) -> float:
    """Return R@1 of names among concept vectors, both by their first `dims` numbers."""
    vectors_RU = emoji.concept_vectors(dims)[names.concepts_R]
    return _recall(names.features_RU[:, :dims], vectors_RU, seed)


def name_to_name(queries: NamedConcepts, candidates: NamedConcepts, seed: int = 0) -> float:
    """Return R@1 of one language's names among another's."""
    _, ours, theirs = np.intersect1d(queries.concepts_R, candidates.concepts_R, return_indices=True)
    return _recall(queries.features_RU[ours], candidates.features_RU[theirs], seed)


def closeness(a: NamedConcepts, b: NamedConcepts) -> tuple[float, float]:
    """Return the mean cosine between two languages' names of the same concept, and that between
    names of different concepts."""
    _, ours, theirs = np.intersect1d(a.concepts_R, b.concepts_R, return_indices=True)
    cosine_RR = cosine_scores(a.features_RU[ours], b.features_RU[theirs])
    same = float(np.diag(cosine_RR).mean())
    n = len(cosine_RR)
    return same, float((cosine_RR.sum() - n * same) / (n * (n - 1)))


def by_language(
    encoder: TextEncoder, languages: Sequence[str], split: emoji.Split
) -> Mapping[str, tuple[float, ...]]:
    """Return `name_to_concept` of every language, for each of `DIMS`."""
    concepts = emoji_names.concepts_of(split)
    return {
        language: tuple(name_to_concept(names, dims) for dims in DIMS)
        for language in languages
        for names in [named_concepts(encoder, language, concepts)]
    }


def across_languages(
    encoder: TextEncoder, languages: Sequence[str], split: emoji.Split
) -> tuple[float, float, float]:
    """Return means over ordered pairs of languages: of `name_to_name`, and of both numbers of
    `closeness`."""
    concepts = emoji_names.concepts_of(split)
    names = [named_concepts(encoder, language, concepts) for language in languages]
    pairs = [(a, b) for a in names for b in names if a is not b]
    rows = [(name_to_name(a, b), *closeness(a, b)) for a, b in pairs]
    recall, same, different = np.mean(rows, axis=0)
    return float(recall), float(same), float(different)


def retrieval_facts(encoder: TextEncoder, languages: Sequence[str] | None = None) -> dict[str, str]:
    """Return the figures as lines of text: for trained and held-out languages, seen and unseen
    concepts. `languages` limits the trained ones."""
    trained = emoji_names.trained_languages() if languages is None else languages
    groups = {"trained languages": trained, "held-out languages": emoji_names.HELD_OUT_LANGUAGES}
    splits: tuple[tuple[emoji.Split, str], ...] = (("train", "seen"), ("validation", "unseen"))
    facts = {}
    for split, words in splits:
        for group, chosen in groups.items():
            scores = by_language(encoder, chosen, split)
            facts[f"{words} concepts, {group}"] = _line(scores)
        recall, same, different = across_languages(encoder, trained[:: len(trained) // 8], split)
        facts[f"{words} concepts, name to name"] = (
            f"R@1 {recall:.3f}; cosine {same:.3f} of one concept, {different:.3f} of two"
        )
    return facts


def _line(scores: Mapping[str, tuple[float, ...]]) -> str:
    means = np.mean(list(scores.values()), axis=0)
    figures = ", ".join(f"{m:.3f} at {d}" for m, d in zip(means, DIMS, strict=True))
    each = " ".join(f"{language} {row[0]:.2f}" for language, row in scores.items())
    return f"R@1 {figures} dims ({each})"


def _recall(queries_RU: FloatArray, candidates_RU: FloatArray, seed: int) -> float:
    rng = np.random.default_rng(seed)
    score_RR = cosine_scores(queries_RU, candidates_RU)
    if len(score_RR) < CANDIDATES:
        raise ValueError(f"{len(score_RR)} concepts; {CANDIDATES} are needed")
    draws = [rng.permutation(len(score_RR))[:CANDIDATES] for _ in range(DRAWS)]
    score_BYY = np.stack([score_RR[np.ix_(draw, draw)] for draw in draws])
    return float(scores_of(score_BYY, np.eye(CANDIDATES)).r_at_1.mean())
