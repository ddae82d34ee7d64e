"""Retrieval measures against a slow loop, scikit-learn and torchmetrics, and their laws."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    ndcg_score,
)
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_reciprocal_rank,
)

from model import retrieval
from model.evaluate.scoring import nearness
from model.retrieval import (
    RetrievalScores,
    cosine_scores,
    euclidean_scores,
    recall_at_1,
    relevance_from_labels,
    relevance_of_pairs,
    scores_of,
)

Floats = NDArray[np.floating[Any]]
laws = settings(deadline=None, max_examples=60)
MEASURES = ("r_at_1", "r_at_5", "r_at_10", "mrr", "mean_ap", "ndcg")


def figures(scores: RetrievalScores) -> dict[str, Any]:
    return {name: np.asarray(getattr(scores, name)) for name in MEASURES}


def assert_same(a: RetrievalScores, b: RetrievalScores, tolerance: float = 1e-12) -> None:
    for field in dataclasses.fields(RetrievalScores):
        ours, theirs = getattr(a, field.name), getattr(b, field.name)
        np.testing.assert_allclose(ours, theirs, atol=tolerance, err_msg=field.name)


def slowly(score: Floats, grade: Floats, relevant_at: float, gain: str) -> dict[str, float]:
    """One query, one candidate at a time: the rules in the head of the module, word by word."""

    def worth(g: float) -> float:
        return 2.0**g - 1.0 if gain == "exponential" else float(g)

    def order(c: int) -> tuple[float, float]:
        return (-score[c] if math.isfinite(score[c]) else math.inf, grade[c])

    ranked = [grade[c] for c in sorted(range(len(score)), key=order)]
    good = [g > 0 and g >= relevant_at for g in ranked]
    places = [i + 1 for i, is_good in enumerate(good) if is_good]
    discounted = [worth(g) / math.log2(i + 2) for i, g in enumerate(ranked)]
    ideal = [worth(g) / math.log2(i + 2) for i, g in enumerate(sorted(ranked, reverse=True))]
    precisions = [sum(good[:place]) / place for place in places]
    return {
        **{f"r_at_{k}": float(places[0] <= k) for k in (1, 5, 10)},
        "mrr": 1 / places[0],
        "mean_ap": sum(precisions) / len(precisions),
        "ndcg": sum(discounted) / sum(ideal),
    }


# Few values, so that there are ties; grades with many zeros.
score_values = st.sampled_from([-2.0, -1.0, 0.0, -0.0, 0.5, 3.0, math.nan, math.inf, -math.inf])
grade_values = st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0, 3.0])


@st.composite
def ranked_lists(draw: st.DrawFn, at_least: int = 1) -> tuple[Floats, Floats]:
    """Scores and grades (B, N, C)."""
    b, n = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    shape = (b, n, draw(st.integers(at_least, 14)))
    grades = draw(st.sampled_from(["several", "one"]))
    relevance = draw(arrays(np.float64, shape, elements=grade_values))
    if grades == "one":
        place = draw(arrays(np.int64, shape[:2], elements=st.integers(0, shape[2] - 1)))
        relevance = np.eye(shape[2])[place]
    return draw(arrays(np.float64, shape, elements=score_values)), relevance


@laws
@given(ranked_lists(), st.sampled_from([0.0, 1.0, 2.0]), st.sampled_from(["linear", "exponential"]))
def test_every_measure_is_what_the_slow_loop_finds(
    lists: tuple[Floats, Floats], relevant_at: float, gain: Any
) -> None:
    score, relevance = lists
    found = scores_of(score, relevance, relevant_at=relevant_at, gain=gain)
    for b in range(len(score)):
        counted = [
            slowly(s, g, relevant_at, gain)
            for s, g in zip(score[b], relevance[b], strict=True)
            if np.any((g > 0) & (g >= relevant_at))
        ]
        assert found.queries[b] == len(counted)
        assert found.left_out[b] == score.shape[1] - len(counted)
        for name, values in figures(found).items():
            expected = np.mean([query[name] for query in counted]) if counted else math.nan
            assert values[b] == pytest.approx(expected, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_relevant_each_without_sorting_is_what_sorting_finds(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    score = rng.integers(-3, 4, (40, 30)).astype(dtype)
    score[rng.random(score.shape) < 0.1] = np.nan
    one = np.eye(30)[rng.integers(0, 30, 40)]
    rankable = retrieval.rankable(score, np.arange(30) < 28)
    one[one[:, 28:].any(axis=1)] = np.eye(30)[0]
    counted = retrieval.measures_of_one_relevant(rankable, one, 0.0)
    sorted_ = retrieval.measures_of_several_relevant(rankable, one, 0.0)
    np.testing.assert_allclose(counted, sorted_, rtol=1e-14)


def without_ties(seed: int, queries: int, candidates: int, share: float) -> tuple[Floats, Floats]:
    """Positive scores (torchmetrics' average precision drops others) and grades 0 to 3."""
    rng = np.random.default_rng(seed)
    score = rng.permutation(queries * candidates).reshape(queries, candidates) + 1.0
    grade = rng.integers(1, 4, score.shape) * (rng.random(score.shape) < share)
    grade[:, 0] = 1
    return score, grade.astype(np.float64)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_scikit_learn_agrees(share: float) -> None:
    score, grade = without_ties(1, 25, 40, share)
    found = scores_of(score, grade)
    precision = [average_precision_score(g > 0, s) for s, g in zip(score, grade, strict=True)]
    assert float(found.mean_ap) == pytest.approx(np.mean(precision), abs=1e-12)
    ranking = label_ranking_average_precision_score(grade > 0, score)
    assert float(found.mean_ap) == pytest.approx(ranking, abs=1e-12)
    assert float(found.ndcg) == pytest.approx(ndcg_score(grade, score), abs=1e-12)
    exponential = scores_of(score, grade, gain="exponential")
    assert float(exponential.ndcg) == pytest.approx(ndcg_score(2**grade - 1, score), abs=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_torchmetrics_agrees(share: float) -> None:
    score, grade = without_ties(2, 25, 40, share)
    found = scores_of(score, grade)
    preds, target = torch.tensor(score, dtype=torch.float32), torch.tensor(grade).long()
    theirs = {
        **{
            f"r_at_{k}": [
                retrieval_hit_rate(p, t > 0, top_k=k) for p, t in zip(preds, target, strict=True)
            ]
            for k in (1, 5, 10)
        },
        "mrr": [retrieval_reciprocal_rank(p, t > 0) for p, t in zip(preds, target, strict=True)],
        "mean_ap": [
            retrieval_average_precision(p, t > 0) for p, t in zip(preds, target, strict=True)
        ],
        "ndcg": [retrieval_normalized_dcg(p, t) for p, t in zip(preds, target, strict=True)],
    }
    for name, values in theirs.items():
        assert float(getattr(found, name)) == pytest.approx(float(np.mean(values)), abs=1e-5), name


@laws
@given(ranked_lists(), st.randoms(use_true_random=False))
def test_the_order_of_candidates_changes_nothing(lists: tuple[Floats, Floats], random: Any) -> None:
    score, relevance = lists
    order = random.sample(range(score.shape[2]), score.shape[2])
    assert_same(scores_of(score, relevance), scores_of(score[..., order], relevance[..., order]))


@laws
@given(ranked_lists(), st.integers(0, 3))
def test_any_increasing_function_of_the_scores_changes_nothing(
    lists: tuple[Floats, Floats], which: int
) -> None:
    score, relevance = lists
    increasing = (np.arctan, np.cbrt, lambda s: 2 * s - 7, np.exp)[which]
    finite = np.where(np.isfinite(score), increasing(np.where(np.isfinite(score), score, 0)), score)
    assert_same(scores_of(score, relevance), scores_of(finite, relevance))


@laws
@given(ranked_lists(at_least=2), st.data())
def test_a_better_score_for_a_relevant_candidate_never_hurts(
    lists: tuple[Floats, Floats], data: st.DataObject
) -> None:
    score, relevance = lists
    place = tuple(data.draw(st.integers(0, length - 1)) for length in score.shape)
    relevance[place] = 3.0
    raised = score.copy()
    raised[place] = 4.0
    before, after = figures(scores_of(score, relevance)), figures(scores_of(raised, relevance))
    for name in MEASURES:
        worse = after[name] < before[name] - 1e-12
        assert not worse.any(), name


@laws
@given(ranked_lists(), st.data())
def test_padding_changes_nothing(lists: tuple[Floats, Floats], data: st.DataObject) -> None:
    score, relevance = lists
    more_n, more_c = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
    widths = ((0, 0), (0, more_n), (0, more_c))
    rubbish = data.draw(score_values)
    padded_score = np.pad(score, widths, constant_values=rubbish)
    padded_relevance = np.pad(
        relevance, widths, constant_values=data.draw(st.sampled_from([0.0, 2.0, math.nan]))
    )
    real_n = np.arange(padded_score.shape[1]) < score.shape[1]
    real_c = np.arange(padded_score.shape[2]) < score.shape[2]
    padded = scores_of(padded_score, padded_relevance, real_n, real_c)
    assert_same(scores_of(score, relevance), padded)


@laws
@given(ranked_lists())
def test_a_batch_is_its_rows_one_at_a_time(lists: tuple[Floats, Floats]) -> None:
    score, relevance = lists
    together = scores_of(score, relevance)
    for b in range(len(score)):
        alone = scores_of(score[b], relevance[b])
        row = RetrievalScores(**{k: v[b] for k, v in dataclasses.asdict(together).items()})
        assert_same(alone, row)
    assert_same(scores_of(score[np.newaxis], relevance), _with_axis(together))


def _with_axis(scores: RetrievalScores) -> RetrievalScores:
    return RetrievalScores(**{k: v[np.newaxis] for k, v in dataclasses.asdict(scores).items()})


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    score, grade = without_ties(3, 50, 20, 0.3)
    whole = scores_of(score, grade), scores_of(score, np.eye(50, 20))
    monkeypatch.setattr(retrieval, "CHUNK", 70)
    for at_once, part in zip(
        whole, (scores_of(score, grade), scores_of(score, np.eye(50, 20))), strict=True
    ):
        assert_same(at_once, part)


def test_perfect_predictions_score_one() -> None:
    x = np.random.default_rng(0).standard_normal((2, 12, 6))
    for similarity in (euclidean_scores, cosine_scores):
        scores = scores_of(similarity(x, x), np.eye(12))
        assert all(np.all(values == 1.0) for values in figures(scores).values())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("similarity", [euclidean_scores, cosine_scores, nearness])
@pytest.mark.parametrize("dim", [1, 3, 8, 33, 129, 512])
def test_one_target_for_all_queries_is_tied_to_the_bit(
    similarity: Any, dim: int, dtype: Any
) -> None:
    rng = np.random.default_rng(dim)
    target, predicted = rng.standard_normal((1, dim)), rng.standard_normal((16, dim))
    score = similarity(predicted.astype(dtype), np.repeat(target, 16, axis=0).astype(dtype))
    assert (score == score[:, :1]).all()
    found = figures(scores_of(score, np.eye(16)))
    assert found["mrr"] == pytest.approx(1 / 16, abs=1e-15)
    assert found["r_at_1"] == found["r_at_5"] == found["r_at_10"] == 0.0


@laws
@given(st.integers(1, 70), st.integers(2, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_equal_candidates_score_equally_wherever_they_stand(
    dim: int, candidates: int, seed: int, batched: bool
) -> None:
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 3, candidates)
    values = rng.standard_normal((3, dim)) * 10.0 ** rng.integers(-20, 20)
    p = rng.standard_normal((2, 4, dim) if batched else (4, dim))
    for similarity in (euclidean_scores, cosine_scores):
        score = similarity(p, values[which])
        np.testing.assert_array_equal(score, similarity(p, values)[..., which])


@pytest.mark.parametrize("times", [2.0, 3.0, 10.0])
def test_a_candidate_and_its_multiple_have_one_cosine(times: float) -> None:
    rng = np.random.default_rng(6)
    p, c = rng.standard_normal((2, 5, 9)).astype(np.float32)
    score = cosine_scores(p, np.concatenate([c, times * c.astype(np.float64)]))
    np.testing.assert_array_equal(score[:, :5], score[:, 5:])
    assert np.isfinite(cosine_scores(1e200 * p.astype(float), 1e-200 * c.astype(float))).all()


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e6])
def test_an_offset_of_everything_changes_no_rank(offset: float) -> None:
    rng = np.random.default_rng(7)
    c = rng.integers(-8, 9, (40, 32)).astype(np.float32)
    p = c + rng.integers(-1, 2, c.shape).astype(np.float32)
    truth, far = np.arange(40), np.float32(offset)
    distance = [
        [
            sum((int(a) - int(b)) ** 2 for a, b in zip(*uv, strict=True))
            for uv in ((u, v) for v in c)
        ]
        for u in p
    ]
    np.testing.assert_array_equal(euclidean_scores(p + far, c + far), -np.array(distance, float))
    assert recall_at_1(p + far, c + far, truth) == 1.0
    for similarity in (euclidean_scores, nearness):
        assert float(scores_of(similarity(p + far, c + far), np.eye(40)).r_at_1) == 1.0


@pytest.mark.parametrize("value", [0.0, math.nan, -math.inf, math.inf])
def test_all_tied_is_the_worst_there_is(value: float) -> None:
    tied = figures(scores_of(np.full((3, 20), value), np.eye(3, 20)))
    worst = figures(scores_of(-np.eye(3, 20), np.eye(3, 20)))
    assert tied == worst
    assert tied["mrr"] == pytest.approx(1 / 20)
    two = np.array([[1.0, 2.0, 0.0]])
    graded = scores_of(np.full((1, 3), value), two)
    assert float(graded.mean_ap) == pytest.approx((1 / 2 + 2 / 3) / 2)
    ideal = 2 + 1 / math.log2(3)
    assert float(graded.ndcg) == pytest.approx((1 / math.log2(3) + 2 / 2) / ideal)


def test_nan_ranks_last_and_behind_every_number() -> None:
    score = np.array([[math.nan, -1e308, 5.0]])
    assert float(scores_of(score, [[1.0, 0, 0]]).mrr) == pytest.approx(1 / 3)
    assert float(scores_of(score, [[0, 1.0, 0]]).mrr) == pytest.approx(1 / 2)


def test_nothing_gives_nan() -> None:
    for shape in ((0, 5), (3, 0), (0, 0), (2, 0, 5)):
        scores = scores_of(np.zeros(shape), np.zeros(shape))
        assert all(np.isnan(values).all() for values in figures(scores).values())
        assert not scores.queries.any()
    assert int(scores_of(np.zeros((3, 4)), np.zeros((3, 4))).left_out) == 3


@pytest.mark.parametrize("grade", [-1.0, math.nan, math.inf])
def test_grades_that_mean_nothing_are_refused(grade: float) -> None:
    with pytest.raises(ValueError, match="grades of relevance"):
        scores_of(np.zeros((1, 2)), [[grade, 1.0]])


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        scores_of(np.zeros((2, 3)), np.ones((2, 4)))


def test_labels_become_grades() -> None:
    labels = ["cat", "dog", "cat", ""]
    own = relevance_of_pairs(labels)
    expected = [[2, 0, 1, 0], [0, 2, 0, 0], [1, 0, 2, 0], [0, 0, 0, 2]]
    np.testing.assert_array_equal(own, expected)
    np.testing.assert_array_equal(relevance_from_labels([3, 4], [4, 4, 3]), [[0, 0, 1], [1, 1, 0]])
    same = relevance_from_labels(labels, labels)
    np.testing.assert_array_equal(same, [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0] * 4])
    score = np.array([[1.0, 0.0, 2.0, -1.0]])
    strict = scores_of(score, own[:1], relevant_at=2.0)
    assert (float(strict.r_at_1), float(strict.mrr)) == (0.0, 0.5)
    assert float(scores_of(score, own[:1]).r_at_1) == 1.0


def test_labels_are_equal_only_to_the_last_character() -> None:
    labels = ["a", "a\0", "a\0\0", "\0", "", "a"]
    same = relevance_from_labels(["a", "a\0"], labels)
    np.testing.assert_array_equal(same, [[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0]])
    own = relevance_of_pairs(labels)
    expected = 2 * np.eye(6)
    expected[0, 5] = expected[5, 0] = 1
    np.testing.assert_array_equal(own, expected)


def test_similarities_are_their_definitions() -> None:
    rng = np.random.default_rng(4)
    p, c = rng.standard_normal((2, 5, 3)), rng.standard_normal((2, 7, 3))
    distance = ((p[:, :, None] - c[:, None]) ** 2).sum(-1)
    np.testing.assert_allclose(euclidean_scores(p, c), -distance, atol=1e-12)
    cosine = (p[:, :, None] * c[:, None]).sum(-1)
    cosine /= np.linalg.norm(p, axis=2)[:, :, None] * np.linalg.norm(c, axis=2)[:, None]
    np.testing.assert_allclose(cosine_scores(p, c), cosine, atol=1e-12)
    assert np.isnan(cosine_scores(np.zeros((1, 3)), c[0])).all()


def test_distances_far_away_are_still_told_apart() -> None:
    candidates = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, -0.2]], np.float32)
    far = 1e6 * candidates[1:2]
    without_own_size = 2.0 * far @ candidates.T - np.square(candidates).sum(1)
    assert without_own_size.argsort().tolist() == [[2, 0, 1]]
    found = euclidean_scores(far, candidates)
    assert found.argsort().tolist() == [[2, 0, 1]]
    assert len(set(found.astype(np.float32)[0].tolist())) < 3


def test_recall_at_1_is_r_at_1() -> None:
    rng = np.random.default_rng(5)
    p = rng.standard_normal((50, 4)).astype(np.float32)
    c = (p + 0.6 * rng.standard_normal(p.shape)).astype(np.float32)
    nearest = ((p[:, None] - c[None]) ** 2).sum(-1).argmin(1)
    share = float(np.mean(nearest == np.arange(50)))
    assert 0.1 < share < 0.9
    assert recall_at_1(p, c, np.arange(50)) == pytest.approx(share)
