"""A mapping as what the inner loop added to θ: products of thin factors. No torch here.

S = support pairs, D = source dim, E = target dim, H = hidden units, G = H + 1 (the hidden units and
the constant 1 that carries the output bias)

Gradient descent changes W1 by sums of outer products with the support's x, and W2 by such sums with
its y and with W2's own rows (`model.inner.hidden.descent` derives it). With W̃ = [W2, b2]:

    W1′ = W1 + aᵀ·x          b1′ = b1 + β
    W̃′  = W̃ + W̃·n + yᵀ·v

`n` is what W̃ is multiplied with, less the identity: its entries are as small as the steps were,
and in half precision 1 + n would lose what n alone keeps.

A float16 has 11 significant bits between 6e-5 and 65504, and ever fewer below. Factors may lie
anywhere, so each is divided by a power of two of its own before it is rounded: its largest number
then lies just below the upper end, and only numbers 2**28 times smaller lose bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.values.arrays import FloatArray, HalfArray

SCALES = "scales"
"""Name of the tensor (float32) that holds each factor's power of two, in order of their names."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """One stream's adapted mapping, relative to the θ that it was adapted from; all float32.

    x and y are the support's S pairs. Factors that are zero, as `a` and `beta` are when only the
    head adapts, cost nothing in `factors`.
    """

    x_SD: FloatArray
    a_SH: FloatArray
    beta_H: FloatArray
    y_SE: FloatArray
    n_GG: FloatArray
    v_SG: FloatArray

    def factors(self) -> dict[str, FloatArray]:
        """Returns x, a, beta, y, n and v by name, without those that change nothing.

        A mapping that equals θ has no factors.
        """
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

    @property
    def nbytes(self) -> int:
        """Bytes that `factors` take together."""
        return sum(factor.nbytes for factor in self.factors().values())

    def multiplied_out(self, theta: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Returns w1 (H, D), b1 (H), w2 (E, H) and b2 (E) of the adapted mapping, given θ's."""
        return multiplied_out(self.factors(), theta)


def in_half(
    factors: Mapping[str, FloatArray], to_half: Callable[[FloatArray], HalfArray]
) -> dict[str, NDArray[Any]]:
    """Returns finite factors as float16, and under SCALES (float32) what to multiply each with.

    `to_half` rounds to the nearest float16; it is called once. Each number is then off by at most
    2**-11 of itself, or 2**-39 of its factor's largest.
    """
    if not factors:
        return {}
    names = sorted(factors)
    scales = np.empty(len(names), np.float32)
    flat = np.empty(sum(factor.size for factor in factors.values()), np.float32)
    places, start = [], 0
    for i, name in enumerate(names):
        factor = factors[name].reshape(-1)
        places.append(slice(start, start := start + len(factor)))
        own = flat[places[-1]]
        np.abs(factor, out=own)
        scales[i] = _scale(float(own.max(initial=0.0)))
        np.divide(factor, scales[i], out=own)
    half = to_half(flat)
    shaped = {n: half[at].reshape(factors[n].shape) for n, at in zip(names, places, strict=True)}
    return shaped | {SCALES: scales}


def in_single(factors: Mapping[str, NDArray[Any]]) -> dict[str, FloatArray]:
    """Returns the factors as float32, undoing `in_half`; factors in float32 stay as they are."""
    names = sorted(name for name in factors if name != SCALES)
    if SCALES not in factors:
        return {name: factors[name].astype(np.float32, copy=False) for name in names}
    scales = factors[SCALES]
    return {n: factors[n].astype(np.float32) * s for n, s in zip(names, scales, strict=True)}


def _scale(magnitude: float) -> float:
    """The power of two that brings `magnitude` to between 2**14 and 2**15; 1 for 0."""
    if magnitude == 0:
        return 1.0
    return math.ldexp(1.0, max(math.frexp(magnitude)[1] - 15, -149))  # float32 goes down to there


def _changes_anything(factor: FloatArray) -> bool:
    return bool(factor.size) and (factor.item(0) != 0 or bool(factor.any()))


def multiplied_out(
    factors: Mapping[str, NDArray[Any]], theta: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Returns w1, b1, w2, b2 of the adapted mapping from factors (float32, or `in_half`) and θ's.

    A tensor that no factor changes may be θ's own. Raises ValueError when a factor is missing or
    shapes do not fit θ's.
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
