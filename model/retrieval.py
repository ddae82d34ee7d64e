"""How well a mapping's outputs find the right items among candidates: R@k, MRR, mAP, NDCG.

B = batch (any leading axes, or none), N = queries, C = candidates, E = target dim,
R = queries of all batch rows (B·N)

The rules, for every measure:
- A score that is not a finite number ranks last.
- Ties count against us: among equal scores the candidates of lower gain come first.
- A candidate is relevant from a grade on, by default from anything above 0. A query without a
  relevant candidate, and a padded one, is left out; what is left out is counted.
- R@k is 1 when any relevant candidate is among the first k (a hit rate: with one relevant
  candidate it is recall). MRR takes the first relevant one. mAP averages the precision at every
  relevant one. NDCG divides by log2(1 + rank) and sees all candidates (Järvelin & Kekäläinen 2002).
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Gain = Literal["linear", "exponential"]
"""What a grade g is worth in NDCG: g, or 2^g - 1 (Burges et al. 2005). For grades 0 and 1 the same.
"""

CHUNK = 2**17
"""Scores ranked at a time, so that what is made of them stays in cache; of 2^15 to 2^22 the
fastest by a little."""


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """Means over each batch row's queries, shaped like the batch axes; NaN where no query counts.

    Without batch axes each is a scalar of no axes, which float() takes.
    """

    r_at_1: NDArray[np.float64]
    r_at_5: NDArray[np.float64]
    r_at_10: NDArray[np.float64]
    mrr: NDArray[np.float64]
    mean_ap: NDArray[np.float64]
    ndcg: NDArray[np.float64]
    queries: NDArray[np.int64]
    """How many queries the means are over."""
    left_out: NDArray[np.int64]
    """How many real queries had no relevant candidate."""


class BothWays(NamedTuple):
    """The same scores read along queries and along candidates."""

    source_to_target: RetrievalScores
    target_to_source: RetrievalScores


def scores_of(
    score_BNC: Floats,
    relevance_BNC: ArrayLike,
    real_query_BN: ArrayLike = True,
    real_candidate_BC: ArrayLike = True,
    *,
    relevant_at: float = 0.0,
    gain: Gain = "linear",
) -> RetrievalScores:
    """All measures of every batch row; a larger score is a better match.

    `relevance_BNC` holds grades >= 0 and may lack axes that it has in common for all (`np.eye(n)`
    for the n-th candidate alone); so may the masks, which are true on what is not padding.
    Whatever stands in padding changes nothing. Candidates count as relevant from grade
    `relevant_at` on, and never at 0; NDCG sees all grades.

    Raises ValueError when a grade is negative or not finite, or when shapes do not fit.
    """
    *batch, n, c = score_BNC.shape
    real_query_BN = np.broadcast_to(np.asarray(real_query_BN, bool), (*batch, n))
    real_candidate_BC = np.broadcast_to(np.asarray(real_candidate_BC, bool), (*batch, c))
    real_BNC = real_query_BN[..., np.newaxis] & real_candidate_BC[..., np.newaxis, :]
    rows_by_c = (math.prod((*batch, n)), c)
    score_RC = _rankable(score_BNC, real_BNC).reshape(rows_by_c)
    grade_BNC = relevance_BNC if np.all(real_BNC) else np.where(real_BNC, relevance_BNC, 0.0)
    gain_RC = np.broadcast_to(_gains(grade_BNC, gain), score_BNC.shape).reshape(rows_by_c)
    least = float(_gains(relevant_at, gain))
    counts_R = _relevant(gain_RC, least).any(axis=1)
    measures_MR = _in_chunks(score_RC[counts_R], gain_RC[counts_R], least)
    return _means(measures_MR, counts_R.reshape(*batch, n), real_query_BN)


def both_ways(
    score_BNC: Floats,
    relevance_BNC: ArrayLike,
    real_query_BN: ArrayLike = True,
    real_candidate_BC: ArrayLike = True,
    *,
    relevant_at: float = 0.0,
    gain: Gain = "linear",
) -> BothWays:
    """`scores_of` in both directions: the second by the transposed scores."""
    relevance_BNC = np.broadcast_to(np.asarray(relevance_BNC), score_BNC.shape)
    scores = partial(scores_of, relevant_at=relevant_at, gain=gain)
    return BothWays(
        scores(score_BNC, relevance_BNC, real_query_BN, real_candidate_BC),
        scores(
            score_BNC.swapaxes(-1, -2),
            relevance_BNC.swapaxes(-1, -2),
            real_candidate_BC,
            real_query_BN,
        ),
    )


def euclidean_scores(predicted_BNE: Floats, candidates_BCE: Floats) -> Floats:
    """-|p - c|² (B, N, C), the similarity that is meant where none is named.

    In float64: the difference of large squares would else make ties of what is none.
    """
    predicted_BNE = np.asarray(predicted_BNE, np.float64)
    candidates_BCE = np.asarray(candidates_BCE, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        dot_BNC = predicted_BNE @ candidates_BCE.swapaxes(-1, -2)
        score_BNC = 2.0 * dot_BNC - np.square(predicted_BNE).sum(-1)[..., np.newaxis]
        score_BNC -= np.square(candidates_BCE).sum(-1)[..., np.newaxis, :]
    return np.asarray(score_BNC)


def cosine_scores(predicted_BNE: Floats, candidates_BCE: Floats) -> Floats:
    """The cosine (B, N, C); NaN, so last, for a vector of zeros, which has no direction."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        predicted_BNE, candidates_BCE = _unit(predicted_BNE), _unit(candidates_BCE)
        return np.asarray(predicted_BNE @ candidates_BCE.swapaxes(-1, -2))


def relevance_from_labels(query_labels_BN: ArrayLike, candidate_labels_BC: ArrayLike) -> Floats:
    """1 where the labels are equal, else 0 (B, N, C); the empty label equals none."""
    a_BN, b_BC = np.asarray(query_labels_BN), np.asarray(candidate_labels_BC)
    equal_BNC = a_BN[..., :, np.newaxis] == b_BC[..., np.newaxis, :]
    if a_BN.dtype.kind in "US":
        equal_BNC = equal_BNC & (a_BN != np.zeros((), a_BN.dtype))[..., :, np.newaxis]
    return np.asarray(equal_BNC, np.float64)


def relevance_of_pairs(labels_BN: ArrayLike) -> Floats:
    """Grades (B, N, N) where the n-th candidate is the n-th query's own: 2 for that, 1 for another
    of the same label, 0 otherwise. With `relevant_at=2` only NDCG sees the labels."""
    labels_BN = np.asarray(labels_BN)
    same_BNN = relevance_from_labels(labels_BN, labels_BN)
    own_NN = np.eye(labels_BN.shape[-1])
    return np.asarray(np.maximum(same_BNN, 2.0 * own_NN))


def recall_at_1(
    predicted_NE: NDArray[np.float32],
    candidates_CE: NDArray[np.float32],
    truth_N: NDArray[np.int64],
) -> float:
    """The share of queries whose true candidate is strictly the nearest by Euclidean distance.

    Ties count against us, and a score that is not finite ranks last. 0 queries give NaN.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # |p − c|² without |p|², which is the same for all candidates
        score_NC = 2.0 * (predicted_NE @ candidates_CE.T) - np.square(candidates_CE).sum(1)
    relevance_NC = np.equal.outer(truth_N, np.arange(len(candidates_CE)))
    return float(scores_of(score_NC, relevance_NC).r_at_1)


def _gains(grades: ArrayLike, gain: Gain) -> Floats:
    grades = np.asarray(grades, np.float64)
    if not np.all(np.isfinite(grades) & (grades >= 0.0)):
        raise ValueError("grades of relevance must be finite and at least 0")
    return np.exp2(grades) - 1.0 if gain == "exponential" else grades


def _rankable(score_BNC: Floats, real_BNC: Mask) -> Floats:
    """-inf for what is not finite; NaN for padding, which every comparison and sort puts aside."""
    score_BNC = np.where(np.isfinite(score_BNC), score_BNC, -np.inf)
    return score_BNC if np.all(real_BNC) else np.where(real_BNC, score_BNC, np.nan)


def _relevant(gain_RC: Floats, least: float) -> Mask:
    return gain_RC >= least if least > 0.0 else gain_RC > 0.0


def _in_chunks(score_RC: Floats, gain_RC: Floats, least: float) -> Floats:
    """Every measure of every query, in the order of RetrievalScores (6, R)."""
    rows, c = score_RC.shape
    if not rows:
        return np.zeros((6, 0))
    measures = _of_several_relevant if np.count_nonzero(gain_RC) > rows else _of_one_relevant
    parts = [slice(i, i + max(1, CHUNK // c)) for i in range(0, rows, max(1, CHUNK // c))]
    return np.concatenate([measures(score_RC[p], gain_RC[p], least) for p in parts], axis=1)


def _of_one_relevant(score_RC: Floats, gain_RC: Floats, least: float) -> Floats:
    """Without sorting: the rank is how many score at least as well, the relevant one included."""
    true_R1 = np.take_along_axis(score_RC, gain_RC.argmax(axis=1)[:, np.newaxis], axis=1)
    rank_R = np.count_nonzero(score_RC >= true_R1, axis=1)
    return _stack(rank_R, 1.0 / rank_R, 1.0 / np.log2(1.0 + rank_R))


def _of_several_relevant(score_RC: Floats, gain_RC: Floats, least: float) -> Floats:
    ranked_RC = _ranked(score_RC, gain_RC)
    relevant_RC = _relevant(ranked_RC, least)
    rank_C = np.arange(1.0, score_RC.shape[1] + 1.0)
    precision_RC = relevant_RC.cumsum(axis=1) / rank_C
    average_precision_R = (precision_RC * relevant_RC).sum(axis=1) / relevant_RC.sum(axis=1)
    discount_C = 1.0 / np.log2(1.0 + rank_C)
    ideal_R = np.sort(gain_RC, axis=1)[:, ::-1] @ discount_C
    return _stack(
        relevant_RC.argmax(axis=1) + 1, average_precision_R, (ranked_RC @ discount_C) / ideal_R
    )


def _ranked(score_RC: Floats, gain_RC: Floats) -> Floats:
    """The gains from first to last place. Complex numbers sort by real, then by imaginary part, so
    that one sort breaks ties and carries the gains along."""
    key_RC = np.empty(score_RC.shape, np.complex128)
    key_RC.real, key_RC.imag = -score_RC, gain_RC
    key_RC.sort(axis=1)
    return key_RC.imag


def _stack(first_R: NDArray[np.int64], average_precision_R: Floats, ndcg_R: Floats) -> Floats:
    hits = [first_R <= k for k in (1, 5, 10)]
    return np.stack([*hits, 1.0 / first_R, average_precision_R, ndcg_R])


def _means(measures_MR: Floats, counts_BN: Mask, real_query_BN: Mask) -> RetrievalScores:
    """Back to batch rows: `measures_MR` holds the queries that count."""
    per_query_MBN = np.zeros((len(measures_MR), *counts_BN.shape))
    per_query_MBN[:, counts_BN] = measures_MR
    queries_B = counts_BN.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        means_MB = per_query_MBN.sum(axis=-1) / queries_B
    left_out_B = (real_query_BN & ~counts_BN).sum(axis=-1)
    r_at_1, r_at_5, r_at_10, mrr, mean_ap, ndcg = map(np.asarray, means_MB)
    counted = (np.asarray(queries_B), np.asarray(left_out_B))
    return RetrievalScores(r_at_1, r_at_5, r_at_10, mrr, mean_ap, ndcg, *counted)


def _unit(vectors_BNE: Floats) -> Floats:
    norms_BN = np.sqrt(np.square(vectors_BNE).sum(-1))
    return np.asarray(vectors_BNE / norms_BN[..., np.newaxis])
