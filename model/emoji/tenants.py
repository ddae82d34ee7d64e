"""Synthetic tenants: each embeds emoji in a space of its own.

Y = candidates (1,914 concepts), E = target dim

A tenant's space is synthetic: a rotation of the same universal embedding, or (for streams of no
family that θ knows) another linear map of it.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.emoji.drawings import concept_vectors
from model.values.arrays import FloatArray

LOW_RANK_DIM = 32
ROTATION_DIM = 16
TENANT_SEED = 1_000_000
"""Test tenants' seeds start here, far from any that training or the demo draws."""

Family = Literal["low-rank", "rotation", "linear", "permutation"]
"""How tenants differ: `linear` is a matrix of independent normal numbers, of variance 1/E."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A synthetic tenant, fully determined by its seed, its family and its dimensions."""

    seed: int
    family: Family = "low-rank"
    dim: int | None = None
    """Dimensions of the tenant's space; by default 32 (low-rank) or 16 (the other families)."""

    def matrix_EE(self) -> FloatArray:
        """Return R: a concept's vector u (a row) is u·R in the tenant's space."""
        rng = np.random.default_rng(self.seed)
        dim = self.dim or (LOW_RANK_DIM if self.family == "low-rank" else ROTATION_DIM)
        match self.family:
            case "low-rank":
                return low_rank_rotation(rng.uniform(-1.0, 1.0, 3), dim)
            case "rotation":
                return random_rotation(rng, dim)
            case "linear":
                normal_EE = rng.standard_normal((dim, dim)).astype(np.float32)
                return normal_EE / np.float32(np.sqrt(dim))
            case "permutation":
                return np.identity(dim, np.float32)[rng.permutation(dim)]

    def targets(self) -> FloatArray:
        """Return every concept's vector in the tenant's space (Y, E)."""
        matrix_EE = self.matrix_EE()
        targets_YE = concept_vectors(len(matrix_EE)) @ matrix_EE
        return targets_YE.astype(np.float32)


def low_rank_rotation(a_3: NDArray[np.float64], dim: int = LOW_RANK_DIM) -> FloatArray:
    """Return R = expm(4 · Σ a_q·G_q), (dim, dim): a rotation with three degrees of freedom."""
    exponent_EE = 4.0 * np.tensordot(a_3, low_rank_generators(dim), axes=1)
    return expm_antisymmetric(exponent_EE).astype(np.float32)


def random_rotation(rng: np.random.Generator, dim: int = ROTATION_DIM) -> FloatArray:
    """Return a uniformly random rotation (dim, dim) of determinant +1."""
    q_EE, r_EE = np.linalg.qr(rng.standard_normal((dim, dim)))
    q_EE *= np.sign(np.diag(r_EE))
    q_EE[:, 0] *= np.linalg.det(q_EE)
    return q_EE.astype(np.float32)


def expm_antisymmetric(a_EE: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix exponential of an antisymmetric matrix, by eigenvectors of the Hermitian
    −i·a."""
    values_E, vectors_EE = np.linalg.eigh(-1j * a_EE)
    result_EE = (vectors_EE * np.exp(1j * values_E)) @ vectors_EE.conj().T
    return np.ascontiguousarray(result_EE.real)


@cache
def low_rank_generators(dim: int = LOW_RANK_DIM) -> NDArray[np.float64]:
    """Return three fixed antisymmetric generators (3, dim, dim) of spectral norm 1, which never
    change."""
    raw = np.random.RandomState(7).randn(3, dim, dim)
    antisymmetric = raw - raw.swapaxes(1, 2)
    norms = np.linalg.norm(antisymmetric, ord=2, axis=(1, 2), keepdims=True)
    generators: NDArray[np.float64] = antisymmetric / norms
    return generators
