"""Data that are no emoji: scikit-learn's digits, and the ridge regression they are judged beside.

N = pairs of a stream, S = support pairs, Q = query pairs, B = streams in batch, Y = candidates
(classes),
D = source dim, E = target dim
"""

import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from model.evaluate.digits import (
    PENALTIES,
    DigitsOptions,
    digit_streams,
    fit_by_leave_one_out,
    judge_digits,
    load_pictures,
)
from model.evaluate.digits_training import DigitsEpisodes
from model.meta.episodes import EpisodeSizes
from model.values.arrays import FloatArray
from model.values.errors import BadData

FEW = DigitsOptions(streams=4, steps=3)


def window(number: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    e = digit_streams(*load_pictures(), FEW)[number].episode
    return np.concatenate([e.x_SD, e.x_gate_ND]), np.concatenate([e.y_SE, e.y_gate_NE]), e.x_QD


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_the_penalty_is_that_of_the_smallest_error_on_pairs_left_out(scale: float) -> None:
    x_ND, y_NE, x_QD = window()
    x_ND, x_QD = x_ND * np.float32(scale), x_QD * np.float32(scale)
    x = x_ND.astype(np.float64)
    penalties = PENALTIES * np.square(x - x.mean(axis=0)).sum() / len(x)

    def error(penalty: float) -> float:
        kept = ~np.eye(len(x), dtype=bool)
        fits = [Ridge(alpha=penalty).fit(x[k], y_NE[k]) for k in kept]
        return sum(
            float(np.square(fit.predict(x[n : n + 1]) - y_NE[n]).sum())
            for n, fit in enumerate(fits)
        )

    best = min(penalties[::4], key=error)
    found = fit_by_leave_one_out(x_ND, y_NE)(x_QD)
    by_sklearn = RidgeCV(alphas=penalties).fit(x, y_NE)
    np.testing.assert_allclose(found, by_sklearn.predict(x_QD), atol=1e-4)
    assert best / 11 < by_sklearn.alpha_ < best * 11  # a factor of 10 lies between every fourth


def test_streams_pair_pictures_with_a_rotation_of_their_classes() -> None:
    pixels_ND, digit_N = load_pictures()
    streams = digit_streams(pixels_ND, digit_N, FEW)
    for made in streams:
        e = made.episode
        assert (len(e.x_SD), len(e.x_gate_ND), len(e.x_QD)) == (32, 4, 200)
        noise = e.y_QE - made.class_vectors_YE[made.digit_Q]
        assert noise.std() == pytest.approx(0.1, rel=0.1)
        seen = {tuple(x) for x in np.concatenate([e.x_SD, e.x_gate_ND]).tolist()}
        assert not seen & {tuple(x) for x in e.x_QD.tolist()}
    first, second = (s.class_vectors_YE.astype(np.float64) for s in streams[:2])
    np.testing.assert_allclose(first @ first.T, second @ second.T, atol=1e-4)
    assert np.abs(first - second).max() > 1.0


def test_all_methods_are_judged_on_the_same_pictures_in_each_unit() -> None:
    judged = judge_digits(FEW)
    assert judged.data_rows is not None
    assert [r.data for r in judged.data_rows] == [
        "pixels from 0 to 16",
        "pixels from 0 to 1",
        "pictures of unit length",
        "pictures of unit length",
    ]
    assert [cell.pairs for cell in judged.data_rows[3].cells] == [5, 16, 64]
    cells = [row.cells[0] for row in judged.data_rows[:3]]
    ridge = [cell.r_at_1["ridge"].mean for cell in cells]
    assert ridge[0] == pytest.approx(ridge[1], abs=0.01)  # its penalty is relative
    assert min(ridge) > 0.5
    assert all(cell.pairs == 36 for cell in cells)
    assert all(cell.r_at_1["theta"].mean < 0.3 for cell in cells)  # ten classes, untrained
    assert judge_digits(FEW).data_rows == judged.data_rows


def test_without_scikit_learn_one_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(BadData, match="pip install scikit-learn"):
        judge_digits(FEW)


def test_training_streams_have_rotations_of_their_own_and_units_of_size_one() -> None:
    pixels_ND, digit_N = load_pictures()
    class_YE = 4.0 * np.identity(16, dtype=np.float32)[:10]
    source = DigitsEpisodes(pixels_ND, digit_N, class_YE, 0.0, EpisodeSizes(3, 12, 6))
    batch = source.draw(torch.Generator().manual_seed(0), 5)
    assert (source.source_dim, source.target_dim) == (64, 16)
    assert batch.y_query_BQE.shape == (5, 6, 16)
    lengths = batch.real_support_BS.sum(1).tolist()
    assert all(3 <= length <= 12 for length in lengths)
    real_BS1 = batch.real_support_BS.unsqueeze(2)
    squares_B = (batch.y_support_BSE.square() * real_BS1).sum((1, 2))
    np.testing.assert_allclose(squares_B, [16.0 * n for n in lengths], rtol=0.35)
    assert (batch.y_query_BQE[0] - batch.y_query_BQE[1]).abs().max() > 0.5
