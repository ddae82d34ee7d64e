"""Ridge regression, fitted on the support alone.

S = support pairs, R = rows (inputs), D = source dim, E = target dim
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.inner.leave_one_out import PENALTIES, TIE
from model.values.arrays import FloatArray


@dataclass(frozen=True, slots=True)
class Ridge:
    """The linear mapping x ↦ weight·(x − x̄) + ȳ."""

    weight_ED: FloatArray
    x_mean_D: FloatArray
    y_mean_E: FloatArray

    def __call__(self, x_RD: FloatArray) -> FloatArray:
        """Return outputs (R, E)."""
        o_RE = (x_RD - self.x_mean_D) @ self.weight_ED.T + self.y_mean_E
        return np.asarray(o_RE, np.float32)


def fit_ridge(x_SD: FloatArray, y_SE: FloatArray, penalty: float | None = None) -> Ridge:
    """Minimise Σ |weight·(x − x̄) − (y − ȳ)|² + penalty · |weight|², in closed form.

    The system is solved in the dual, (S, S), in float64; the intercept is not penalised. Without a
    `penalty` the one of PENALTIES is taken that predicts each pair best from the others
    (`model.inner.leave_one_out` says how it is done without a second fit).
    """
    x_mean_D = np.asarray(x_SD.mean(axis=0), np.float32)
    y_mean_E = np.asarray(y_SE.mean(axis=0), np.float32)
    x = x_SD.astype(np.float64)
    y = y_SE.astype(np.float64)
    x, y = x - x.mean(0), y - y.mean(0)
    gram_SS = x @ x.T
    if penalty is None:
        penalty = chosen_penalty(gram_SS, y)
    dual_SE = np.linalg.solve(gram_SS + penalty * np.eye(len(x)), y)
    return Ridge((dual_SE.T @ x).astype(np.float32), x_mean_D, y_mean_E)


def chosen_penalty(gram_SS: NDArray[Any], y_SE: NDArray[Any]) -> float:
    """Return the penalty that predicts each pair best from the others.

    Takes the centred sources' Gram and the centred targets. Where sources are all equal it is 1.
    """
    n = len(gram_SS)
    unit = float(np.trace(gram_SS)) / n
    if not unit > 0.0:
        return 1.0
    best, chosen = np.inf, PENALTIES[0]
    for penalty in PENALTIES:
        inverse_SS = np.linalg.inv(gram_SS / unit + penalty * np.eye(n))
        with np.errstate(divide="ignore", invalid="ignore"):
            left_out_S1 = (np.diag(inverse_SS) - 1.0 / (n * penalty))[:, np.newaxis]
            error = float(((inverse_SS @ y_SE / left_out_S1) ** 2).sum())
        if error < best * (1.0 - TIE):
            best, chosen = error, penalty
    return chosen * unit
