"""A mapping as what the inner loop added to θ: products of thin factors. No torch here.

S = support pairs, D = source dim, E = target dim, H = hidden
G = H + 1: the hidden units and the constant 1 that carries the output bias

Gradient descent changes W1 by sums of outer products with the support's x, and W2 with its y and
with W2's own rows (the derivation is at the head of the hidden-space engine). With W̃ = [W2, b2]:

    W1′ = W1 + aᵀ·x          b1′ = b1 + β
    W̃′  = W̃ + W̃·n + yᵀ·v

`n` is what W̃ is multiplied with *less the identity*: its entries are as small as the steps were,
and in half precision 1 + n would lose what n alone keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.values.arrays import FloatArray
from model.values.half import in_half, in_single


@dataclass(frozen=True, slots=True)
class LowRank:
    """One stream's adapted mapping, relative to the θ it was adapted from; all float32.

    x and y are the support pairs, S of them; factors that are zero (head-only adaptation leaves
    `a` and `beta` so) cost nothing in `factors`.
    """

    x_SD: FloatArray
    a_SH: FloatArray
    beta_H: FloatArray
    y_SE: FloatArray
    n_GG: FloatArray
    v_SG: FloatArray

    def factors(self) -> dict[str, FloatArray]:
        """x, a, beta, y, n, v; without those that change nothing, so θ itself has none."""
        factors: dict[str, FloatArray] = {}
        if _changes_anything(self.a_SH):
            factors |= {"x": self.x_SD, "a": self.a_SH}
        if _changes_anything(self.beta_H):
            factors |= {"beta": self.beta_H}
        if _changes_anything(self.v_SG):
            factors |= {"y": self.y_SE, "v": self.v_SG}
        if _changes_anything(self.n_GG):
            factors |= {"n": self.n_GG}
        return factors

    def in_half(self) -> dict[str, NDArray[Any]]:
        """`factors` as float16, each divided by a power of two of its own."""
        return in_half(self.factors())

    @property
    def nbytes(self) -> int:
        """Of `factors`."""
        return sum(factor.nbytes for factor in self.factors().values())

    def multiplied_out(self, theta: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """w1 (H, D), b1 (H), w2 (E, H), b2 (E) of the adapted mapping, given those of θ."""
        return multiplied_out(self.factors(), theta)


def _changes_anything(factor: FloatArray) -> bool:
    return bool(factor.size) and (factor.item(0) != 0 or bool(factor.any()))


def multiplied_out(
    factors: Mapping[str, NDArray[Any]], theta: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """What `LowRank.factors` or `LowRank.in_half` gave, and θ's mapping, to the adapted mapping.

    A tensor that no factor changes may be θ's own. Raises ValueError when they do not fit together.
    """
    f = in_single(factors)
    w1_HD, b1_H = theta["w1"], theta["b1"]
    w_EG = np.concatenate([theta["w2"], theta["b2"][:, np.newaxis]], axis=1)
    change_EG = np.zeros_like(w_EG)
    try:
        if "a" in f:
            w1_HD = w1_HD + f["a"].T @ f["x"]
        if "beta" in f:
            b1_H = b1_H + f["beta"]
        if "n" in f:
            change_EG = w_EG @ f["n"]
        if "v" in f:
            change_EG = change_EG + f["y"].T @ f["v"]
    except KeyError as e:
        raise ValueError(f"a factor is missing: {e}") from e
    w_EG = w_EG + change_EG
    made = {"w1": w1_HD, "b1": b1_H, "w2": w_EG[:, :-1], "b2": w_EG[:, -1]}
    if any(made[name].shape != theta[name].shape for name in made):
        raise ValueError(f"shapes { ({n: t.shape for n, t in f.items()}) } do not fit θ's")
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in made.items()}
