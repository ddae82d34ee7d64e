"""Orthogonal Procrustes: the rotation and the scale that take a support's inputs to its targets.

S = support pairs, R = rows (inputs), D = source dim, E = target dim

R = U·Vᵀ, of the singular value decomposition XᵀY = U·Σ·Vᵀ, minimises |X·R − Y|² over matrices with
RᵀR = I (Schönemann 1966); given R the best scale is tr(Rᵀ·XᵀY) / |X·R|².
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.values.arrays import FloatArray

RELATIVE_RANK = 1e-6
"""Singular values of XᵀY below this share of the largest say nothing about the rotation."""


@dataclass(frozen=True, slots=True)
class Procrustes:
    """The mapping x ↦ (x − x̄)·weight + ȳ, the weight a scaled rotation."""

    weight_DE: FloatArray
    x_mean_D: FloatArray
    y_mean_E: FloatArray

    def __call__(self, x_RD: FloatArray) -> FloatArray:
        """Return outputs (R, E)."""
        return np.asarray((x_RD - self.x_mean_D) @ self.weight_DE + self.y_mean_E, np.float32)


def fit_procrustes(
    x_SD: FloatArray, y_SE: FloatArray, *, scale: bool = True, centre: bool = False
) -> Procrustes:
    """Fit the best rotation of the support, with the best scale or, without `scale`, with 1.

    Directions that the support does not reach (fewer pairs than dims) are mapped to 0, not to an
    arbitrary completion of the rotation; on emoji tenants with 5 pairs that finds more. So does a
    rotation about 0: `centre` is for spaces whose origin means nothing.

    Where D < E the rotation is into a subspace. Where D > E, R is what remains of the best D × D
    rotation to targets with zeros appended; it is then not the least squares of X·R − Y, which
    has no closed form. Values that are not finite give a weight of NaN.
    """
    x, y = x_SD.astype(np.float64), y_SE.astype(np.float64)
    x_mean_D, y_mean_E = (x.mean(0), y.mean(0)) if centre else (0 * x[0], 0 * y[0])
    return Procrustes(
        weight_DE=_weight(x - x_mean_D, y - y_mean_E, scale),
        x_mean_D=x_mean_D.astype(np.float32),
        y_mean_E=y_mean_E.astype(np.float32),
    )


def _weight(x_SD: NDArray[np.float64], y_SE: NDArray[np.float64], scale: bool) -> FloatArray:
    product_DE = x_SD.T @ y_SE
    if not np.isfinite(product_DE).all():
        return np.full(product_DE.shape, np.nan, np.float32)
    u, values, vt = np.linalg.svd(product_DE, full_matrices=False)
    reached = (values > RELATIVE_RANK * values[0]) & (values > 0.0)
    rotation_DE = u[:, reached] @ vt[reached]
    size = np.square(x_SD @ rotation_DE).sum() if scale else 0.0
    factor = values[reached].sum() / size if size > 0.0 else 1.0
    return np.asarray(factor * rotation_DE, np.float32)
