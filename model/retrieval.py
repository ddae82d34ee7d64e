"""Retrieval scores: how well queries find the right ones among candidates. R@k, MRR, mAP, NDCG.

B = streams in batch (any leading axes, or none), Q = query pairs (or any queries), Y = candidates,
E = target dim, R = rows (queries of all streams that count)

Each query ranks all candidates by a score, the largest first. The measures of one query:

- R@k is 1 when a relevant candidate is among the first k, else 0: a hit rate, which is the recall
  where one candidate is relevant.
- MRR is 1 over the rank of the first relevant candidate.
- mAP averages, over the relevant candidates, the precision among those ranked no lower.
- NDCG sums every candidate's gain over log2(1 + rank), and divides by the largest such sum that any
  ranking has (Järvelin & Kekäläinen 2002).

What is relevant: candidates of a grade of at least `relevant_at`, by default of any grade above 0.
A query without a relevant candidate is left out of the means, and counted. A score that is not
finite ranks last.

Ties are broken against the mapping: among equal scores, candidates of lower gain rank first. So a
mapping that cannot tell candidates apart never gains by it: one output for all of 16 queries that
share a target has an MRR of 1/16. The similarities below give equal candidates equal scores to the
bit, because they sum in one order for every candidate, which a BLAS product does not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Gain = Literal["linear", "exponential"]
"""What a grade g is worth in NDCG: g, or 2^g - 1 (Burges et al. 2005)."""

CHUNK = 2**17
"""How many scores are ranked at a time, so that intermediate arrays stay in cache: a little faster
than other powers of two from 2^15 to 2^22."""


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """Means over each stream's queries (B); NaN where no query counts.

    Without batch axes each is an array of no axes, which float() takes.
    """

    r_at_1: NDArray[np.float64]
    r_at_5: NDArray[np.float64]
    r_at_10: NDArray[np.float64]
    mrr: NDArray[np.float64]
    mean_ap: NDArray[np.float64]
    ndcg: NDArray[np.float64]
    queries: NDArray[np.int64]
    """How many queries the means are over (B)."""
    left_out: NDArray[np.int64]
    """How many real queries had no relevant candidate (B)."""


def scores_of(
    score_BQY: Floats,
    relevance_BQY: ArrayLike,
    real_query_BQ: ArrayLike = True,
    real_candidate_BY: ArrayLike = True,
    *,
    relevant_at: float = 0.0,
    gain: Gain = "linear",
) -> RetrievalScores:
    """Returns all measures of every stream; a larger score is a better match.

    `relevance_BQY` holds grades, at least 0; candidates are relevant from the grade `relevant_at`
    on, and never at 0, while NDCG sees all grades. The masks are True on what is not padding;
    whatever stands in padding changes nothing. Grades and masks may lack leading axes along which
    they are constant: `np.eye(n)` says that query i's own candidate is the i-th, in every stream.

    Raises ValueError when a grade is negative or not finite, or when shapes do not fit.
    """
    *batch, n, c = score_BQY.shape
    real_query_BQ = np.broadcast_to(np.asarray(real_query_BQ, bool), (*batch, n))
    real_candidate_BY = np.broadcast_to(np.asarray(real_candidate_BY, bool), (*batch, c))
    real_BQY = real_query_BQ[..., np.newaxis] & real_candidate_BY[..., np.newaxis, :]
    rows_by_c = (math.prod((*batch, n)), c)
    score_RY = rankable(score_BQY, real_BQY).reshape(rows_by_c)
    grade_BQY = relevance_BQY if np.all(real_BQY) else np.where(real_BQY, relevance_BQY, 0.0)
    gain_RY = np.broadcast_to(_gains(grade_BQY, gain), score_BQY.shape).reshape(rows_by_c)
    least = float(_gains(relevant_at, gain))
    counts_R = _relevant(gain_RY, least).any(axis=1)
    measures_6R = _in_chunks(score_RY[counts_R], gain_RY[counts_R], least)
    return _means(measures_6R, counts_R.reshape(*batch, n), real_query_BQ)


def euclidean_scores(predicted_BQE: Floats, candidates_BYE: Floats) -> Floats:
    """Returns -|p - c|² (B, Q, Y), float64, the similarity used unless another is named.

    The differences are squared, not the vectors, so that nothing cancels far from the origin.
    """
    return _query_by_query(_minus_squared_distance, predicted_BQE, candidates_BYE)


def cosine_scores(predicted_BQE: Floats, candidates_BYE: Floats) -> Floats:
    """Returns cosines (B, Q, Y), float64; NaN, which ranks last, for a vector of zeros."""
    return _query_by_query(_inner_product, _unit(predicted_BQE), _unit(candidates_BYE))


def _query_by_query(
    similarity: Callable[[Floats, Floats], Floats], predicted_BQE: Floats, candidates_BYE: Floats
) -> Floats:
    """Returns the similarity (B, Q, Y) of every query and candidate, for one query at a time, so
    that what lies between has the size of the candidates."""
    predicted_BQE = np.asarray(predicted_BQE, np.float64)
    candidates_BYE = np.asarray(candidates_BYE, np.float64)
    queries, candidates = predicted_BQE.shape[-2], candidates_BYE.shape[-2]
    batch = np.broadcast_shapes(predicted_BQE.shape[:-2], candidates_BYE.shape[:-2])
    score_BQY = np.empty((*batch, queries, candidates))
    with np.errstate(over="ignore", invalid="ignore"):
        for q in range(queries):
            score_BQY[..., q, :] = similarity(predicted_BQE[..., q : q + 1, :], candidates_BYE)
    return score_BQY


def _minus_squared_distance(predicted_B1E: Floats, candidates_BYE: Floats) -> Floats:
    return np.asarray(-np.square(predicted_B1E - candidates_BYE).sum(-1))


def _inner_product(predicted_B1E: Floats, candidates_BYE: Floats) -> Floats:
    return np.asarray((predicted_B1E * candidates_BYE).sum(-1))


def relevance_from_labels(query_labels_BQ: ArrayLike, candidate_labels_BY: ArrayLike) -> Floats:
    """Returns grades (B, Q, Y): 1 where labels are equal, else 0; the empty label equals none."""
    a_BQ, b_BY = _labels(query_labels_BQ), _labels(candidate_labels_BY)
    equal_BQY = a_BQ[..., :, np.newaxis] == b_BY[..., np.newaxis, :]
    if a_BQ.dtype == object:
        equal_BQY = equal_BQY & a_BQ.astype(bool)[..., :, np.newaxis]
    return np.asarray(equal_BQY, np.float64)


def _labels(labels: object) -> NDArray[Any]:
    """Returns labels as an array, texts as Python's own: numpy's drop null characters at the end,
    so that "a" would equal "a\\0"."""
    return np.asarray(labels, object if np.asarray(labels).dtype.kind in "US" else None)


def relevance_of_pairs(labels_BQ: ArrayLike) -> Floats:
    """Returns grades (B, Q, Q) for queries whose own candidate is that of the same index.

    The grade is 2 for a query's own candidate, 1 for another of the same label, and 0 otherwise.
    With `relevant_at=2` only NDCG sees the labels.
    """
    labels_BQ = _labels(labels_BQ)
    same_BQQ = relevance_from_labels(labels_BQ, labels_BQ)
    own_QQ = np.eye(labels_BQ.shape[-1])
    return np.asarray(np.maximum(same_BQQ, 2.0 * own_QQ))


def recall_at_1(
    predicted_QE: NDArray[np.float32],
    candidates_YE: NDArray[np.float32],
    truth_Q: NDArray[np.int64],
) -> float:
    """Returns the share of queries whose true candidate is strictly the nearest, by |p - c|.

    `truth_Q` holds the true candidates' indices. Without queries the share is NaN.
    """
    score_QY = euclidean_scores(predicted_QE, candidates_YE)
    relevance_QY = np.equal.outer(truth_Q, np.arange(len(candidates_YE)))
    return float(scores_of(score_QY, relevance_QY).r_at_1)


def _gains(grades: ArrayLike, gain: Gain) -> Floats:
    grades = np.asarray(grades, np.float64)
    if not np.all(np.isfinite(grades) & (grades >= 0.0)):
        raise ValueError("grades of relevance must be finite and at least 0")
    return np.exp2(grades) - 1.0 if gain == "exponential" else grades


def rankable(score_BQY: Floats, real_BQY: Mask) -> Floats:
    """Returns scores with -inf for what is not finite, and NaN for padding.

    NaN is behind everything in a sort and larger than nothing in a comparison.
    """
    score_BQY = np.where(np.isfinite(score_BQY), score_BQY, -np.inf)
    return score_BQY if np.all(real_BQY) else np.where(real_BQY, score_BQY, np.nan)


def _relevant(gain_RY: Floats, least: float) -> Mask:
    return gain_RY >= least if least > 0.0 else gain_RY > 0.0


def _in_chunks(score_RY: Floats, gain_RY: Floats, least: float) -> Floats:
    """Returns every measure of every query (6, R), in the order of RetrievalScores."""
    rows, c = score_RY.shape
    if not rows:
        return np.zeros((6, 0))
    several = np.count_nonzero(gain_RY) > rows
    measures = measures_of_several_relevant if several else measures_of_one_relevant
    parts = [slice(i, i + max(1, CHUNK // c)) for i in range(0, rows, max(1, CHUNK // c))]
    return np.concatenate([measures(score_RY[p], gain_RY[p], least) for p in parts], axis=1)


def measures_of_one_relevant(score_RY: Floats, gain_RY: Floats, least: float) -> Floats:
    """Returns every measure (6, R) of queries with one relevant candidate each.

    Needs no sorting: the rank is how many score at least as well, the relevant one included.
    """
    true_R1 = np.take_along_axis(score_RY, gain_RY.argmax(axis=1)[:, np.newaxis], axis=1)
    rank_R = np.count_nonzero(score_RY >= true_R1, axis=1)
    return _stack(rank_R, 1.0 / rank_R, 1.0 / np.log2(1.0 + rank_R))


def measures_of_several_relevant(score_RY: Floats, gain_RY: Floats, least: float) -> Floats:
    """Returns every measure (6, R) of queries with one relevant candidate or more."""
    ranked_RY = _ranked(score_RY, gain_RY)
    relevant_RY = _relevant(ranked_RY, least)
    rank_Y = np.arange(1.0, score_RY.shape[1] + 1.0)
    precision_RY = relevant_RY.cumsum(axis=1) / rank_Y
    average_precision_R = (precision_RY * relevant_RY).sum(axis=1) / relevant_RY.sum(axis=1)
    discount_Y = 1.0 / np.log2(1.0 + rank_Y)
    ideal_R = np.sort(gain_RY, axis=1)[:, ::-1] @ discount_Y
    return _stack(
        relevant_RY.argmax(axis=1) + 1, average_precision_R, (ranked_RY @ discount_Y) / ideal_R
    )


def _ranked(score_RY: Floats, gain_RY: Floats) -> Floats:
    """Returns the gains from the first to the last place.

    Complex numbers sort by their real, then by their imaginary part: so one sort breaks ties by
    gain and carries the gains along.
    """
    key_RY = np.empty(score_RY.shape, np.complex128)
    key_RY.real, key_RY.imag = -score_RY, gain_RY
    key_RY.sort(axis=1)
    return key_RY.imag


def _stack(first_R: NDArray[np.int64], average_precision_R: Floats, ndcg_R: Floats) -> Floats:
    hits = [first_R <= k for k in (1, 5, 10)]
    return np.stack([*hits, 1.0 / first_R, average_precision_R, ndcg_R])


def _means(measures_6R: Floats, counts_BQ: Mask, real_query_BQ: Mask) -> RetrievalScores:
    """Returns the means of each stream; `measures_6R` holds the queries that count."""
    per_query_6BQ = np.zeros((len(measures_6R), *counts_BQ.shape))
    per_query_6BQ[:, counts_BQ] = measures_6R
    queries_B = counts_BQ.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        means_6B = per_query_6BQ.sum(axis=-1) / queries_B
    left_out_B = (real_query_BQ & ~counts_BQ).sum(axis=-1)
    r_at_1, r_at_5, r_at_10, mrr, mean_ap, ndcg = map(np.asarray, means_6B)
    counted = (np.asarray(queries_B), np.asarray(left_out_B))
    return RetrievalScores(r_at_1, r_at_5, r_at_10, mrr, mean_ap, ndcg, *counted)


def _unit(vectors_BQE: Floats) -> Floats:
    vectors_BQE = np.asarray(vectors_BQE, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        # the largest number is taken out first: squares overflow
        vectors_BQE = vectors_BQE / np.abs(vectors_BQE).max(-1, keepdims=True, initial=0.0)
        return np.asarray(vectors_BQE / np.sqrt(np.square(vectors_BQE).sum(-1, keepdims=True)))
