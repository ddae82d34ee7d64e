"""Data that nobody tuned: each transformation against its definition, and streams that change.

N = pairs of a stream, S = support pairs, Q = query pairs, D = source dim, E = target dim
"""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from scipy.linalg import expm

from model.emoji import transformations as tf
from model.emoji.moving_streams import MOVING, changed_streams, drift, jump, sliding_episodes
from model.emoji.transformations import TRANSFORMATIONS, Transform
from model.meta.recorded_streams import RecordedStream
from model.values.arrays import FloatArray

D, E = 6, 8


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def pairs(count: int = 200) -> tuple[FloatArray, FloatArray]:
    drawn = rng(0)
    x_ND, y_NE = (drawn.standard_normal((count, dim)).astype(np.float32) for dim in (D, E))
    return x_ND + 1.0, 2.0 * y_NE - 0.5


def targets_of(apply: Transform, count: int = 200) -> tuple[FloatArray, FloatArray]:
    """The targets before and after, where sources must stay as they are."""
    x_ND, y_NE = pairs(count)
    new_x_ND, new_y_NE = apply(x_ND, y_NE, rng())
    np.testing.assert_array_equal(new_x_ND, x_ND)
    return y_NE, new_y_NE


def stream(name: str = "a", count: int = 200) -> RecordedStream:
    x_ND, y_NE = pairs(count)
    return RecordedStream(
        name, x_ND, y_NE, np.zeros(count, np.int64), tuple(map(str, range(count)))
    )


@pytest.mark.parametrize("each", TRANSFORMATIONS, ids=lambda t: t.name)
def test_a_transformation_is_pure_and_keeps_shapes_and_single_precision(
    each: tf.Transformation,
) -> None:
    x_ND, y_NE = pairs()
    kept = x_ND.copy(), y_NE.copy()
    first, again = (each.apply(x_ND, y_NE, rng()) for _ in range(2))
    for before, array, found, same in zip(kept, (x_ND, y_NE), first, again, strict=True):
        np.testing.assert_array_equal(array, before)
        np.testing.assert_array_equal(found, same)
        assert (found.shape, found.dtype.name) == (before.shape, "float32")
        assert np.isfinite(found).all()


def test_names_of_rows_differ() -> None:
    names = [t.name for t in TRANSFORMATIONS] + [m.name for m in MOVING]
    assert len(set(names)) == len(names)


def test_targets_are_multiplied_or_divided_by_their_norms() -> None:
    y_NE, found_NE = targets_of(partial(tf.targets_scaled, factor=0.01))
    np.testing.assert_allclose(found_NE, y_NE * 0.01, rtol=1e-6)
    y_NE, found_NE = targets_of(tf.unit_norm)
    np.testing.assert_allclose(np.square(found_NE).sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(found_NE * np.sqrt((y_NE**2).sum(1))[:, None], y_NE, atol=1e-5)


@pytest.mark.parametrize("side", [0, 1])
def test_a_shift_is_one_vector_of_so_many_deviations(side: int) -> None:
    apply = (tf.sources_shifted, tf.targets_shifted)[side]
    before = pairs()
    after = apply(*before, rng(), deviations=3.0)
    np.testing.assert_array_equal(after[1 - side], before[1 - side])
    added = after[side] - before[side]
    np.testing.assert_allclose(added, np.broadcast_to(added[0], added.shape), atol=1e-5)
    total_variance = before[side].var(axis=0).sum()
    assert np.linalg.norm(added[0]) == pytest.approx(3.0 * np.sqrt(total_variance), rel=1e-4)
    other = apply(*before, rng(4), deviations=3.0)[side] - before[side]
    assert np.abs(other[0] - added[0]).max() > 0.1


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_mislabelled_pairs_are_the_share_and_have_each_others_targets(share: float) -> None:
    y_NE, found_NE = targets_of(partial(tf.mislabelled, share=share))
    wrong_N = (found_NE != y_NE).any(axis=1)
    assert wrong_N.sum() == round(share * 200)
    rows = [sorted(map(tuple, array[wrong_N].tolist())) for array in (y_NE, found_NE)]
    assert rows[0] == rows[1]


def test_heavy_tails_are_students_of_two_degrees_of_freedom() -> None:
    y_NE, found_NE = targets_of(tf.heavy_tailed, 4_000)
    deviation = np.sqrt(y_NE.astype(np.float64).var(axis=0).mean())
    t = (found_NE - y_NE) / (tf.HEAVY_NOISE * deviation)
    for bound, within in ((0.816, 0.5), (2.920, 0.9), (9.925, 0.99)):  # of tables of t
        assert (np.abs(t) < bound).mean() == pytest.approx(within, abs=0.01)


def test_targets_of_a_rank_are_projections() -> None:
    y_NE, found_NE = targets_of(partial(tf.of_rank, rank=4))
    assert np.linalg.matrix_rank(found_NE, tol=1e-2) == 4
    np.testing.assert_allclose(((y_NE - found_NE) * found_NE).sum(axis=1), 0.0, atol=1e-4)


def test_sparse_targets_keep_their_largest_quarter() -> None:
    y_NE, found_NE = targets_of(tf.sparse)
    for before, after in zip(y_NE, found_NE, strict=True):
        largest = sorted(range(E), key=lambda e: -abs(before[e]))[: E // 4]
        assert np.flatnonzero(after).tolist() == sorted(largest)
        np.testing.assert_array_equal(after[largest], before[largest])


def test_anisotropic_targets_have_a_factor_for_each_dimension() -> None:
    y_NE, found_NE = targets_of(tf.anisotropic)
    factors_NE = found_NE / y_NE
    np.testing.assert_allclose(factors_NE, np.broadcast_to(factors_NE[0], (200, E)), rtol=1e-4)
    factors = sorted(factors_NE[0].tolist())
    assert (factors[0], factors[-1]) == (pytest.approx(0.1), pytest.approx(10.0))
    ratios = [b / a for a, b in pairwise(factors)]
    assert ratios == pytest.approx([100.0 ** (1 / (E - 1))] * (E - 1), rel=1e-4)


def test_tanh_and_squares_are_of_every_number() -> None:
    y_NE, found_NE = targets_of(tf.tanh_of_targets)
    np.testing.assert_allclose(found_NE, 1.0 - 2.0 / (np.exp(2.0 * y_NE) + 1.0), atol=1e-6)
    y_NE, found_NE = targets_of(tf.squares_of_targets)
    np.testing.assert_array_equal(found_NE, y_NE * y_NE)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_so_many_judged_pairs_stand_in_the_support_too(count: int) -> None:
    before = pairs(9)
    after = tf.judged_repeated(*before, rng(), count=count)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new[:count], old[5 : 5 + count])
        np.testing.assert_array_equal(new[count:], old[count:])


def test_a_vocabulary_has_at_most_so_many_pairs_and_uses_them_again() -> None:
    x_ND, y_NE = pairs(68)
    new_x_ND, new_y_NE = tf.vocabulary(x_ND, y_NE, rng(), size=12)
    known = {(*x, *y) for x, y in zip(x_ND.tolist(), y_NE.tolist(), strict=True)}
    used = {(*x, *y) for x, y in zip(new_x_ND.tolist(), new_y_NE.tolist(), strict=True)}
    assert used < known
    assert 8 < len(used) <= 12


def test_a_jump_is_to_the_other_streams_targets_at_pair_0() -> None:
    y_NE, other_NE = pairs()[1], pairs()[1][::-1]
    targets_at = jump(y_NE, other_NE, rng())
    np.testing.assert_array_equal(targets_at(-1), y_NE)
    np.testing.assert_array_equal(targets_at(0), other_NE)
    streams = [stream("a"), stream("b")]
    (_, first), (_, last) = changed_streams(streams, MOVING[0], rng())
    np.testing.assert_array_equal(first(0), streams[1].y_NE)
    np.testing.assert_array_equal(last(0), streams[0].y_NE)


def test_a_drift_turns_by_one_radian_per_hundred_pairs() -> None:
    y_NE = np.identity(E, np.float32)
    targets_at = drift(y_NE, y_NE, rng())
    np.testing.assert_allclose(targets_at(0), y_NE, atol=1e-6)
    normal_EE = rng().standard_normal((E, E))
    plane_EE = (normal_EE - normal_EE.T) / np.linalg.norm(normal_EE - normal_EE.T, ord=2)
    np.testing.assert_allclose(targets_at(70), expm(0.7 * plane_EE), atol=1e-5)
    angles = np.abs(np.angle(np.linalg.eigvals(targets_at(100).astype(np.float64))))
    assert angles.max() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("every", [1, 6])
def test_windows_slide_over_the_change_and_queries_have_the_map_of_the_moment(every: int) -> None:
    made = stream()
    targets_at = jump(made.y_NE, made.y_NE + 100.0, rng())
    found = sliding_episodes(made, targets_at, rng(), every).after
    assert len(found) == 72 // every
    known = {tuple(x): y for x, y in zip(made.x_ND.tolist(), made.y_NE, strict=True)}
    for number, e in enumerate(found, 1):
        x_ND, y_NE = np.concatenate([e.x_SD, e.x_gate_ND]), np.concatenate([e.y_SE, e.y_gate_NE])
        assert (len(e.x_SD), len(e.x_gate_ND)) == (32, 4)
        moved_N = np.array(
            [y[0] - known[tuple(x)][0] for x, y in zip(x_ND.tolist(), y_NE, strict=True)]
        )
        new = min(36, every * number)
        np.testing.assert_allclose(moved_N, [0.0] * (36 - new) + [100.0] * new, atol=1e-4)
        assert not {*map(tuple, x_ND.tolist())} & {*map(tuple, e.x_QD.tolist())}
        assert e.y_QE.mean() == pytest.approx(100.0, abs=1.0)
    before, after = (np.concatenate([e.x_SD, e.x_gate_ND]) for e in found[:2])
    np.testing.assert_array_equal(before[every:], after[:-every])
