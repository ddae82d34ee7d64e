"""The θ that ships: small, sound, and better than no adaptation and than ridge."""

import json

from model.evaluate.emoji import evaluate
from model.meta_init import load, shipped


def test_it_is_small_and_says_how_it_was_made() -> None:
    assert shipped().stat().st_size < 4 * 2**20
    theta = load(shipped())
    assert (theta.source_modality, theta.target_modality) == ("image", "vector")
    assert (theta.source_dim, theta.target_dim) == (64, 32)
    assert theta.rates_K4.shape == (5, 4)
    assert {"training", "data", "evaluation", "evaluation_note"} <= set(theta.facts)
    assert [row["pairs"] for row in json.loads(theta.facts["evaluation"])] == [5, 16, 64]


def test_on_the_held_out_vendor_adaptation_beats_theta_and_ridge() -> None:
    few, some, many = evaluate(load(shipped()), tenants=12, seeds=1, sizes=(5, 16, 64))
    for scores in (some, many):
        assert scores.r_at_1["adapted"] > 1.3 * scores.r_at_1["theta"]
        assert scores.r_at_1["adapted"] > 1.3 * scores.r_at_1["ridge"]
    assert few.r_at_1["adapted"] > few.r_at_1["ridge"]
    assert few.r_at_1["adapted"] >= few.r_at_1["theta"]
    for scores in (few, some, many):
        assert scores.query_loss["adapted"] < scores.query_loss["theta"]
    assert few.improved > 0.7
    assert some.improved > 0.95
    assert many.improved > 0.95
