"""Results of a meta-test or a meta-training as JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from model.evaluate.data_rows import DataCell, DataRow
from model.evaluate.intervals import Interval
from model.evaluate.machine import machine
from model.evaluate.result_table import ResultRow, ResultTable, setting_summaries
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


def results_document(tables: Sequence[ResultTable], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a meta-test as a JSON-like dict: machine, versions and date, `facts`, every table's
    rows, and a summary of the settings. A table whose rows are kinds of data stands under its own
    name."""
    return {
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "tables": [_table_document(table) for table in tables if table.data_rows is None],
        "summary": [
            {
                "setting": each.setting,
                "pairs": list(each.pairs),
                "r_at_1": {name: list(map(_number, found)) for name, found in each.methods.items()},
                "best": list(map(_number, each.best)),
            }
            for each in setting_summaries(tables)
        ],
    } | {t.name: _data_document(t, t.data_rows) for t in tables if t.data_rows is not None}


def _data_document(table: ResultTable, rows: Sequence[DataRow]) -> dict[str, Any]:
    return {
        "title": table.title,
        "streams": table.streams,
        "cpu_s": round(table.cpu_s, 1),
        "notes": list(table.notes),
        "rows": [
            {"theta": row.theta, "data": row.data, "cells": [_cell_document(c) for c in row.cells]}
            for row in rows
        ],
    }


def _cell_document(cell: DataCell) -> dict[str, Any]:
    return {
        "pairs": cell.pairs,
        "r_at_1": {name: _interval(found) for name, found in cell.r_at_1.items()},
        "gated_less": {rival: _interval(found) for rival, found in cell.against.items()},
    }


def _table_document(table: ResultTable) -> dict[str, Any]:
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


def _row_document(row: ResultRow) -> dict[str, Any]:
    (figures,) = figures_document([row.figures])
    return {"theta": row.theta} | figures


def figures_document(figures: Sequence[Figures]) -> list[dict[str, Any]]:
    """Return figures as JSON-like rows, one per method and number of support pairs, each measure
    with its interval."""
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
    """Return a document as indented JSON."""
    return json.dumps(found, indent=2, ensure_ascii=False)
