"""The judge: who takes whose place, by which pairs, and that one's failure is nobody else's.

B = streams in batch, S = support pairs, Q = query pairs, N = pairs of a stream, Y = candidates,
D = source dim, E = target dim, R = rows (pairs)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeCV

from model.baselines.ridge import fit_ridge
from model.inner.neighbours import TIE, missed
from model.mappings.numpy_mlp import apply_numpy
from model.meta.fresh import fresh_theta_of_kind
from model.serving.engine import Engine
from model.serving.judging import (
    MOST_ERRORS,
    Measures,
    errors_ahead,
    measured,
    nearer_linear,
    order_of,
    standing,
    verdict_of,
)
from model.serving.windows import EpisodeWindows
from model.theta.meta_init import MetaInit, usual_sources_of
from model.values.arrays import FloatArray
from model.values.episode import Adaptation, Candidate, Cut, Episode
from model.values.gate import Outcome, judge

DIMS = (12, 16, 6)
ADAPTED, THETA, RIDGE = Candidate.ADAPTED, Candidate.THETA, Candidate.RIDGE
PROCRUSTES = Candidate.PROCRUSTES


# ---- the rule


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e12])
def test_how_far_ahead_is_the_mean_gain_in_its_own_standard_errors(size: float) -> None:
    gains = np.array([0.5, 0.5, 0.6, 0.3])
    expected = gains.mean() / (np.std(gains, ddof=1) / np.sqrt(4))
    judges_BQ = torch.ones(1, 4, dtype=torch.bool)
    gain_BQ, zeros_BQ = torch.tensor(size * gains[None], dtype=torch.float32), torch.zeros(1, 4)
    assert errors_ahead(-gain_BQ, zeros_BQ, judges_BQ).item() == pytest.approx(expected, rel=1e-5)
    assert errors_ahead(zeros_BQ, -gain_BQ, judges_BQ).item() == pytest.approx(-expected, rel=1e-5)


def test_two_pairs_say_nothing_and_pairs_that_do_not_judge_say_nothing() -> None:
    one_BQ, other_BQ = torch.zeros(2, 4), torch.ones(2, 4)
    judges_BQ = torch.tensor([[True, True, False, False], [True, True, True, False]])
    one_BQ[1, 3] = torch.nan
    assert errors_ahead(one_BQ, other_BQ, judges_BQ).tolist() == [0.0, np.inf]
    assert errors_ahead(other_BQ, other_BQ, judges_BQ).tolist() == [0.0, 0.0]


def test_three_pairs_need_as_much_as_students_t_says() -> None:
    gains = np.array([0.5, 0.6, 0.3])
    exceeded = stats.t.sf(2.0, df=3)
    expected = 2.0 / stats.t.isf(exceeded, df=2) * stats.ttest_1samp(gains, 0.0).statistic
    judges_BQ = torch.ones(1, 3, dtype=torch.bool)
    found = errors_ahead(torch.zeros(1, 3), torch.tensor(gains)[None], judges_BQ)
    assert found.item() == pytest.approx(expected, rel=5e-3)


def test_measures_are_the_squared_error_and_the_cosine_about_the_mean() -> None:
    rng = np.random.default_rng(0)
    o, y, m = rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), rng.standard_normal(3)
    o_1QE, y_1QE, m_11E = (torch.tensor(t)[None] for t in (o, y, m[None]))
    real_1Q = torch.ones(1, 4, dtype=torch.bool)
    found = measured(o_1QE, y_1QE, m_11E, torch.tensor([True]), real_1Q)
    np.testing.assert_allclose(found.squared_BQ[0], ((o - y) ** 2).sum(1))
    c = [(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(o - m, y - m, strict=True)]
    np.testing.assert_allclose(found.cosine_BQ[0], 1 - np.array(c))
    assert found.healthy_B.item()


def measures(squared: float, cosine: float, *, healthy: bool = True) -> Measures:
    """The same for every pair, but for a little scatter."""
    scatter_1Q = torch.tensor([[0.0, 0.01, 0.0, -0.01]])
    return Measures(squared + scatter_1Q, cosine - scatter_1Q, torch.tensor([healthy]))


@pytest.mark.parametrize(
    ("adapted", "theta", "ridge", "trained", "expected"),
    [
        (measures(1, 1), measures(1, 1), measures(1, 1), True, ADAPTED),
        (measures(1, 1), measures(1, 1), measures(1, 1), False, RIDGE),
        (measures(1, 1), measures(0.5, 0.5), measures(1, 1), True, THETA),
        (measures(1, 1), measures(0.5, 1), measures(1, 0.5), True, ADAPTED),
        (measures(1, 1), measures(0.5, 0.5), measures(0.2, 0.2), True, RIDGE),
        (measures(0.5, 0.5), measures(1, 1), measures(1, 1), False, ADAPTED),
        (measures(1, 1, healthy=False), measures(1, 1), measures(0.2, 0.2), True, RIDGE),
        (measures(1, 1, healthy=False), measures(1, 1), measures(1.2, 0.2), True, THETA),
        (measures(0.1, 0.1, healthy=False), measures(1, 1), measures(1, 1), True, THETA),
        (measures(1, 1), measures(1, 1), measures(0.1, 0.1, healthy=False), False, ADAPTED),
        *(
            (measures(1, 1, healthy=False),) * 3 + (trained, THETA)
            for trained in (True, False)
        ),
    ],
)  # fmt: skip
def test_who_wins(
    adapted: Measures, theta: Measures, ridge: Measures, trained: bool, expected: Candidate
) -> None:
    given = {ADAPTED: adapted, THETA: theta, RIDGE: ridge}
    judges_BQ = torch.ones(1, 4, dtype=torch.bool)
    order = order_of(trained=trained, ridge=True)
    assert verdict(order, given, judges_BQ)[0] is expected
    none_judge = verdict(order, given, ~judges_BQ)[0]
    first = (adapted if trained else ridge).healthy_B.item()
    assert none_judge is (order[0] if first else none_judge)


def verdict(
    order: tuple[Candidate, ...], given: dict[Candidate, Measures], judges_BQ: torch.Tensor
) -> tuple[Candidate, float, float]:
    found = standing(order, given, judges_BQ)
    healthy_Y, (squared_YY, cosine_YY) = found.healthy_YB[:, 0], found.ahead_2YYB[..., 0]
    return verdict_of(found.order, healthy_Y.tolist(), (squared_YY.tolist(), cosine_YY.tolist()))


def test_the_evidence_is_the_distance_to_the_nearest_other_candidate() -> None:
    """Gains over θ are 1 ± 0.1 in squared error, those over ridge 0.5 ± 0.1, and in cosine half."""
    scatter_Q = np.array([0.1, -0.1, 0.1, -0.1])

    def losses(mean: float, *, healthy: bool = True) -> Measures:
        squared_1Q = torch.tensor(mean + (mean > 0) * scatter_Q)[None]
        return Measures(squared_1Q, squared_1Q / 2, torch.tensor([healthy]))

    given = {ADAPTED: losses(0.0), THETA: losses(1.0), RIDGE: losses(0.5)}
    judges_1Q, order = torch.ones(1, 4, dtype=torch.bool), order_of(trained=True, ridge=True)
    error = np.std(scatter_Q, ddof=1) / 2
    winner, *ahead = verdict(order, given, judges_1Q)
    assert winner is ADAPTED
    assert ahead == pytest.approx([0.5 / error, 0.5 / error], abs=0.005)
    given[RIDGE] = losses(0.5, healthy=False)
    assert verdict(order, given, judges_1Q)[1:] == pytest.approx((1 / error, 1 / error), abs=0.005)
    given[THETA] = losses(1.0, healthy=False)
    assert np.isnan(verdict(order, given, judges_1Q)[1:]).all()
    given[THETA] = losses(0.0)
    given[ADAPTED] = losses(-1.0)
    assert verdict(order, given, judges_1Q) == (ADAPTED, MOST_ERRORS, MOST_ERRORS)


@pytest.mark.parametrize(
    ("ridge", "procrustes", "expected"),
    [
        (measures(1, 1), measures(1, 0.9), True),
        (measures(1, 1), measures(1.9, 0.9), True),
        (measures(1, 1), measures(2.1, 0.9), False),
        (measures(1, 1), measures(0.1, 1), False),
        (measures(1, 0.9), measures(0.1, 1), False),
        (measures(1, 1), measures(1, 0.9, healthy=False), False),
        (measures(1, 0.9, healthy=False), measures(1, 1), True),
        (measures(np.nan, np.nan, healthy=False), measures(1, 1), True),
        (measures(1, 1), measures(np.nan, np.nan, healthy=False), False),
    ],
)
def test_which_linear_map_stands_for_both(
    ridge: Measures, procrustes: Measures, expected: bool
) -> None:
    judges_BQ = torch.ones(1, 4, dtype=torch.bool)
    linear, rotates_B = nearer_linear(ridge, procrustes, judges_BQ)
    assert rotates_B.item() == expected
    assert linear.healthy_B.item()
    taken = procrustes if expected else ridge
    assert torch.equal(linear.squared_BQ, taken.squared_BQ)
    assert torch.equal(linear.cosine_BQ, taken.cosine_BQ)
    _, none_judge_B = nearer_linear(ridge, procrustes, ~judges_BQ)
    assert none_judge_B.item() == (not ridge.healthy_B.item())


def test_without_ridge_there_are_two_candidates() -> None:
    assert RIDGE not in order_of(trained=False, ridge=False)
    assert PROCRUSTES not in order_of(trained=False, ridge=False)
    assert PROCRUSTES not in order_of(trained=True, ridge=True)


# ---- engines of both forms


def theta_of(learner: str = "maml", *, trained: bool = True, rate: float = 1.0) -> MetaInit:
    made = fresh_theta_of_kind(DIMS, learner=learner, steps=3)
    rates = {name: tensor * np.float32(rate) for name, tensor in made.learner.tensors.items()}
    facts = {"training": "a test's"} if trained else made.facts
    return replace(made, facts=facts, learner=replace(made.learner, tensors=rates))


def episode_of(support: int, query: int, seed: int = 0) -> Episode:
    """A linear map of the stream's own."""
    rng = np.random.default_rng(seed)
    map_DE = rng.standard_normal((DIMS[0], DIMS[2])) / np.sqrt(DIMS[0])
    x_ND = rng.standard_normal((support + query, DIMS[0])).astype(np.float32)
    y_NE = (x_ND @ map_DE).astype(np.float32)
    return Episode(x_ND[:support], y_NE[:support], x_ND[support:], y_NE[support:])


def adapt(theta: MetaInit, episode: Episode, form: str, *, wanted: bool = True) -> Adaptation:
    engine = Engine(theta, "cpu", support_capacity=24, query_capacity=4)
    windows = engine.windows(2, form="full" if form == "full" else "hidden")
    assert isinstance(windows, EpisodeWindows) == (form == "full")
    x = [*episode.x_support_SD, *episode.x_query_QD]
    windows.append([1] * len(x), x, [*episode.y_support_SE, *episode.y_query_QE])
    (found,) = windows.adapt([Cut(1, len(episode.x_support_SD), len(episode.x_query_QD), wanted)])
    return found


FORMS = pytest.mark.parametrize("form", ["full", "hidden"])


@FORMS
def test_a_sound_ridge_stands_beside_a_theta_that_exploded(form: str) -> None:
    found = adapt(theta_of(rate=1e12), episode_of(24, 4), form)
    assert not found.finite
    assert found.winner is RIDGE
    assert judge(found) is Outcome.RIDGE
    assert found.ridge is not None
    assert all(np.isfinite(tensor).all() for tensor in found.ridge.values())
    few = adapt(theta_of(rate=1e12), episode_of(2, 1), form)
    assert judge(few) is Outcome.NOT_FINITE


@FORMS
def test_a_random_theta_is_judged_against_ridge(form: str) -> None:
    episode = episode_of(5, 1)
    assert adapt(theta_of(trained=False), episode, form).winner is RIDGE
    assert adapt(theta_of(trained=True), episode, form).winner is ADAPTED


def rotated(support: int, query: int, seed: int = 0) -> Episode:
    """A rotation of vectors of unit norm, with a little noise: too few pairs for ridge."""
    rng = np.random.default_rng(seed)
    turn_DD = np.linalg.qr(rng.standard_normal((DIMS[0], DIMS[0])))[0]
    x_ND = rng.standard_normal((support + query, DIMS[0])) + 0.2
    x_ND /= np.linalg.norm(x_ND, axis=1, keepdims=True)
    y_NE = 3.0 * x_ND @ turn_DD[:, : DIMS[2]] + 0.05 * rng.standard_normal((len(x_ND), DIMS[2]))
    x, y = x_ND.astype(np.float32), y_NE.astype(np.float32)
    return Episode(x[:support], y[:support], x[support:], y[support:])


@FORMS
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_procrustes_is_published_where_it_is_the_better_linear_map(
    seed: int, wanted: bool, form: str
) -> None:
    """Learned from all pairs. The right values are of the singular value decomposition."""
    given = rotated(5, 4, seed)
    found = adapt(theta_of(trained=False), given, form, wanted=wanted)
    assert found.winner is PROCRUSTES
    assert judge(found) is Outcome.RIDGE
    assert found.ridge is not None
    x_ND = np.concatenate([given.x_support_SD, given.x_query_QD]).astype(np.float64)
    y_NE = np.concatenate([given.y_support_SE, given.y_query_QE]).astype(np.float64)
    u_DE, _, vt_EE = np.linalg.svd(x_ND.T @ y_NE, full_matrices=False)
    made_NE = x_ND @ u_DE @ vt_EE
    scale = (made_NE * y_NE).sum() / (made_NE**2).sum()
    expected_DE = scale * u_DE @ vt_EE
    weight_DE = apply_numpy(found.ridge, np.eye(DIMS[0], dtype=np.float32), "none")
    np.testing.assert_allclose(weight_DE, expected_DE, atol=2e-3 * np.abs(expected_DE).max())
    assert found.rival is not None  # ridge regression, whoever won
    others_DE = apply_numpy(found.rival, np.eye(DIMS[0], dtype=np.float32), "none")
    assert np.abs(others_DE - expected_DE).max() > 0.1


def test_both_forms_measure_the_same_of_procrustes() -> None:
    for seed in (1, 2, 3):
        full, hidden = (
            adapt(theta_of(trained=False), rotated(5, 4, seed), form) for form in ("full", "hidden")
        )
        assert full.winner is hidden.winner is PROCRUSTES
        assert full.evidence is not None
        assert hidden.evidence is not None
        for one, other in zip(full.evidence[:2], hidden.evidence[:2], strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-5)
        assert hidden.ahead_squared == pytest.approx(full.ahead_squared, rel=1e-2, abs=0.02)


@FORMS
@pytest.mark.parametrize("repeated", [0, 1, 3, 4])
def test_pairs_whose_source_is_in_the_support_do_not_judge(form: str, repeated: int) -> None:
    """No map makes these targets of their sources, but ridge regression has 9 by heart."""
    episode = episode_of(9, 4)
    rng = np.random.default_rng(1)
    x_QD, y_QE = episode.x_query_QD.copy(), rng.standard_normal((4, DIMS[2])).astype(np.float32)
    y_SE = rng.standard_normal((9, DIMS[2])).astype(np.float32)
    x_QD[:repeated], y_QE[:repeated] = (t[3 : 3 + repeated] for t in (episode.x_support_SD, y_SE))
    given = replace(episode, x_query_QD=x_QD, y_support_SE=y_SE, y_query_QE=y_QE)
    found = adapt(theta_of(), given, form)
    assert found.judged_pairs == 4 - repeated
    assert found.winner is ADAPTED


@FORMS
def test_ridge_takes_the_place_of_theta_where_it_finds_more_of_the_support(form: str) -> None:
    """Left out, one by one. Repeated sources do not count."""
    given = episode_of(20, 2)
    x, y = given.x_support_SD.astype(np.float64), given.y_support_SE.astype(np.float64)
    left_out = [
        RidgeCV(alphas=[a * ((x - x.mean(0)) ** 2).sum(1).mean() for a in (0.001, 0.01, 0.15)])
        .fit(np.delete(x, i, 0), np.delete(y, i, 0))
        .predict(x[i : i + 1])
        for i in range(20)
    ]
    found_by_ridge = np.mean(
        [np.square(y - o).sum(1).argmin() == i for i, o in enumerate(left_out)]
    )
    assert found_by_ridge > 0.9
    slow = theta_of(rate=0.01)  # learns hardly anything of the pairs
    found = adapt(slow, given, form)
    assert found.winner is RIDGE
    assert found.ahead_squared == 0.0  # two pairs do not tell
    repeated = replace(
        given,
        x_support_SD=np.concatenate([given.x_support_SD[:10]] * 2),
        y_support_SE=np.concatenate([given.y_support_SE[:10]] * 2),
    )
    assert adapt(slow, repeated, form).winner is ADAPTED


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_what_is_found_of_the_support_is_the_nearest_target(scale: float) -> None:
    rng = np.random.default_rng(2)
    y = rng.standard_normal((3, 8, 4))
    o = y + 0.7 * rng.standard_normal(y.shape)
    y[:, 5] = y[:, 4]  # equal targets are all one's own
    counts = (8, 6, 3)
    expected = [
        [
            np.square(y[b, :n] - o[b, s]).sum(1).min()
            < np.square(y[b, s] - o[b, s]).sum() - TIE * np.square(y[b, :n]).sum(1).mean()
            for s in range(n)
        ]
        for b, n in enumerate(counts)
    ]
    o_BSE, y_BSE = torch.tensor(o * scale), torch.tensor(y * scale)
    real_BS = torch.arange(8) < torch.tensor(counts)[:, None]
    found_BS = missed(o_BSE @ y_BSE.transpose(1, 2), y_BSE.square().sum(2), real_BS)
    for b, n in enumerate(counts):
        assert found_BS[b, :n].tolist() == expected[b]
    nothing = missed(torch.full((1, 2, 2), torch.nan), torch.ones(1, 2), torch.ones(1, 2) > 0)
    assert nothing.tolist() == [[1.0, 1.0]]


def test_a_zero_is_a_zero_whatever_its_sign() -> None:
    episode = episode_of(20, 4)
    episode.x_support_SD[0], episode.x_query_QD[0] = 0.0, -0.0
    assert adapt(theta_of(), episode, "full").judged_pairs == 3


BAD = {
    "constant targets": (1.0, 0.0, 2.0),
    "zero sources": (0.0, 1.0, 0.0),
    "zero targets": (1.0, 0.0, 0.0),
    "all zero": (0.0, 0.0, 0.0),
    "huge sources": (1e30, 1.0, 0.0),
    "huge targets": (1.0, 1e30, 0.0),
    "subnormal sources": (1e-40, 1.0, 0.0),
    "subnormal targets": (1.0, 1e-40, 0.0),
}
"""Factors of sources and targets, and what is added to targets."""


def telling_usual_sources() -> MetaInit:
    x_RD = np.random.default_rng(5).standard_normal((50, DIMS[0])).astype(np.float32)
    return replace(theta_of(), usual_sources=usual_sources_of(x_RD + 0.5))


THETAS = {
    "trained": theta_of(),
    "random": theta_of(trained=False),
    "tells usual sources": telling_usual_sources(),
}


@FORMS
@pytest.mark.parametrize("kind", THETAS)
@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("support", [1, 5, 9])
def test_bad_input_gives_a_finite_mapping_and_a_true_outcome(
    name: str, kind: str, support: int, form: str
) -> None:
    x_factor, y_factor, shift = BAD[name]
    given = episode_of(support, 3)
    episode = Episode(
        *(
            (side * np.float32(factor) + np.float32(added)).astype(np.float32)
            for side, factor, added in (
                (given.x_support_SD, x_factor, 0.0),
                (given.y_support_SE, y_factor, shift),
                (given.x_query_QD, x_factor, 0.0),
                (given.y_query_QE, y_factor, shift),
            )
        )
    )
    found = adapt(THETAS[kind], episode, form)
    match judge(found):
        case Outcome.ADAPTED:
            tensors, activation = found.tensors, "gelu"
            assert found.finite
        case Outcome.RIDGE:
            assert found.ridge is not None
            tensors, activation = found.ridge, "none"
        case _:
            tensors, activation = theta_of().mapping, "gelu"
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    if name == "constant targets" and support > 1:
        outputs_QE = apply_numpy(tensors, episode.x_query_QD, activation)  # type: ignore[arg-type]
        np.testing.assert_allclose(outputs_QE, 2.0, atol=0.5)


# ---- units


def outputs(found: Adaptation, x_QD: FloatArray) -> FloatArray:
    if found.winner.is_linear:
        assert found.ridge is not None
        return apply_numpy(found.ridge, x_QD, "none")
    return apply_numpy(found.tensors, x_QD, "gelu")


@FORMS
@pytest.mark.parametrize("learner", ["maml", "anil"])
@pytest.mark.parametrize("factor", [1e-6, 0.177, 100.0, 1e6])
def test_units_of_targets_change_no_prediction(factor: float, learner: str, form: str) -> None:
    for seed in range(4):
        given = episode_of(5 + seed, 4, seed)
        scaled = replace(
            given,
            y_support_SE=given.y_support_SE * np.float32(factor),
            y_query_QE=given.y_query_QE * np.float32(factor),
        )
        one, other = (adapt(theta_of(learner), e, form) for e in (given, scaled))
        assert one.winner is other.winner
        x_QD = np.random.default_rng(9).standard_normal((8, DIMS[0])).astype(np.float32)
        expected_QE = outputs(one, x_QD)
        size = np.abs(expected_QE).max()
        # a scale within 1/64 of 1 is taken for 1
        np.testing.assert_allclose(outputs(other, x_QD) / factor, expected_QE, atol=2e-2 * size)


@FORMS
def test_a_mean_that_stands_out_changes_no_prediction(form: str) -> None:
    given = episode_of(12, 4)
    near, far = (
        adapt(
            theta_of(),
            replace(given, y_support_SE=given.y_support_SE + m, y_query_QE=given.y_query_QE + m),
            form,
        )
        for m in (np.float32(8.0), np.float32(20.0))
    )
    x_QD = np.random.default_rng(9).standard_normal((8, DIMS[0])).astype(np.float32)
    np.testing.assert_allclose(outputs(far, x_QD) - 20.0, outputs(near, x_QD) - 8.0, atol=1e-3)
    assert near.query_loss_after == pytest.approx(far.query_loss_after, rel=1e-3)


@pytest.mark.parametrize("learner", ["maml", "anil", "r2d2"])
@pytest.mark.parametrize(("factor", "shift"), [(1.0, 0.0), (1e-3, 0.0), (300.0, 0.0), (1.0, 7.0)])
def test_both_forms_publish_the_same(factor: float, shift: float, learner: str) -> None:
    for seed in range(4):
        given = episode_of(4 + 5 * seed, 4, seed)
        moved = replace(
            given,
            y_support_SE=given.y_support_SE * np.float32(factor) + np.float32(shift),
            y_query_QE=given.y_query_QE * np.float32(factor) + np.float32(shift),
        )
        for wanted in (True, False):
            full, hidden = (
                adapt(theta_of(learner), moved, form, wanted=wanted) for form in ("full", "hidden")
            )
            assert full.winner is hidden.winner
            assert full.judged_pairs == hidden.judged_pairs == 4
            for name, tensor in full.tensors.items():
                largest = np.abs(tensor).max()
                np.testing.assert_allclose(hidden.tensors[name], tensor, atol=2e-5 * largest)


@FORMS
@pytest.mark.parametrize("mean", [0.0, 10.0, 30.0, 100.0, 1000.0])
def test_ridges_loss_is_that_of_its_mapping_however_far_out_targets_lie(
    mean: float, form: str
) -> None:
    rng = np.random.default_rng(5)
    for _ in range(4):
        x_ND = rng.standard_normal((24, DIMS[0])).astype(np.float32)
        y_NE = (rng.standard_normal((24, DIMS[2])) + mean).astype(np.float32)
        found = adapt(theta_of(), Episode(x_ND[:20], y_NE[:20], x_ND[20:], y_NE[20:]), form)
        made_QE = fit_ridge(x_ND[:20], y_NE[:20])(x_ND[20:]).astype(np.float64)
        expected = np.square(made_QE - y_NE[20:]).mean()
        assert found.query_loss_ridge == pytest.approx(expected, rel=1e-3)


def test_a_refit_that_explodes_leaves_the_judged_mapping() -> None:
    """The query's sources are too large to be measured, and the support's are not."""
    given = episode_of(6, 2)
    engine = Engine(theta_of(rate=3.0), "cpu", support_capacity=24, query_capacity=4)
    whole = replace(given, x_query_QD=given.x_query_QD * np.float32(1e25))
    (found,) = engine.adapt([whole])
    (expected,) = engine.adapt(
        [replace(given, x_query_QD=given.x_query_QD[:0], y_query_QE=given.y_query_QE[:0])]
    )
    assert all(np.isfinite(tensor).all() for tensor in found.tensors.values())
    for name, tensor in expected.tensors.items():
        np.testing.assert_allclose(found.tensors[name], tensor, rtol=1e-5, atol=1e-6)


def test_batched_is_as_alone() -> None:
    engine = Engine(theta_of(), "cpu", support_capacity=24, query_capacity=4)
    episodes = [episode_of(3 + i, 4, i) for i in range(9)]
    together = engine.adapt(episodes)
    for one, given in zip(together, episodes, strict=True):
        (alone,) = engine.adapt([given])
        assert (one.query_loss_after, one.winner) == (alone.query_loss_after, alone.winner)
        for name, tensor in alone.tensors.items():
            assert one.tensors[name].tobytes() == tensor.tobytes()


# ---- a newcomer's data


@pytest.mark.parametrize("unit_length", [False, True])
def test_on_digits_a_random_theta_publishes_no_less_than_ridge_regression(
    unit_length: bool,
) -> None:
    """Sources are 64 pixels, targets ten classes' points in a space of each stream's own."""
    digits = load_digits()
    x_ND, classes_N = digits.data.astype(np.float32), digits.target
    if unit_length:
        x_ND = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
    engine = Engine(fresh_theta_of_kind((64, 32, 16)), "cpu", support_capacity=32, query_capacity=4)
    rng = np.random.default_rng(0)
    ours: list[float] = []
    theirs: list[float] = []
    errors: list[float] = []
    for _ in range(12):
        points_YE = rng.standard_normal((10, 16)).astype(np.float32)
        y_NE = points_YE[classes_N]
        rows = rng.permutation(len(x_ND))[:236]
        s, g, q = rows[:32], rows[32:36], rows[36:]
        (found,) = engine.adapt([Episode(x_ND[s], y_NE[s], x_ND[g], y_NE[g])])
        assert found.ridge is not None
        ridge = RidgeCV(np.logspace(-6, 6, 13)).fit(x_ND[rows[:36]], y_NE[rows[:36]])
        published_QE = apply_numpy(found.ridge, x_ND[q], "none")
        for outputs_QE, hits in ((published_QE, ours), (ridge.predict(x_ND[q]), theirs)):
            nearest_Q = ((outputs_QE[:, None] - points_YE) ** 2).sum(2).argmin(1)
            hits.append(float((nearest_Q == classes_N[q]).mean()))
        mean_E = y_NE[rows[:36]].mean(0)
        errors.append(((published_QE - y_NE[q]) ** 2).mean() / ((mean_E - y_NE[q]) ** 2).mean())
    assert np.mean(ours) > np.mean(theirs) - 0.02  # which tries 13 penalties
    assert np.mean(errors) < 0.8
