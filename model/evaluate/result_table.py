"""The result of a meta-test: tables of rows, and how they sum up. Data alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from model.evaluate.data_rows import DataRow
from model.evaluate.examples import Example
from model.evaluate.intervals import Interval
from model.evaluate.scoring import Figures
from model.evaluate.stability import Stability


@dataclass(frozen=True, slots=True)
class ResultRow:
    """The figures of one method at one number of support pairs."""

    theta: str | None
    """The θ that the method uses; None for baselines."""
    figures: Figures

    @property
    def name(self) -> str:
        """The method's name, with its θ's."""
        return method_name(self.theta, self.figures.method)

    @property
    def r_at_1(self) -> Interval:
        """The main measure."""
        return self.figures.measures["r_at_1"]


@dataclass(frozen=True, slots=True)
class AgainstRidge:
    """Measures of what the gate publishes minus those of ridge, paired by episode."""

    theta: str
    pairs: int
    r_at_1: Interval
    loss: Interval

    @property
    def holds(self) -> bool:
        """Whether the gate is as good as ridge: its R@1 is not found to be below ridge's."""
        return not self.r_at_1.high < 0.0


@dataclass(frozen=True, slots=True)
class ResultTable:
    """One table of a meta-test."""

    name: str
    title: str
    streams: int = 0
    rows: tuple[ResultRow, ...] = ()
    against_ridge: tuple[AgainstRidge, ...] = ()
    notes: tuple[str, ...] = ()
    """What is missing and how to get it, and which variants of baselines were taken."""
    examples: tuple[Example, ...] = ()
    stability: tuple[Stability, ...] = ()
    data_rows: tuple[DataRow, ...] | None = None
    """Rows of a table whose rows are kinds of data; None in other tables."""
    setting: str | None = None
    """The table's name in the summary; None keeps the table out of it."""
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SettingSummary:
    """R@1 in one setting, at each number of support pairs."""

    setting: str
    pairs: tuple[int, ...]
    methods: dict[str, tuple[float, ...]]
    """R@1 by method: baselines, and every θ as the gate publishes it."""
    best: tuple[float, ...]
    """R@1 of the best θ."""


def setting_summaries(tables: Sequence[ResultTable]) -> Iterator[SettingSummary]:
    """Yield a summary of each table that has a setting and a published θ."""
    for table in tables:
        published = [row for row in table.rows if row.figures.method == "gated"]
        if table.setting is None or not published:
            continue
        pairs = tuple(dict.fromkeys(row.figures.pairs for row in table.rows))
        methods: dict[str, tuple[float, ...]] = {}
        for row in table.rows:
            if row.figures.method not in ("adapted", "theta"):
                methods[row.name] = (*methods.get(row.name, ()), row.r_at_1.mean)
        best = (max(r.r_at_1.mean for r in published if r.figures.pairs == n) for n in pairs)
        yield SettingSummary(table.setting, pairs, methods, tuple(best))


def method_name(theta: str | None, method: str) -> str:
    """Return a method's name with its θ's before it, where it has one."""
    if theta is None:
        return method
    return f"{theta} {'unadapted' if method == 'theta' else method}"
