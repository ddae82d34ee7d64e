"""Results of a meta-test or a meta-training as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from model.evaluate.data_rows import (
    DATA_METHODS,
    SHORTFALL,
    DataRow,
    row_texts,
    shortfall_text,
    worst_of,
)
from model.evaluate.intervals import Interval
from model.evaluate.page import HEADINGS
from model.evaluate.result_table import ResultRow, ResultTable, setting_summaries
from model.evaluate.scoring import MEASURES, Figures

WIDTH = 120
"""Characters of a table's line where there is no terminal to ask."""


def console() -> Console:
    """Return a console on standard output, wide enough for tables where it is not a terminal."""
    out = Console()
    return out if out.is_terminal else Console(width=max(WIDTH, out.width))


def figures_table(title: str, figures: Iterable[Figures]) -> Table:
    """Return figures as a table."""
    return _rows_table(title, [ResultRow(None, f) for f in figures])


def tables_of(judged: ResultTable) -> Iterator[Table]:
    """Yield the tables that show one table of a meta-test; none where it has no figures."""
    if judged.rows:
        yield _rows_table(f"{judged.title} ({judged.streams} streams)", judged.rows)
    if judged.against_ridge:
        yield _against_ridge(judged)
    if judged.stability:
        yield _stability(judged)
    if judged.data_rows:
        yield _by_data(judged, judged.data_rows)


def summary_table(tables: Sequence[ResultTable], caption: str) -> Table | None:
    """Return a table of R@1 in every setting: each method, and the best θ. None where no table has
    a setting."""
    summaries = list(setting_summaries(tables))
    if not summaries:
        return None
    pairs = " / ".join(map(str, summaries[0].pairs))
    shown = Table(title=f"R@1 with {pairs} support pairs", caption=caption)
    shown.add_column("streams")
    shown.add_column("method", min_width=24)
    shown.add_column("R@1", justify="right")
    for each in summaries:
        setting = each.setting
        for name, found in each.methods.items():
            shown.add_row(setting, name, _slashed(found))
            setting = ""
        shown.add_row("", "best θ", _slashed(each.best))
        shown.add_section()
    return shown


def _slashed(values: Sequence[float]) -> str:
    return " / ".join(f"{v:.3f}" if math.isfinite(v) else "–" for v in values)


def _rows_table(title: str, rows: Sequence[ResultRow]) -> Table:
    others = [m for m in MEASURES if m != "r_at_1"]
    table = Table(title=title, title_justify="left")
    table.add_column("pairs", justify="right")
    table.add_column("method", min_width=20)
    for measure in ("r_at_1", *others):
        table.add_column(HEADINGS[measure], justify="right")
    before = None
    for row in rows:
        if before not in (None, row.figures.pairs):
            table.add_section()
        before = row.figures.pairs
        means = [f"{row.figures.measures[m].mean:.3f}" for m in others]
        table.add_row(str(row.figures.pairs), row.name, _cell(row.r_at_1), *means)
    return table


def _cell(interval: Interval) -> str:
    if not math.isfinite(interval.low):
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} ±{(interval.high - interval.low) / 2:.3f}"


def _against_ridge(judged: ResultTable) -> Table:
    table = Table(title="What the gate lets through less ridge, paired", title_justify="left")
    for heading in ("pairs", "θ", "R@1", "interval", "loss", "interval", "as good as ridge"):
        table.add_column(heading, justify="right")
    for a in judged.against_ridge:
        spans = [f"{i.low:+.3f} to {i.high:+.3f}" for i in (a.r_at_1, a.loss)]
        figures = [f"{a.r_at_1.mean:+.3f}", spans[0], f"{a.loss.mean:+.3f}", spans[1]]
        table.add_row(str(a.pairs), a.theta, *figures, "yes" if a.holds else "[red]no[/]")
    return table


def _stability(judged: ResultTable) -> Table:
    table = Table(title=judged.title, title_justify="left")
    table.add_column("learner")
    for heading in (
        "steps",
        "extra",
        "episodes",
        "worse on support",
        "published worse than θ",
        "fallbacks",
        "worse, not rolled back",
        "R@1",
        "R@1 extra",
    ):
        table.add_column(heading, justify="right")
    for s in judged.stability:
        counts = (s.steps, s.extra_steps, s.episodes, s.worse_on_support, s.published_worse)
        cells = [*map(str, (*counts, s.fallbacks, s.blindly_worse))]
        table.add_row(s.learner, *cells, _cell(s.r_at_1), _cell(s.r_at_1_extra))
    return table


def _by_data(judged: ResultTable, rows: Sequence[DataRow]) -> Table:
    sizes = max((row.cells for row in rows), key=len)
    pairs = " / ".join(str(cell.pairs) for cell in sizes)
    worst, short = worst_of(rows), sum(row.falls_short for row in rows)
    table = Table(
        title=f"{judged.title} ({judged.streams} streams): R@1 with {pairs} pairs",
        title_justify="left",
        caption=f"{short} of {len(rows)} rows fall short (red); CPU {judged.cpu_s:.0f} s; "
        f"worst: {worst.theta}, {worst.data}, {shortfall_text(worst.worst)}",
        caption_justify="left",
        padding=0,
    )
    table.add_column("data", no_wrap=True)
    for heading in (*DATA_METHODS.values(), SHORTFALL):
        table.add_column(heading, justify="right", no_wrap=True)
    before = None
    for row in rows:
        if row.theta != before:
            table.add_section()
            table.add_row(Text(row.theta, style="bold"))
        before = row.theta
        style = "red" if row.falls_short else ""
        table.add_row(row.data, *row_texts(row, len(sizes)), style=style)
    return table
