"""Prequential scoring against the slow obvious way: look up the pairs, fit, rank."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.demo.scores import (
    CANDIDATES,
    METHODS,
    RECENT,
    PrequentialScorer,
    ScenarioScores,
    Score,
    bucket,
    candidate_concepts,
    nearest,
)
from daemon.wire.adapted_mapping import AdaptedMapping, Facts, content_hash
from model.baselines.ridge import fit_ridge
from model.values.arrays import FloatArray
from model.values.gate import Outcome

D, H, E = 5, 4, 3
RNG = np.random.default_rng(0)
X_ND = RNG.standard_normal((20, D)).astype(np.float32)
Y_NE = RNG.standard_normal((20, E)).astype(np.float32)
CANDIDATES_CE = RNG.standard_normal((CANDIDATES, E)).astype(np.float32)


def tensors(output_E: FloatArray) -> dict[str, FloatArray]:
    """A mapping that answers the same to everything."""
    zeros = {"w1": np.zeros((H, D)), "b1": np.zeros(H), "w2": np.zeros((E, H))}
    return {n: t.astype(np.float32) for n, t in zeros.items()} | {"b2": output_E}


THETA = tensors(np.full(E, 100.0, np.float32))


def mapping(
    version: int, support: int, query: int, output_E: FloatArray, epoch: int = 1
) -> AdaptedMapping:
    made = tensors(output_E)
    facts = Facts(
        kind="mlp",
        activation="relu",
        output_activation="none",
        source_modality="vector",
        target_modality="vector",
        source_dim=D,
        hidden_dim=H,
        target_dim=E,
        stream="s",
        outcome=Outcome.ADAPTED,
        epoch=epoch,
        version=version,
        topic="t",
        partition=0,
        meta_init="m",
        meta_init_hash="00ff",
        generator="mlp",
        learner="maml",
        encoder="e",
        loss="mse",
        support_pairs=support,
        query_pairs=query,
        support_loss_before=1.0,
        support_loss_after=1.0,
        query_loss_before=1.0,
        query_loss_after=1.0,
        query_loss_ridge=2.0,
        event_time_ms=0,
        published_at_ms=0,
        turn="1",
        content_hash=content_hash(made),
    )
    return AdaptedMapping(made, facts)


def scorer_of(offsets: range) -> PrequentialScorer:
    """One that has read a pair at each of the offsets; none was scored."""
    made = PrequentialScorer(THETA, "relu")
    for offset in offsets:
        assert made.score_event(offset, X_ND[offset], Y_NE[offset], CANDIDATES_CE) is None
    return made


RIGHT, WRONG = CANDIDATES_CE[0], CANDIDATES_CE[1]


def score_next(scorer: PrequentialScorer, offset: int) -> Score | None:
    return scorer.score_event(offset, X_ND[offset], Y_NE[offset], CANDIDATES_CE)


def test_an_event_is_scored_by_the_newest_mapping_before_it() -> None:
    scorer = scorer_of(range(8))
    scorer.add_mapping(mapping(6, 4, 3, WRONG))
    scorer.add_mapping(mapping(7, 5, 3, RIGHT))
    score = score_next(scorer, 8)
    assert score is not None
    assert (score.support_pairs, score.hits["adapted"], score.found) == (5, True, 0)


def test_a_mapping_that_has_seen_the_event_does_not_score_it() -> None:
    scorer = scorer_of(range(8))
    scorer.add_mapping(mapping(7, 4, 4, WRONG))
    scorer.add_mapping(mapping(8, 5, 4, RIGHT))  # the daemon was quicker than the subscriber
    score = score_next(scorer, 8)
    assert score is not None
    assert not score.hits["adapted"]
    later = score_next(scorer, 9)
    assert later is not None
    assert later.hits["adapted"]


def test_what_was_found_instead_is_named() -> None:
    scorer = scorer_of(range(8))
    scorer.add_mapping(mapping(7, 4, 4, CANDIDATES_CE[77]))
    score = score_next(scorer, 8)
    assert score is not None
    assert (score.found, score.hits["adapted"]) == (77, False)


def test_the_nearest_of_what_is_not_finite_is_still_a_candidate() -> None:
    assert 0 <= nearest(np.full((1, E), np.nan, np.float32), CANDIDATES_CE) < CANDIDATES


def test_no_mapping_no_score() -> None:
    scorer = scorer_of(range(8))
    scorer.add_mapping(mapping(8, 5, 4, RIGHT))
    assert score_next(scorer, 8) is None


def test_a_later_tenure_wins_over_a_larger_version() -> None:
    scorer = scorer_of(range(8))
    scorer.add_mapping(mapping(7, 4, 4, WRONG, epoch=1))
    scorer.add_mapping(mapping(6, 4, 3, RIGHT, epoch=2))
    score = score_next(scorer, 8)
    assert score is not None
    assert score.hits["adapted"]


def test_theta_is_scored_as_it_is() -> None:
    scorer = PrequentialScorer(tensors(RIGHT), "relu")
    for offset in range(8):
        score_next(scorer, offset)
    scorer.add_mapping(mapping(7, 4, 4, WRONG))
    score = score_next(scorer, 8)
    assert score is not None
    assert score.hits["theta"]
    assert not score.hits["adapted"]


@pytest.mark.parametrize(("version", "support", "query"), [(7, 4, 4), (6, 4, 3), (7, 3, 2)])
def test_the_support_is_the_window_of_that_version_without_its_query(
    version: int, support: int, query: int
) -> None:
    scorer = scorer_of(range(8))
    x_SD, y_SE = scorer.support(mapping(version, support, query, RIGHT))
    rows = slice(version + 1 - support, version + 1)
    np.testing.assert_array_equal(x_SD, X_ND[rows])
    np.testing.assert_array_equal(y_SE, Y_NE[rows])


def test_pairs_that_were_never_read_are_an_error() -> None:
    with pytest.raises(ValueError, match="s version 7: 8/9 pairs"):
        scorer_of(range(8)).support(mapping(7, 9, 4, RIGHT))


def test_ridge_is_fitted_on_that_support() -> None:
    scorer = scorer_of(range(8))
    predicted_1E = fit_ridge(X_ND[4:8], Y_NE[4:8])(X_ND[8:9])
    candidates_YE = CANDIDATES_CE.copy()
    candidates_YE[0] = predicted_1E[0]  # only exactly this ridge finds it
    scorer.add_mapping(mapping(7, 4, 4, RIGHT))
    score = scorer.score_event(8, X_ND[8], Y_NE[8], candidates_YE)
    assert score is not None
    assert score.hits["ridge"]


def test_candidates_are_128_the_true_one_first_and_always_the_same() -> None:
    chosen = candidate_concepts(7, range(300), seed=3)
    assert chosen[0] == 7
    assert len(set(chosen)) == CANDIDATES
    assert chosen == candidate_concepts(7, range(300), seed=3)
    assert chosen != candidate_concepts(7, range(300), seed=4)


@pytest.mark.parametrize(
    ("pairs", "size"), [(3, None), (4, 4), (7, 4), (8, 8), (31, 16), (63, 32), (64, 64), (90, 64)]
)
def test_a_bucket_reaches_up_to_the_next(pairs: int, size: int | None) -> None:
    assert bucket(pairs) == size


def hits(adapted: bool) -> dict[str, bool]:
    return dict.fromkeys(METHODS, False) | {"adapted": adapted}


def test_tenants_weigh_the_same_however_many_events_they_had() -> None:
    scores = ScenarioScores()
    for _ in range(9):
        scores.add("a", 16, hits(True))
    scores.add("b", 20, hits(False))
    assert scores.by_pairs()["adapted"]["16"] == 0.5
    assert scores.from_pairs(16) == {"adapted": 0.5, "theta": 0.0, "ridge": 0.0}
    assert scores.recent_mean()["adapted"] == 0.5


def test_scores_with_fewer_pairs_are_left_out() -> None:
    scores = ScenarioScores()
    scores.add("a", 15, hits(False))
    scores.add("a", 16, hits(True))
    assert scores.from_pairs(16)["adapted"] == 1.0
    assert scores.by_pairs()["adapted"] == {"4": None, "8": 0, "16": 1, "32": None, "64": None}


def test_disagreements_are_counted_from_enough_pairs_on() -> None:
    scores = ScenarioScores()
    for stream, pairs, adapted, theta in [
        ("a", 16, True, False),
        ("b", 40, True, False),
        ("a", 16, False, True),
        ("a", 16, True, True),
        ("b", 15, False, True),
    ]:
        scores.add(stream, pairs, {"adapted": adapted, "theta": theta, "ridge": False})
    assert scores.disagreements("adapted", "theta", 16) == (2, 1)
    assert scores.disagreements("theta", "adapted", 15) == (2, 2)
    assert (scores.count(16), scores.count(15)) == (4, 5)


def test_a_running_score_forgets() -> None:
    scores = ScenarioScores()
    for hit in [True] * 20 + [False] * RECENT:
        scores.add("a", 16, hits(hit))
    assert scores.recent("a")["adapted"] == 0.0
    assert scores.recent("b")["adapted"] is None


def test_far_from_the_origin_the_nearest_is_still_found() -> None:
    """In float32 the squares of such numbers would hide every difference."""
    far = np.round(CANDIDATES_CE * 8) + np.float32(10_000)
    scorer = PrequentialScorer(THETA, "relu")
    for offset in range(8):
        scorer.score_event(offset, X_ND[offset], Y_NE[offset], far)
    scorer.add_mapping(mapping(7, 4, 3, far[0] + np.float32(0.25)))
    score = scorer.score_event(8, X_ND[8], Y_NE[8], far)
    nearest_by_hand = min(range(CANDIDATES), key=lambda c: ((far[c] - far[0] - 0.25) ** 2).sum())
    assert nearest_by_hand == 0
    assert score is not None
    assert (score.hits["adapted"], score.found) == (True, 0)


def test_a_tie_is_no_hit_and_shows_another() -> None:
    alike = np.repeat(CANDIDATES_CE[:1], CANDIDATES, axis=0)
    scorer = PrequentialScorer(THETA, "relu")
    for offset in range(8):
        scorer.score_event(offset, X_ND[offset], Y_NE[offset], alike)
    scorer.add_mapping(mapping(7, 4, 3, alike[0]))
    score = scorer.score_event(8, X_ND[8], Y_NE[8], alike)
    assert score is not None
    assert (score.hits["adapted"], score.found) == (False, CANDIDATES - 1)
