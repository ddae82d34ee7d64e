"""Half of a support by the fit to the other half: right values of scikit-learn and of an SVD.

B = streams in batch, S = support pairs (padded), D = source dim, E = target dim
"""

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV

from model.baselines.procrustes import fit_procrustes
from model.inner.hidden.halves import Grams, halves_seen
from model.inner.leave_one_out import PENALTIES
from model.values.arrays import FloatArray

S, D, E = 16, 7, 7
LENGTHS = (16, 12, 9)


def by_sklearn(x_SD: FloatArray, y_SE: FloatArray, of_SD: FloatArray) -> FloatArray:
    size = np.square(x_SD - x_SD.mean(0)).sum(1).mean()
    fitted = RidgeCV(alphas=[size * penalty for penalty in PENALTIES]).fit(x_SD, y_SE)
    return np.asarray(fitted.predict(of_SD))


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_each_half_is_seen_by_the_fit_to_the_other(shift: float) -> None:
    rng = np.random.default_rng(3)
    turn_DE = np.linalg.qr(rng.standard_normal((D, E)))[0]
    x_BSD = rng.standard_normal((len(LENGTHS), S, D)) + shift
    y_BSE = 2.0 * x_BSD @ turn_DE + 0.3 * rng.standard_normal((len(LENGTHS), S, E))
    real_BS = np.arange(S) < np.array(LENGTHS)[:, None]
    x_BSD, y_BSE = (t * real_BS[:, :, None] for t in (x_BSD, y_BSE))
    g_BSS, gamma_BSS = (torch.tensor(t @ t.transpose(0, 2, 1)) for t in (x_BSD, y_BSE))
    grams = Grams(g_BSS, gamma_BSS, torch.tensor(real_BS))
    found = halves_seen(grams, grams)
    for b, n in enumerate(LENGTHS):
        x_SD, y_SE = (t[b, :n].astype(np.float32) for t in (x_BSD, y_BSE))
        for first in (0, 1):
            of, out = slice(first, None, 2), slice(1 - first, None, 2)
            mean_E = y_SE[of].mean(0)
            outputs = {
                "ridge": by_sklearn(x_SD[of], y_SE[of], x_SD[out]),
                "procrustes": fit_procrustes(x_SD[of], y_SE[of])(x_SD[out]),
            }
            for name, o_SE in outputs.items():
                seen = [t[b, :n][out].numpy() for t in getattr(found, name)]
                o, y = o_SE - mean_E, y_SE[out] - mean_E
                expected = ((o**2).sum(1), (o * y).sum(1), (y**2).sum(1))
                for one, other in zip(seen, expected, strict=True):
                    np.testing.assert_allclose(one, other, rtol=5e-3, atol=5e-3 * y_SE.var())
