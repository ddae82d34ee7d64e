"""Emoji as drawn by eight vendors, and the universal embedding of what they mean.

Y = candidates (1,914 concepts), U = numbers of an embedding (64), E = target dim

Both are real data; `model/emoji/data/NOTICE.md` says whose.
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
WHITE = 255
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
"""Never trained on: every reported figure is on its drawings, unless it says otherwise."""
FURTHER_VENDORS = ("emojione", "fxemoji")
"""Nothing was trained on these, nor chosen by them. Their sheets have the concepts of the training
split whose names they share."""

Split = Literal["train", "validation", "rest"]
Vectors = Literal["universal", "clean"]
"""Which embedding of concepts: of names in all languages, or in those that are trained on."""

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
        """The part of the data that the concept belongs to. Flags and joined sequences are never
        trained on."""
        if self.group == "flags" or "200d" in self.codepoints:
            return "rest"
        bucket = zlib.crc32(self.codepoints.encode()) % 100
        return "train" if bucket < 56 else "validation" if bucket < 75 else "rest"


@cache
def concepts() -> tuple[Concept, ...]:
    """Return all concepts. An emoji's index is its place here, in every sheet and in every
    embedding."""
    entries = json.loads((_DATA / "emoji.json").read_text(encoding="utf-8"))
    return tuple(
        Concept(e["cp"], e["ch"], e["label"], e["group"], frozenset(e["missing"])) for e in entries
    )


@cache
def sheet(vendor: str) -> NDArray[np.uint8]:
    """Return a vendor's drawings (Y, 32, 32, 3), uint8, white where one is missing; read-only."""
    with Image.open(_DATA / f"{vendor}.webp") as image:
        pixels = np.asarray(image.convert("RGB"))
    rows = pixels.shape[0] // SIDE
    cells = pixels.reshape(rows, SIDE, SHEET_COLUMNS, SIDE, 3).swapaxes(1, 2)
    drawings = cells.reshape(-1, SIDE, SIDE, 3)[: len(concepts())]
    drawings.flags.writeable = False
    return drawings


def drawn_by(vendor: str, split: Split) -> NDArray[np.int64]:
    """Return the indices of the split's concepts that the vendor draws."""
    drawn = [i for i, c in enumerate(concepts()) if c.split == split and vendor not in c.missing]
    if vendor in FURTHER_VENDORS:
        drawn = [i for i in drawn if (sheet(vendor)[i] != WHITE).any()]
    return np.array(drawn)


def picture_png(index: int, vendor: str) -> bytes:
    """Return a drawing as the content of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(sheet(vendor)[index]).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def universal() -> FloatArray:
    """Return the universal embedding of concepts (Y, 64): what their names say across languages;
    read-only."""
    embedding_YU: FloatArray = np.load(_DATA / "universal64.npy").astype(np.float32)
    embedding_YU.flags.writeable = False
    return embedding_YU


@cache
def clean() -> FloatArray:
    """Return the same without the languages that θs are judged on (Y, 64); see
    `model.emoji.language_spaces`. Read-only."""
    embedding_YU: FloatArray = np.load(_DATA / "clean64.npy").astype(np.float32)
    embedding_YU.flags.writeable = False
    return embedding_YU


@cache
def concept_vectors(dim: int, vectors: Vectors = "universal") -> FloatArray:
    """Return the first `dim` columns of an embedding of concepts, scaled to norm √dim (Y, dim);
    read-only."""
    columns_YE = (universal() if vectors == "universal" else clean())[:, :dim]
    norms_Y1 = np.linalg.norm(columns_YE, axis=1, keepdims=True)
    vectors_YE: FloatArray = (columns_YE / norms_Y1 * np.sqrt(dim)).astype(np.float32)
    vectors_YE.flags.writeable = False
    return vectors_YE
