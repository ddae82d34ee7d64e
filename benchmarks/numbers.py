"""Numbers and text as people read them in a table. Pure."""

import math
from collections.abc import Mapping
from typing import Any


def cell(text: Any) -> str:
    """Returns text that breaks no table."""
    return " ".join(str(text).replace("|", "\\|").split())


def number(value: Any, unit: str = "") -> str:
    """Returns three digits, with thousands set apart, and the unit; "" where there is no number."""
    if not isinstance(value, int | float):
        return ""
    if not math.isfinite(value):
        return str(value)
    gap = " " if unit not in ("", "x", "/s") else ""
    if abs(value) >= 1_000:
        return f"{float(f'{value:.4g}'):,.0f}{gap}{unit}"
    text = f"{value:.3g}"
    return f"{text if 'e' not in text else f'{value:.1g}'}{gap}{unit}"


def spread_text(found: Any) -> str:
    """Returns a median with the least and the most, or a plain number; "" for none."""
    if not isinstance(found, Mapping):
        return number(found)
    if found["min"] == found["max"]:
        return number(found["median"])
    return f"{number(found['median'])} ({number(found['min'])} to {number(found['max'])})"
