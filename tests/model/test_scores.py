"""R@1, the ridge baseline and the numpy mapping."""

from typing import get_args

import numpy as np
import pytest
import torch

from model.baselines.ridge import fit_ridge
from model.mappings.mlp import Activation, Mlp, apply
from model.mappings.numpy_mlp import apply_numpy
from model.retrieval import recall_at_1
from model.theta.meta_init import fresh_meta_init


def test_recall_counts_the_nearest() -> None:
    candidates = np.eye(3, dtype=np.float32)
    predicted = np.array([[0.9, 0.1, 0], [0.9, 0.1, 0], [0, 0, 5]], np.float32)
    assert recall_at_1(predicted, candidates, np.array([0, 1, 2])) == pytest.approx(2 / 3)


def test_nearness_is_distance_not_size() -> None:
    candidates = np.array([[1.0], [10.0]], np.float32)
    assert recall_at_1(np.array([[1.1]], np.float32), candidates, np.array([0])) == 1.0


def test_ties_and_what_is_not_finite_count_against_us() -> None:
    candidates = np.array([[1.0], [1.0], [-1.0]], np.float32)
    truth = np.array([0])
    assert recall_at_1(np.array([[1.0]], np.float32), candidates, truth) == 0.0
    for bad in (np.nan, np.inf, -np.inf, 3e38):
        assert recall_at_1(np.array([[bad]], np.float32), 5 * candidates, truth) == 0.0
    assert np.isnan(recall_at_1(np.zeros((0, 1), np.float32), candidates, np.array([], int)))


def test_ridge_minimises_its_objective() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 6)).astype(np.float32)
    y = rng.standard_normal((9, 4)).astype(np.float32)
    ridge = fit_ridge(x, y, penalty=2.0)
    xc, yc = x - x.mean(0), y - y.mean(0)
    gradient = (xc @ ridge.weight_ED.T - yc).T @ xc + 2.0 * ridge.weight_ED
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)
    np.testing.assert_allclose(ridge(x).mean(0), y.mean(0), atol=1e-5)


def test_ridge_on_one_pair_answers_with_it() -> None:
    x, y = np.ones((1, 3), np.float32), np.full((1, 2), 7.0, np.float32)
    np.testing.assert_allclose(fit_ridge(x, y)(np.zeros((2, 3), np.float32)), 7.0)


@pytest.mark.parametrize("activation", get_args(Activation))
def test_the_numpy_mapping_is_the_torch_mapping(activation: Activation) -> None:
    mapping = fresh_meta_init(6, 4, hidden_dim=10).mapping
    x = np.random.default_rng(1).standard_normal((8, 6)).astype(np.float32)
    expected = apply(
        Mlp(**{name: torch.tensor(t) for name, t in mapping.items()}), torch.tensor(x), activation
    )
    np.testing.assert_allclose(apply_numpy(mapping, x, activation), expected, atol=1e-5)
