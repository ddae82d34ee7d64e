"""Figures out of the benchmarks' JSON, beside what is to be reached. Pure.

A path goes into a report: a string is a key, a mapping chooses the item of a list that has these
values. It ends at a number or at a spread (median, min, max).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Report = Mapping[str, Any]
Reports = Mapping[str, Report]
"""By name: adapt, stream, windows, adapt-cuda; those that there are."""
Step = str | Mapping[str, Any]
Path = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    label: str
    """For the chart."""
    report: str
    path: Path
    target: float
    unit: str = "x"
    at_most: bool = False
    scale: float = 1.0
    """What the JSON's number is multiplied by to have the unit."""
    remark: Callable[[Report], str] = lambda _: ""
    partly: Callable[[Report], bool] = lambda _: False
    """Whether what was run is less than what is asked for."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured, or why it was not."""

    figure: Figure
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    remark: str = ""
    partly: bool = False
    missing: str | None = None

    @property
    def met(self) -> bool:
        """False too where nothing was measured."""
        if self.figure.at_most:
            return self.value <= self.figure.target
        return self.value >= self.figure.target

    @property
    def share(self) -> float:
        """Of the target."""
        return self.value / self.figure.target


def results(figures: Sequence[Figure], reports: Reports, absent: Mapping[str, str]) -> list[Result]:
    """Every figure; `absent` says why a report is not there."""
    return [_result(figure, reports.get(figure.report), absent) for figure in figures]


def _result(figure: Figure, report: Report | None, absent: Mapping[str, str]) -> Result:
    if report is None:
        why = absent.get(figure.report, f"there is no {figure.report}.json")
        return Result(figure, missing=why)
    found = at(report, figure.path)
    if found is None:
        return Result(figure, missing=_why_missing(report, figure.path))
    low_median_high = (
        (found["median"], found["min"], found["max"])
        if isinstance(found, Mapping)
        else (found, found, found)
    )
    median, low, high = (figure.scale * value for value in low_median_high)
    return Result(figure, median, low, high, figure.remark(report), figure.partly(report))


def at(report: Report, path: Sequence[Step]) -> Any:
    """What lies there; None if nothing does."""
    found: Any = report
    for step in path:
        if isinstance(step, str):
            found = found.get(step) if isinstance(found, Mapping) else None
        else:
            found = _item(found or (), step)
    return found


def _item(items: Iterable[Any], wanted: Mapping[str, Any]) -> Any:
    matching = (i for i in items if all(i.get(name) == v for name, v in wanted.items()))
    return next(matching, None)


def _why_missing(report: Report, path: Path) -> str:
    for length in range(len(path), 0, -1):
        found = at(report, path[:length])
        if isinstance(found, Mapping) and "refused" in found:
            return str(found["refused"])
    return "the run has no such figure"
