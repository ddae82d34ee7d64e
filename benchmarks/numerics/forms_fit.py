"""The cost rule's constants out of measured times.

M = measured times, F = the constants (`model.inner.cost_rule.Costs`)

Every shape gives two times, each a sum of counted work times constants. Least squares of relative
errors, so that a shape of 100 µs counts as much as one of 100 ms; no constant below 0.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from benchmarks.numerics.forms_shape import Measured
from model.inner.cost_rule import Costs, Shape, counted

Matrix = NDArray[np.float64]


def fitted(times: Mapping[Shape, Measured]) -> Costs:
    """Constants in ns, to three digits. Raises ValueError without any times."""
    if not times:
        raise ValueError("no times to fit to")
    rows = [row for shape in times for row in counted(shape)]
    times_M = np.array(
        [s * 1e9 for found in times.values() for s in (found.hidden_s, found.full_s)]
    )
    constants_F = _not_negative(np.array(rows, float) / times_M[:, None])
    return Costs(*(float(f"{constant:.3g}") for constant in constants_F))


def _not_negative(counts_MF: Matrix) -> Matrix:
    """min |counts·constants − 1|², constants ≥ 0: those that come out negative are left out, the
    most negative first. (Not always the least of all, but near.)"""
    scale_F = counts_MF.max(0)
    scale_F[scale_F == 0.0] = 1.0
    kept = np.arange(counts_MF.shape[1])
    while True:
        least = np.linalg.lstsq(counts_MF[:, kept] / scale_F[kept], np.ones(len(counts_MF)))[0]
        if (least >= 0.0).all():
            break
        kept = np.delete(kept, least.argmin())
    constants_F = np.zeros(counts_MF.shape[1])
    constants_F[kept] = least / scale_F[kept]
    return constants_F
