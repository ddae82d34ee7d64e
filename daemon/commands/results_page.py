"""Results of a meta-test or a meta-training as an HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from daemon.commands.outputs import writing
from model.evaluate.chart import Curve
from model.evaluate.examples import Example
from model.evaluate.page import page
from model.evaluate.result_table import ResultRow, ResultTable
from model.evaluate.scoring import Figures


def write_training_page(
    path: Path,
    title: str,
    facts: Mapping[str, str],
    figures: Sequence[Figures],
    curves: Sequence[Curve],
    examples: Sequence[Example],
) -> None:
    """Write the page of a meta-training: facts, figures on test streams, training curves and
    examples. Raises Misconfigured when the file cannot be written."""
    streams = max((f.measures["r_at_1"].streams for f in figures), default=0)
    rows = tuple(ResultRow(None, f) for f in figures)
    table = ResultTable("test", "On streams it never saw", streams, rows, examples=tuple(examples))
    write_tables_page(path, title, facts, [table] if figures or examples else [], curves)


def write_tables_page(
    path: Path,
    title: str,
    facts: Mapping[str, str],
    tables: Sequence[ResultTable],
    curves: Sequence[Curve] = (),
) -> None:
    """Write the page of a meta-test: facts, tables, and training curves if there are any. Raises
    Misconfigured when the file cannot be written."""
    text = page(title, facts, tables, curves)
    with writing(path):
        path.write_text(text, encoding="utf-8")


def training_curves(history: Sequence[Mapping[str, float]]) -> list[Curve]:
    """Return curves of the outer loss and the validation loss by outer step."""
    return [
        Curve(name.replace("_", " "), [(row["step"], row[name]) for row in history if name in row])
        for name in ("outer_loss", "validation_loss")
        if any(name in row for row in history)
    ]
