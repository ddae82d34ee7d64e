"""The figures that have a goal (`figures.toml`), looked up in the benchmarks' JSON; and
numbers as people read them in a table. Pure."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Report = Mapping[str, Any]
Step = str | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of `figures.toml`, which says what each field is."""

    name: str
    label: str
    at: Sequence[Step]
    goal: float
    unit: str = "x"
    at_most: bool = False
    scale: float = 1.0
    remark: str = ""
    partly: str = ""


TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
FIGURES = tuple(Figure(**row) for row in TABLE["figure"])


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured, or why it was not. A spread has a low and a high end."""

    figure: Figure
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    missing: str | None = None

    @property
    def met(self) -> bool:
        """Whether the goal is met; False too where nothing was measured."""
        goal = self.figure.goal
        return self.value <= goal if self.figure.at_most else self.value >= goal

    @property
    def share(self) -> float:
        """The value over the goal."""
        return self.value / self.figure.goal


def result(figure: Figure, reports: Mapping[str, Report], absent: Mapping[str, str]) -> Result:
    """Looks the figure up in the reports; `absent` says why a report is not there."""
    name, *path = figure.at
    if name not in reports:
        return Result(figure, missing=absent.get(str(name), f"there is no {name}.json"))
    report = reports[str(name)]
    found = at(report, path)
    if found is None:
        along = (at(report, path[:length]) for length in range(len(path), 0, -1))
        whys = [str(f["refused"]) for f in along if isinstance(f, Mapping) and "refused" in f]
        return Result(figure, missing=(whys or ["the run has no such figure"])[0])
    ends = ("median", "min", "max")
    values = [found[end] for end in ends] if isinstance(found, Mapping) else [found] * 3
    return Result(figure, *(figure.scale * value for value in values))


def at(report: Any, path: Sequence[Step]) -> Any:
    """Returns what lies at the end of a path into a report, or None: a string is a key, a mapping
    chooses the item of a list that has these values."""
    found = report
    for step in path:
        if isinstance(step, str):
            found = found.get(step) if isinstance(found, Mapping) else None
        else:
            items = (i for i in found or () if all(i.get(k) == v for k, v in step.items()))
            found = next(items, None)
    return found


def cell(text: Any) -> str:
    """Returns text that breaks no table."""
    return " ".join(str(text).replace("|", "\\|").split())


def number(value: Any, unit: str = "") -> str:
    """Returns three digits (four from 1,000 on, with thousands set apart) and the unit; "" where
    there is no number."""
    if not isinstance(value, int | float):
        return ""
    if not math.isfinite(value):
        return str(value)
    gap = " " if unit not in ("", "x", "/s") else ""
    if abs(value) >= 999.5:  # with three digits 999.5 is 1e+03
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
