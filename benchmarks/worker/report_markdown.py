"""Numbers and tables as Markdown. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table's lines."""
    yield _row(head)
    yield _row(["---"] * len(head))
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(text: str) -> str:
    """Text that breaks no table."""
    return " ".join(text.replace("|", "\\|").split())


def number(value: float) -> str:
    """Three digits, and thousands set apart."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1_000:
        return f"{float(f'{value:.4g}'):,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.1g}"


def spread(found: Mapping[str, Any] | float | None) -> str:
    """A median with the least and the most, or a plain number; empty for none."""
    if found is None:
        return ""
    if not isinstance(found, Mapping):
        return number(found)
    if found["min"] == found["max"]:
        return number(found["median"])
    return f"{number(found['median'])} ({number(found['min'])} to {number(found['max'])})"
