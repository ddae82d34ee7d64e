"""The batched rival against ridge regression for one stream, in float64.

B = streams in batch, S = support pairs, Q = query pairs, D = source dim, E = target dim
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from model.baselines.ridge import fit_ridge
from model.inner.learner import Support
from model.mappings.mlp import Mlp, apply
from model.serving import rival


def supports(lengths: list[int], dims: tuple[int, int], capacity: int = 9) -> Support:
    generator = torch.Generator().manual_seed(3)
    x_BSD, y_BSE = (torch.randn(len(lengths), capacity, dim, generator=generator) for dim in dims)
    real_BS = torch.arange(capacity) < torch.tensor(lengths)[:, None]
    return Support(x_BSD, y_BSE, real_BS)


def queries(streams: int, source_dim: int) -> Tensor:
    return torch.randn(streams, 4, source_dim, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("dims", [(6, 3), (3, 6), (5, 5)])
def test_every_stream_gets_the_ridge_regression_of_its_own_pairs(dims: tuple[int, int]) -> None:
    lengths = [1, 2, 5, 9]
    support, x_BQD = supports(lengths, dims), queries(4, dims[0])
    fitted = rival.fit(support)
    found_BQE = rival.predict(fitted, x_BQD).numpy()
    for b, n in enumerate(lengths):
        alone = fit_ridge(support.x_BSD[b, :n].numpy(), support.y_BSE[b, :n].numpy(), rival.PENALTY)
        np.testing.assert_allclose(found_BQE[b], alone(x_BQD[b].numpy()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims", [(6, 3), (3, 6)])
def test_the_mapping_says_what_the_dual_form_predicts(dims: tuple[int, int]) -> None:
    support, x_BQD = supports([4, 7], dims), queries(2, dims[0])
    fitted = rival.fit(support)
    for b in range(2):
        mlp = rival.as_mapping(fitted, b)
        assert mlp.b1.shape == (min(dims),)
        expected_QE = rival.predict(fitted, x_BQD)[b]
        torch.testing.assert_close(apply(mlp, x_BQD[b], "none"), expected_QE, atol=1e-5, rtol=1e-4)


def test_padding_and_a_poisoned_companion_change_no_bit() -> None:
    support, x_BQD = supports([3, 6], (5, 2)), queries(2, 5)
    clean_QE = rival.predict(rival.fit(support), x_BQD)[0]
    support.x_BSD[0, 3:] = torch.nan
    support.y_BSE[0, 3:] = torch.inf
    support.x_BSD[1, 2] = torch.nan
    dirty_BQE = rival.predict(rival.fit(support), x_BQD)
    assert torch.equal(dirty_BQE[0], clean_QE)
    assert not dirty_BQE[1].isfinite().any()


def test_a_stream_without_pairs_predicts_zero() -> None:
    fitted = rival.fit(supports([0], (4, 3)))
    assert torch.equal(rival.predict(fitted, queries(1, 4)), torch.zeros(1, 4, 3))
    mlp: Mlp = rival.as_mapping(fitted, 0)
    assert all(not tensor.any() for tensor in (mlp.w1, mlp.b1, mlp.b2))


def test_better_is_clear_beyond_the_error_of_the_mean_alone() -> None:
    other_BQ = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 9.0, 9.0]])
    gains_BQ = torch.tensor([[0.5, 0.5, 0.6], [3.0, -1.0, -1.0], [0.0, 0.0, 0.0], [0.9, 0, 0]])
    real_BQ = torch.ones(4, 3, dtype=torch.bool)
    real_BQ[3, 1:] = False  # one pair says nothing
    found_B = rival.clearly_better(other_BQ - gains_BQ, other_BQ, real_BQ)
    assert found_B.tolist() == [True, False, False, False]
    error = np.std([0.5, 0.5, 0.6], ddof=1) / np.sqrt(3)
    barely_BQ = torch.tensor([[0.5, 0.5, 0.6]]) - (np.mean([0.5, 0.5, 0.6]) - error)
    for shift, expected in ((1e-3, True), (-1e-3, False)):
        gain_BQ = barely_BQ + shift
        assert rival.clearly_better(-gain_BQ, 0 * gain_BQ, real_BQ[:1]).item() is expected
