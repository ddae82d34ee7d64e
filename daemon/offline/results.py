"""What a training or a meta-test came to: JSON, tables for a terminal, a page for a browser."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from daemon.errors import Misconfigured
from daemon.offline.gallery import Gallery
from model.evaluate import examples as looking
from model.evaluate.chart import Curve
from model.evaluate.episodes import TestEpisode
from model.evaluate.examples import Example, Shown
from model.evaluate.goals import SOURCE
from model.evaluate.intervals import Interval
from model.evaluate.judged import Judged, Row, summary
from model.evaluate.machine import machine
from model.evaluate.methods import Method
from model.evaluate.page import HEADINGS, page
from model.evaluate.scoring import MEASURES, Figures

PACKAGES = ("adaptd", "torch", "numpy")
STABLE = (
    "learner",
    "steps",
    "extra_steps",
    "episodes",
    "worse_on_support",
    "published_worse",
    "fallbacks",
    "blindly_worse",
)
WIDTH = 120
"""Of tables where there is no terminal to ask."""


def document(tables: Sequence[Judged], facts: Mapping[str, Any]) -> dict[str, Any]:
    """A meta-test, JSON-like: where and when it ran, `facts`, and every table's rows."""
    return {
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "tables": [_table_document(table) for table in tables],
        "goals": SOURCE,
        "summary": [
            {
                "setting": line.setting,
                "pairs": list(line.pairs),
                "r_at_1": {name: list(map(_number, found)) for name, found in line.methods.items()},
                "best": list(map(_number, line.best)),
                "to_reach": list(line.to_reach),
            }
            for line in summary(tables)
        ],
    }


def console() -> Console:
    """Standard output, wide enough for tables where it is not a terminal."""
    out = Console()
    return out if out.is_terminal else Console(width=max(WIDTH, out.width))


def _table_document(table: Judged) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": table.name,
        "title": table.title,
        "streams": table.streams,
        "cpu_s": round(table.cpu_s, 1),
        "notes": list(table.notes),
        "rows": [_row_document(row) for row in table.rows],
    }
    if table.against_ridge:
        found["gated_less_ridge"] = [
            {
                "theta": a.theta,
                "pairs": a.pairs,
                "r_at_1": _interval(a.r_at_1),
                "loss": _interval(a.loss),
                "holds": a.holds,
            }
            for a in table.against_ridge
        ]
    if table.stability:
        found["stability"] = [
            {name: getattr(s, name) for name in STABLE}
            | {"r_at_1": _interval(s.r_at_1), "r_at_1_extra": _interval(s.r_at_1_extra)}
            for s in table.stability
        ]
    return found


def _row_document(row: Row) -> dict[str, Any]:
    reached = None if row.goal.to_reach is None else row.r_at_1.mean >= row.goal.to_reach
    (figures,) = figures_document([row.figures])
    goal = {"prototype": row.goal.prototype, "to_reach": row.goal.to_reach, "reached": reached}
    return {"theta": row.theta} | figures | {"goal_r_at_1": goal}


def figures_document(figures: Sequence[Figures]) -> list[dict[str, Any]]:
    """JSON-like: a row per method and number of support pairs, each measure with its interval."""
    return [
        {
            "method": f.method,
            "pairs": f.pairs,
            "episodes": f.episodes,
            "streams": f.measures["r_at_1"].streams,
        }
        | {name: _interval(f.measures[name]) for name in MEASURES}
        for f in figures
    ]


def _interval(interval: Interval) -> dict[str, float | None]:
    return {name: _number(getattr(interval, name)) for name in ("mean", "low", "high")}


def _number(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None


def as_json(found: Mapping[str, Any]) -> str:
    """The document, indented, for people and programs."""
    return json.dumps(found, indent=2, ensure_ascii=False)


def as_table(title: str, figures: Iterable[Figures]) -> Table:
    """For a terminal."""
    return _rows_table(title, [Row(None, f) for f in figures])


def tables_of(judged: Judged) -> Iterator[Table]:
    """What a table of a meta-test looks like on a terminal; nothing where it has no figures."""
    if judged.rows:
        yield _rows_table(f"{judged.title} ({judged.streams} streams)", judged.rows)
    if judged.against_ridge:
        yield _against_ridge(judged)
    if judged.stability:
        yield _stability(judged)


def summary_table(tables: Sequence[Judged]) -> Table | None:
    """The settings that there are targets for, each beside its baselines; None without any."""
    lines = list(summary(tables))
    if not lines:
        return None
    shown = Table(title=f"R@1 among 128 with {_slashed(lines[0].pairs, '{}')} support pairs")
    shown.add_column("tenants")
    shown.add_column("method", min_width=24)
    for heading in ("R@1", "prototype", "to reach", ""):
        shown.add_column(heading, justify="right")
    for line in lines:
        setting: str = line.setting
        for name, found in line.methods.items():
            prototype = line.prototypes.get(name, ())
            shown.add_row(setting, name, _slashed(found), _slashed(prototype), "", "")
            setting = ""
        missed = [b - t for b, t in zip(line.best, line.to_reach, strict=True) if t is not None]
        verdict = "reached" if min(missed) >= 0.0 else f"missed by {-min(missed):.3f}"
        shown.add_row("", "best θ", _slashed(line.best), "", _slashed(line.to_reach), verdict)
        shown.add_section()
    shown.caption = f"{SOURCE}; tenants are synthetic"
    return shown


def _slashed(values: Sequence[float | None], form: str = "{:.3f}") -> str:
    return " / ".join("–" if v is None or v != v else form.format(v) for v in values)


def _rows_table(title: str, rows: Sequence[Row]) -> Table:
    goals = any(r.goal.prototype is not None or r.goal.to_reach is not None for r in rows)
    table = Table(title=title, title_justify="left")
    table.add_column("pairs", justify="right")
    table.add_column("method", min_width=20)
    headings = ["R@1", *(("prototype", "to reach") if goals else ())]
    for heading in (*headings, *(HEADINGS[m] for m in MEASURES if m != "r_at_1")):
        table.add_column(heading, justify="right")
    before = None
    for row in rows:
        if before not in (None, row.figures.pairs):
            table.add_section()
        before = row.figures.pairs
        cells = [_cell(row.r_at_1), *(_goal_cells(row) if goals else ())]
        cells += [f"{row.figures.measures[m].mean:.3f}" for m in MEASURES if m != "r_at_1"]
        table.add_row(str(row.figures.pairs), row.name, *cells)
    return table


def _goal_cells(row: Row) -> tuple[str, str]:
    goal = row.goal
    prototype = "" if goal.prototype is None else f"{goal.prototype:.3f}"
    if goal.to_reach is None:
        return prototype, ""
    missed = goal.to_reach - row.r_at_1.mean
    verdict = "[green]reached[/]" if missed <= 0.0 else f"[red]−{missed:.3f}[/]"
    return prototype, f"{goal.to_reach:.3f} {verdict}"


def _cell(interval: Interval) -> str:
    if not math.isfinite(interval.low):
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} ±{(interval.high - interval.low) / 2:.3f}"


def _against_ridge(judged: Judged) -> Table:
    table = Table(title="What the gate lets through less ridge, paired", title_justify="left")
    for heading in ("pairs", "θ", "R@1", "interval", "loss", "interval", "as good as ridge"):
        table.add_column(heading, justify="right")
    for a in judged.against_ridge:
        spans = [f"{i.low:+.3f} to {i.high:+.3f}" for i in (a.r_at_1, a.loss)]
        figures = [f"{a.r_at_1.mean:+.3f}", spans[0], f"{a.loss.mean:+.3f}", spans[1]]
        table.add_row(str(a.pairs), a.theta, *figures, "yes" if a.holds else "[red]no[/]")
    return table


def _stability(judged: Judged) -> Table:
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


def training_curves(history: Sequence[Mapping[str, float]]) -> list[Curve]:
    """Outer and validation loss by outer step."""
    return [
        Curve(name.replace("_", " "), [(row["step"], row[name]) for row in history if name in row])
        for name in ("outer_loss", "validation_loss")
        if any(name in row for row in history)
    ]


def examples_of(
    episodes: Sequence[TestEpisode], compared: Mapping[str, Method], gallery: Gallery
) -> list[Example]:
    """A few queries of different streams with what each method finds nearest."""

    def look(episode: TestEpisode, q: int) -> tuple[Shown, Shown] | None:
        return gallery.find(episode.x_QD[q], episode.y_QE[q])

    return looking.examples_of(episodes, compared, look)


def write_page(
    path: Path,
    title: str,
    facts: Mapping[str, str],
    figures: Sequence[Figures],
    curves: Sequence[Curve],
    examples: Sequence[Example],
) -> None:
    """A training's page. Raises Misconfigured when it cannot be written."""
    streams = max((f.measures["r_at_1"].streams for f in figures), default=0)
    rows = tuple(Row(None, f) for f in figures)
    judged = Judged("test", "On streams it never saw", streams, rows, examples=tuple(examples))
    write_tables_page(path, title, facts, [judged] if figures or examples else [], curves)


def write_tables_page(
    path: Path,
    title: str,
    facts: Mapping[str, str],
    tables: Sequence[Judged],
    curves: Sequence[Curve] = (),
) -> None:
    """A meta-test's page. Raises Misconfigured when it cannot be written."""
    try:
        path.write_text(page(title, facts, tables, curves), encoding="utf-8")
    except OSError as e:
        raise Misconfigured(f"{path}: cannot be written: {e.strerror or e}") from e
