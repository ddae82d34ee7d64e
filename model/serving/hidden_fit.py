"""One stream's θ′ as hidden space made it, and how it goes out of the units it was adapted in.

S = support pairs, D = source dim, E = target dim, H = hidden units, G = H + 1

There, with ŷ = (y − c)/s (`model.inner.units`), [W2′, b2′] = [W2, b2]·(I + n) + ŷᵀ·v, and to users
it is s times that, plus c in the bias's column. As weights that is what is computed. As factors of
θ it is again [W2, b2]·(I + n″) + yᵀ·v″ with

    n″ = (s − 1)·I + s·n,   v″ = v − 1·(1ᵀ·v)/S, plus 1/S in the bias's column

where c = yᵀ·1/S, and v″ = v where c = 0. But then θ's own second layer is added in full and
subtracted again but for a part s of it: what rounding does to the factors grows by 1/s. So a scale
below LEAST_SCALE has no such form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from model.values.arrays import FloatArray
from model.values.episode import Cut
from model.values.low_rank import LowRank

LEAST_SCALE = 2.0**-4
"""In float16 (11 bits) factors of this scale keep 7 bits of θ's part."""


class HostFactors(NamedTuple):
    """One stream's `model.inner.hidden.result.Factors`, in host memory."""

    a_SH: FloatArray
    beta_H: FloatArray
    n_GG: FloatArray
    v_SG: FloatArray


@dataclass(frozen=True, slots=True)
class HiddenFit:
    """One stream's θ′ as it came out of a descent."""

    cut: Cut
    """The pairs that it was adapted to are the support."""
    factors: HostFactors
    scale: float
    """s."""
    centred: bool
    """Whether c is the mean of the targets, and not 0."""

    def tensors(
        self, x_SD: FloatArray, y_SE: FloatArray, theta: Mapping[str, FloatArray]
    ) -> dict[str, FloatArray]:
        """Returns w1 (H, D), b1 (H), w2 (E, H), b2 (E), given the pairs and θ's mapping."""
        scale = np.float32(self.scale)
        centre_E = y_SE.mean(0) if self.centred else np.zeros_like(y_SE[:0].sum(0))
        made = self._without_padding(x_SD, (y_SE - centre_E) / scale, len(theta["b1"]))
        tensors = made.multiplied_out(theta)
        return tensors | {"w2": tensors["w2"] * scale, "b2": tensors["b2"] * scale + centre_E}

    def low_rank(self, x_SD: FloatArray, y_SE: FloatArray, hidden_dim: int) -> LowRank | None:
        """Returns it as factors of θ, given the pairs; None where the scale is too small."""
        if self.scale < LEAST_SCALE:
            return None
        made = self._without_padding(x_SD, y_SE, hidden_dim)
        n_GG, v_SG = made.n_GG, made.v_SG
        if self.scale != 1.0:
            scale = np.float32(self.scale)
            n_GG = n_GG * scale
            n_GG[np.diag_indices(len(n_GG))] += scale - np.float32(1.0)
        if self.centred:
            v_SG = v_SG - v_SG.mean(0)
            v_SG[:, -1] += np.float32(1.0) / np.float32(len(y_SE))
        return LowRank(made.x_SD, made.a_SH, made.beta_H, made.y_SE, n_GG, v_SG)

    def _without_padding(self, x_SD: FloatArray, y_SE: FloatArray, hidden_dim: int) -> LowRank:
        """As it came out, without padded pairs and idle units."""
        (a_SH, beta_H, n_GG, v_SG), n = self.factors, len(x_SD)
        if hidden_dim < len(beta_H):
            kept = [*range(hidden_dim), len(beta_H)]  # with the bias
            n_GG, v_SG = n_GG[np.ix_(kept, kept)], v_SG[:, kept]
        return LowRank(
            x_SD=x_SD,
            a_SH=np.ascontiguousarray(a_SH[:n, :hidden_dim]),
            beta_H=beta_H[:hidden_dim],
            y_SE=y_SE,
            n_GG=n_GG,
            v_SG=v_SG[:n],
        )
