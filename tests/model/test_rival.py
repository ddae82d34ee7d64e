"""The batched rival against ridge regression for one stream, in float64.

B = streams in batch, S = support pairs, Q = query pairs, D = source dim, E = target dim
"""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from model.baselines.procrustes import fit_procrustes
from model.baselines.ridge import fit_ridge
from model.inner.learner import Support
from model.inner.leave_one_out import PENALTIES, TIE
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
        alone = fit_ridge(support.x_BSD[b, :n].numpy(), support.y_BSE[b, :n].numpy())
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


# ---- orthogonal Procrustes


def test_procrustes_is_that_of_scipy() -> None:
    support, x_BQD = supports([9, 9, 8], (4, 4)), queries(3, 4)
    found_BQE = rival.predict(rival.fit_about_zero(support), x_BQD)
    for b, n in enumerate([9, 9, 8]):
        x_SD, y_SE = (t[b, :n].numpy().astype(np.float64) for t in support[:2])
        turn_DE, total = orthogonal_procrustes(x_SD, y_SE)
        expected_QE = total / np.square(x_SD).sum() * x_BQD[b].numpy() @ turn_DE
        np.testing.assert_allclose(found_BQE[b], expected_QE, atol=1e-2)


@pytest.mark.parametrize("dims", [(6, 3), (3, 6), (5, 5), (16, 12)])
@pytest.mark.parametrize("x_factor", [1e-12, 1.0, 1e6])
@pytest.mark.parametrize("y_factor", [1e-12, 1.0, 1e6])
def test_procrustes_of_few_pairs_and_other_dims_maps_what_they_do_not_reach_to_zero(
    dims: tuple[int, int], x_factor: float, y_factor: float
) -> None:
    lengths = [1, 2, 4, 9]
    support, x_BQD = supports(lengths, dims), queries(4, dims[0])
    scaled = support._replace(x_BSD=support.x_BSD * x_factor, y_BSE=support.y_BSE * y_factor)
    fitted = rival.fit_about_zero(scaled)
    found_BQE = rival.predict(fitted, x_BQD * x_factor) / y_factor
    for b, n in enumerate(lengths):
        alone = fit_procrustes(support.x_BSD[b, :n].numpy(), support.y_BSE[b, :n].numpy())
        np.testing.assert_allclose(found_BQE[b], alone(x_BQD[b].numpy()), atol=2e-2)
        mlp = rival.as_mapping(fitted, b)
        made_QE = apply(mlp, x_BQD[b] * x_factor, "none") / y_factor
        torch.testing.assert_close(made_QE, found_BQE[b], atol=1e-4, rtol=1e-3)


def test_procrustes_of_repeated_zero_and_poisoned_pairs_is_each_streams_own() -> None:
    support, x_BQD = supports([6, 6, 6, 0, 3], (5, 4)), queries(5, 5)
    support.x_BSD[0, 1:] = support.x_BSD[0, 0]
    support.y_BSE[0, 1:] = support.y_BSE[0, 0]
    support.x_BSD[1] = 0.0
    support.x_BSD[2, 2] = torch.nan
    support.y_BSE[4, 3:] = torch.inf
    found_BQE = rival.predict(rival.fit_about_zero(support), x_BQD)
    assert found_BQE[[0, 1, 3, 4]].isfinite().all()
    assert not found_BQE[[1, 3]].any()
    assert not found_BQE[2].isfinite().any()
    own_1QE = rival.predict(rival.fit_about_zero(Support(*(t[4:] for t in support))), x_BQD[4:])
    assert torch.equal(own_1QE[0], found_BQE[4])
    one_pair = fit_procrustes(support.x_BSD[0, :1].numpy(), support.y_BSE[0, :1].numpy())
    np.testing.assert_allclose(found_BQE[0], one_pair(x_BQD[0].numpy()), atol=1e-2)


@pytest.mark.parametrize("x_factor", [1e-6, 1e-2, 1.0, 1e6])
@pytest.mark.parametrize("y_factor", [1e-6, 1.0, 1e6])
def test_units_of_sources_and_targets_change_no_prediction(
    x_factor: float, y_factor: float
) -> None:
    (x_BSD, y_BSE, real_BS), x_BQD = supports([2, 5, 9], (6, 3)), queries(3, 6)
    expected_BQE = rival.predict(rival.fit(Support(x_BSD, y_BSE, real_BS)), x_BQD)
    scaled = rival.fit(Support(x_BSD * x_factor, y_BSE * y_factor, real_BS))
    found_BQE = rival.predict(scaled, x_BQD * x_factor) / y_factor
    torch.testing.assert_close(found_BQE, expected_BQE, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_the_penalty_is_that_of_the_best_refits_without_each_pair(n: int) -> None:
    """Fitted again without each pair in turn, by the penalty as an absolute number."""
    chosen = []
    for seed in range(12):
        rng = np.random.default_rng([n, seed])
        x_SD = rng.standard_normal((n, 6)).astype(np.float32)
        noise = 10.0 ** rng.uniform(-2, 1)
        y_SE = (x_SD @ rng.standard_normal((6, 3)) + noise * rng.standard_normal((n, 3))).astype(
            np.float32
        )
        unit = ((x_SD - x_SD.mean(0)) ** 2).sum() / n
        errors = [
            sum(
                ((fit_ridge(np.delete(x_SD, i, 0), np.delete(y_SE, i, 0), p * unit)(x_SD[i : i + 1])
                  - y_SE[i]) ** 2).sum()
                for i in range(n)
            )
            for p in PENALTIES
        ]  # fmt: skip
        best = 0
        for i in (1, 2):
            best = i if errors[i] < errors[best] * (1.0 - TIE) else best
        real_1S = torch.ones(1, n, dtype=torch.bool)
        fitted = rival.fit(Support(torch.tensor(x_SD)[None], torch.tensor(y_SE)[None], real_1S))
        x_QD = rng.standard_normal((4, 6)).astype(np.float32)
        expected_QE = fit_ridge(x_SD, y_SE, PENALTIES[best] * unit)(x_QD)
        found_1QE = rival.predict(fitted, torch.tensor(x_QD)[None])
        np.testing.assert_allclose(found_1QE[0], expected_QE, rtol=1e-2, atol=1e-3)
        np.testing.assert_allclose(fit_ridge(x_SD, y_SE)(x_QD), expected_QE, rtol=1e-3, atol=1e-4)
        chosen.append(best)
    assert n < 5 or len(set(chosen)) > 1


DEGENERATE = {
    "one pair": (np.ones((1, 4)), np.ones((1, 3))),
    "all equal": (np.ones((5, 4)), np.ones((5, 3))),
    "all zero": (np.zeros((5, 4)), np.zeros((5, 3))),
    "equal sources": (np.ones((5, 4)), np.arange(15.0).reshape(5, 3)),
    "subnormal sources": (1e-40 * np.arange(20.0).reshape(5, 4), np.arange(15.0).reshape(5, 3)),
    "subnormal targets": (np.arange(20.0).reshape(5, 4), 1e-40 * np.arange(15.0).reshape(5, 3)),
    "one distinct pair": (np.eye(4)[[0, 0, 0, 1]], np.eye(4)[[0, 0, 0, 1]]),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_supports_give_finite_predictions(name: str) -> None:
    x_1SD, y_1SE = (torch.tensor(side, dtype=torch.float32)[None] for side in DEGENERATE[name])
    fitted = rival.fit(Support(x_1SD, y_1SE, torch.ones(x_1SD.shape[:2], dtype=torch.bool)))
    assert rival.predict(fitted, x_1SD).isfinite().all()
    if name != "one distinct pair":
        mean_1E = y_1SE.mean(1)
        assert name == "subnormal targets" or torch.allclose(
            rival.predict(fitted, torch.zeros(1, 1, 4))[:, 0], mean_1E, atol=1e-4
        )


def test_huge_numbers_lose_no_other_stream() -> None:
    support, x_BQD = supports([5, 5], (4, 3)), queries(2, 4)
    expected_QE = rival.predict(rival.fit(support), x_BQD)[0]
    support.x_BSD[1] *= 1e30
    assert torch.equal(rival.predict(rival.fit(support), x_BQD)[0], expected_QE)
