"""Episodes by a seed, and the assertion that two adaptations of one are the same bits."""

from __future__ import annotations

import numpy as np

from model.theta.meta_init import MetaInit, fresh_meta_init
from model.values.episode import Adaptation, Episode

ODD = fresh_meta_init(7, 5, hidden_dim=11, steps=3)
POISONS = [float("nan"), float("inf"), -float("inf"), 1e30, 3e38]


def episode(theta: MetaInit, seed: int, support: int, query: int) -> Episode:
    rng = np.random.default_rng(seed)
    dims = (theta.source_dim, theta.target_dim)
    arrays = [
        rng.standard_normal((n, d)).astype(np.float32) for n in (support, query) for d in dims
    ]
    return Episode(*arrays)


def assert_same_bits(found: Adaptation, expected: Adaptation) -> None:
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].tobytes() == tensor.tobytes(), name
    for name in ("support_loss_before", "support_loss_after"):
        assert (
            np.float64(getattr(found, name)).tobytes()
            == np.float64(getattr(expected, name)).tobytes()
        )
    for name in ("query_loss_before", "query_loss_after"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.finite == expected.finite
