"""What a device does wrong while it adapts: it runs out of memory, or it is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from model.values.errors import DeviceLost

T = TypeVar("T")
R = TypeVar("R")

_DEVICE_ERROR: type[Exception] | None = getattr(torch, "AcceleratorError", None)
"""Since torch 2.8; before, a RuntimeError that speaks of CUDA."""


def in_parts(work: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> tuple[list[R], int]:
    """Does `work` on all items, or on halves of them as often as the device's memory is short.

    Returns the results, and how often items were halved. Raises torch.OutOfMemoryError when one
    item alone is too much.
    """
    try:
        return work(items), 0
    except torch.OutOfMemoryError:
        if len(items) < 2:
            raise
    # outside of the handler, where the failed attempt's tensors would still be alive
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(items) // 2
    first, first_splits = in_parts(work, items[:middle])
    second, second_splits = in_parts(work, items[middle:])
    return first + second, 1 + first_splits + second_splits


@contextmanager
def lost_device_told() -> Iterator[None]:
    """Turns what torch raises when a device is gone into DeviceLost; other errors stay."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as e:
        if not speaks_of_a_lost_device(e):
            raise
        first_line = str(e).partition("\n")[0]
        raise DeviceLost(f"{type(e).__name__}: {first_line}") from e


def speaks_of_a_lost_device(error: RuntimeError) -> bool:
    """Returns whether the device failed, so that no later call on it can succeed."""
    if _DEVICE_ERROR is not None and isinstance(error, _DEVICE_ERROR):
        return True
    return str(error).startswith(("CUDA error", "CUDA driver error", "cuDNN error"))
