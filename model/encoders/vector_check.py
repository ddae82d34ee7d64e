"""Checks a vector from an event: its type, its dim and its numbers. No torch here."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.values.errors import BadContent


def check_vector(content: object, dim: int, side: str) -> NDArray[np.float32]:
    """Returns the vector as float32 (dim); `side` names it in errors.

    Raises BadContent: `wrong_modality` when it is not an array of real numbers,
    `wrong_dimension`, or `not_finite` (also when a value does not fit into float32).
    """
    if not isinstance(content, np.ndarray) or content.dtype.kind not in "fiu":
        kind = getattr(content, "dtype", type(content).__name__)
        raise BadContent("wrong_modality", f"{side} vector must be an array of reals, not {kind}")
    if content.shape != (dim,):
        raise BadContent(
            "wrong_dimension", f"{side} vector has shape {content.shape}, not ({dim},)"
        )
    if content.dtype == np.float32:
        vector = np.ascontiguousarray(content)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            vector = np.ascontiguousarray(content, dtype=np.float32)
    # one product in place of three passes: it is finite only if every number is
    if not math.isfinite(np.vdot(vector, vector)):
        _refuse_other_than_finite(vector, content, side)
    return vector


def _refuse_other_than_finite(
    vector: NDArray[np.float32], content: NDArray[Any], side: str
) -> None:
    bad = np.flatnonzero(~np.isfinite(vector))
    if bad.size:
        raise BadContent(
            "not_finite",
            f"{side} vector holds {content[bad[0]]} at index {bad[0]}, not a finite float32",
        )
