"""Emoji as drawn by six vendors, what they mean, and synthetic tenants that embed them.

N = concepts (1,914), U = universal dims (64), E = target dim

The pictures and the universal embedding are real (`model/emoji/data/NOTICE.md` says whose). The
tenants' embedding spaces are synthetic: each is a rotation of the same universal embedding, or
(for streams of no family that θ knows) another linear map of it.
"""

import io
import json
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.values.arrays import FloatArray

SIDE = 32
SHEET_COLUMNS = 44
VENDORS = (
    "noto",
    "noto-v1",
    "fluent-3d",
    "fluent-emoji-flat",
    "fluent-emoji-high-contrast",
    "twemoji",
)
HELD_OUT_VENDOR = "twemoji"
"""Never trained on: every reported figure is on its drawings."""
LOW_RANK_DIM = 32
ROTATION_DIM = 16

Split = Literal["train", "validation", "rest"]
Family = Literal["low-rank", "rotation", "linear", "permutation"]
"""How tenants differ: `linear` is a matrix of independent normal numbers, of variance 1/E."""

_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Concept:
    """One emoji, whoever draws it."""

    codepoints: str
    character: str
    label: str
    group: str
    missing: frozenset[str]
    """Vendors who do not draw it."""

    @property
    def split(self) -> Split:
        """Which concepts a model may see: flags and joined sequences are never trained on."""
        if self.group == "flags" or "200d" in self.codepoints:
            return "rest"
        bucket = zlib.crc32(self.codepoints.encode()) % 100
        return "train" if bucket < 56 else "validation" if bucket < 75 else "rest"


@cache
def concepts() -> tuple[Concept, ...]:
    """All concepts; an emoji's index is its place here, in every sheet and in every embedding."""
    entries = json.loads((_DATA / "emoji.json").read_text(encoding="utf-8"))
    return tuple(
        Concept(e["cp"], e["ch"], e["label"], e["group"], frozenset(e["missing"])) for e in entries
    )


@cache
def sheet(vendor: str) -> NDArray[np.uint8]:
    """A vendor's drawings (N, 32, 32, 3), uint8, white where one is missing; read-only."""
    with Image.open(_DATA / f"{vendor}.webp") as image:
        pixels = np.asarray(image.convert("RGB"))
    rows = pixels.shape[0] // SIDE
    cells = pixels.reshape(rows, SIDE, SHEET_COLUMNS, SIDE, 3).swapaxes(1, 2)
    drawings = cells.reshape(-1, SIDE, SIDE, 3)[: len(concepts())]
    drawings.flags.writeable = False
    return drawings


def drawn_by(vendor: str, split: Split) -> NDArray[np.int64]:
    """Indices of the split's concepts that the vendor draws."""
    return np.array(
        [i for i, c in enumerate(concepts()) if c.split == split and vendor not in c.missing]
    )


def picture_png(index: int, vendor: str) -> bytes:
    """A drawing as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(sheet(vendor)[index]).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def universal() -> FloatArray:
    """The universal concept embedding (N, 64): what the names say across languages; read-only."""
    embedding_NU: FloatArray = np.load(_DATA / "universal64.npy").astype(np.float32)
    embedding_NU.flags.writeable = False
    return embedding_NU


@cache
def concept_vectors(dim: int) -> FloatArray:
    """The first `dim` columns of the universal embedding at norm √dim (N, dim); read-only."""
    columns_NE = universal()[:, :dim]
    norms_N1 = np.linalg.norm(columns_NE, axis=1, keepdims=True)
    vectors_NE: FloatArray = (columns_NE / norms_N1 * np.sqrt(dim)).astype(np.float32)
    vectors_NE.flags.writeable = False
    return vectors_NE


@dataclass(frozen=True, slots=True)
class Tenant:
    """A synthetic tenant, all of it given by its seed, its family and its dimensions."""

    seed: int
    family: Family = "low-rank"
    dim: int | None = None
    """Of the tenant's space; by default 32 (low-rank) or 16 (the other families)."""

    def matrix_EE(self) -> FloatArray:
        """R: a concept's vector u (a row) is u·R in the tenant's space."""
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
        """Every concept's vector in the tenant's space (N, E)."""
        matrix_EE = self.matrix_EE()
        targets_NE = concept_vectors(len(matrix_EE)) @ matrix_EE
        return targets_NE.astype(np.float32)


def low_rank_rotation(a_3: NDArray[np.float64], dim: int = LOW_RANK_DIM) -> FloatArray:
    """R = expm(4 · Σ a_q·G_q), (dim, dim): a rotation with three degrees of freedom."""
    exponent_EE = 4.0 * np.tensordot(a_3, low_rank_generators(dim), axes=1)
    return expm_antisymmetric(exponent_EE).astype(np.float32)


def random_rotation(rng: np.random.Generator, dim: int = ROTATION_DIM) -> FloatArray:
    """A uniformly random rotation (dim, dim), determinant +1."""
    q_EE, r_EE = np.linalg.qr(rng.standard_normal((dim, dim)))
    q_EE *= np.sign(np.diag(r_EE))
    q_EE[:, 0] *= np.linalg.det(q_EE)
    return q_EE.astype(np.float32)


def expm_antisymmetric(a_EE: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix exponential of an antisymmetric matrix, by its eigenvectors: −i·a is Hermitian."""
    values_E, vectors_EE = np.linalg.eigh(-1j * a_EE)
    result_EE = (vectors_EE * np.exp(1j * values_E)) @ vectors_EE.conj().T
    return np.ascontiguousarray(result_EE.real)


@cache
def low_rank_generators(dim: int = LOW_RANK_DIM) -> NDArray[np.float64]:
    """Three fixed antisymmetric generators (3, dim, dim) of spectral norm 1, the same for ever."""
    raw = np.random.RandomState(7).randn(3, dim, dim)
    antisymmetric = raw - raw.swapaxes(1, 2)
    norms = np.linalg.norm(antisymmetric, ord=2, axis=(1, 2), keepdims=True)
    generators: NDArray[np.float64] = antisymmetric / norms
    return generators
