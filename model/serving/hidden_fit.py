"""One stream's θ′ as hidden space made it, and how it goes out of the units it was adapted in.

S = support pairs, D = source dim, E = target dim, X = source or target dim, H = hidden units,
G = H + 1

There, with x̂ = (x − z)/r and ŷ = (y − c)/s (`model.inner.units`), W1′ = W1 + aᵀ·x̂, b1′ = b1 + β
and [W2′, b2′] = [W2, b2]·(I + n) + ŷᵀ·v. To users it is W1′/r with the bias b1′ − W1′·z/r, and s
times the second layer, plus c in the bias's column. As weights that is what is computed. As factors
of θ the second layer is again [W2, b2]·(I + n″) + yᵀ·v″ with

    n″ = (s − 1)·I + s·n,   v″ = v − w·1·(1ᵀ·v)/S, plus w/S in the bias's column

where c = w·yᵀ·1/S. But then θ's own second layer is added in full and subtracted again but for a
part s of it: what rounding does to the factors grows by 1/s. So a scale below LEAST_SCALE has no
such form. Neither has a first layer with r ≠ 1, nor one whose sources were moved to the mean of
θ's usual ones, which is no sum of the stream's. With r = 1 and z = w·xᵀ·1/S it is W1 + a″ᵀ·x with

    a″ = a − w·1·(1ᵀ·a)/S,   β″ = β − (W1 + a″ᵀ·x)·z
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


class SideUnit(NamedTuple):
    """What one side of a stream was divided by, and the share of its mean that was subtracted."""

    scale: float
    share: float
    usual_X: FloatArray | None = None
    """The mean to which it was moved, where that is not 0."""

    def centre(self, t_SX: FloatArray) -> FloatArray:
        """Returns what was subtracted from these support pairs (X)."""
        if not self.share:
            return np.zeros_like(t_SX[:0].sum(0))
        mean_X = t_SX.mean(0)
        if self.usual_X is not None:
            mean_X = mean_X - np.float32(self.scale) * self.usual_X
        return np.asarray(np.float32(self.share) * mean_X, np.float32)

    def put(self, t_SX: FloatArray) -> FloatArray:
        """Returns the support pairs in these units (S, X)."""
        return np.asarray((t_SX - self.centre(t_SX)) / np.float32(self.scale), np.float32)


@dataclass(frozen=True, slots=True)
class HiddenFit:
    """One stream's θ′ as it came out of a descent."""

    cut: Cut
    """The pairs that it was adapted to are the support."""
    factors: HostFactors
    source: SideUnit
    target: SideUnit

    def tensors(
        self, x_SD: FloatArray, y_SE: FloatArray, theta: Mapping[str, FloatArray]
    ) -> dict[str, FloatArray]:
        """Returns w1 (H, D), b1 (H), w2 (E, H), b2 (E), given the pairs and θ's mapping."""
        source, target = self.source, self.target
        z_D, c_E = source.centre(x_SD), target.centre(y_SE)
        made = self._without_padding(source.put(x_SD), target.put(y_SE), len(theta["b1"]))
        tensors = made.multiplied_out(theta)
        w1_HD, s = tensors["w1"] / np.float32(source.scale), np.float32(target.scale)
        return {
            "w1": w1_HD,
            "b1": tensors["b1"] - w1_HD @ z_D,
            "w2": tensors["w2"] * s,
            "b2": tensors["b2"] * s + c_E,
        }

    def low_rank(
        self, x_SD: FloatArray, y_SE: FloatArray, theta: Mapping[str, FloatArray]
    ) -> LowRank | None:
        """Returns it as factors of θ, given the pairs and θ's mapping; None where a scale has no
        such form."""
        source, moved = self.source, self.source.share and self.source.usual_X is not None
        if self.target.scale < LEAST_SCALE or source.scale != 1.0 or moved:
            return None
        made = self._without_padding(x_SD, y_SE, len(theta["b1"]))
        a_SH, beta_H, n_GG, v_SG = made.a_SH, made.beta_H, made.n_GG, made.v_SG
        if self.source.share:
            a_SH = a_SH - np.float32(self.source.share) * a_SH.mean(0)
            w1_HD = theta["w1"] + a_SH.T @ x_SD
            beta_H = beta_H - w1_HD @ self.source.centre(x_SD)
        if self.target.scale != 1.0:
            scale = np.float32(self.target.scale)
            n_GG = n_GG * scale
            n_GG[np.diag_indices(len(n_GG))] += scale - np.float32(1.0)
        if self.target.share:
            share = np.float32(self.target.share)
            v_SG = v_SG - share * v_SG.mean(0)
            v_SG[:, -1] += share / np.float32(len(y_SE))
        return LowRank(x_SD, a_SH, beta_H, y_SE, n_GG, v_SG)

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
