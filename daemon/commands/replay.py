"""`adaptd replay`: make recorded events into mappings again, to prove or to compare."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon import config
from daemon.commands.options import ConfigFile
from daemon.config import PREFIX, Settings
from daemon.errors import Misconfigured

if TYPE_CHECKING:
    from rich.table import Table

    from daemon.replay.backtest import BacktestRow
    from daemon.replay.log import OffsetSpan, RecordedLog
    from daemon.replay.thetas import Remakers
    from daemon.replay.verify import Replayed
    from model.evaluate.intervals import Interval

OK, FAILED = 0, 1
SHOWN = 10


def replay_range(
    start: Annotated[int, typer.Option("--from", min=0, help="First offset.")] = 0,
    end: Annotated[int | None, typer.Option("--to", min=0, help="Offset to stop before.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Of one partition only.")] = None,
    meta_init: Annotated[
        Path | None, typer.Option(help="Compare with this θ instead of proving.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Compare with this setting: support_size=32. Repeatable."),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="New pairs between two mappings.")] = 8,
    report: Annotated[Path | None, typer.Option(help="An HTML page with the comparison.")] = None,
    config_file: ConfigFile = None,
) -> None:
    """Re-run a range of the events topic offline, by the worker's own steps. Nothing is written to
    Kafka or Redis, and no consumer group is used.

    By itself it makes each published mapping again whose newest event lies in the range, and
    compares content hashes; it exits with 1 if one differs. With --meta-init or --set it compares
    what would have been published instead with what the settings give: R@1, mAP and NDCG of every
    new pair by the mapping of the pairs before it, with intervals over streams.
    """
    from daemon.commands.outputs import require_writable
    from daemon.commands.send import served_theta
    from daemon.replay.log import OffsetSpan, read_log
    from daemon.replay.thetas import Remakers

    require_writable(report)
    settings = config.load_settings(config_file)
    span = OffsetSpan(start, end, partition)
    remakers = Remakers(settings, served_theta(settings, ask_kafka=True))
    log = read_log(settings, remakers.first.engine, span)
    left_out = f"; {log.refused.total()} are dead letters" if log.refused else ""
    typer.echo(f"{log.events} events of {len(log.pairs)} streams{left_out}", err=True)
    if meta_init is None and not changes:
        raise typer.Exit(_prove(settings, span, log, remakers))
    other = changed(config_file, changes or [])
    _compare(settings, span, log, remakers, other, meta_init, every, report)


def changed(config_file: Path | None, changes: Sequence[str]) -> Settings:
    """Returns the settings with `name=value` in place of some. Raises Misconfigured."""
    named = [change.partition("=") for change in changes]
    for name, equals, _ in named:
        if not equals:
            raise Misconfigured(f"--set {name!r}: expected name=value")
    given = {PREFIX + name.upper().removeprefix(PREFIX): value for name, _, value in named}
    return config.load_settings(config_file, os.environ | given)


def _prove(settings: Settings, span: OffsetSpan, log: RecordedLog, remakers: Remakers) -> int:
    from daemon.replay.log import read_published
    from daemon.replay.verify import replay

    counts: Counter[str] = Counter()
    for found in replay(read_published(settings), log, span, remakers):
        counts[found.result] += 1
        if found.result != "same" and counts[found.result] <= SHOWN:
            typer.echo(_line(found))
    words = {"same": "the same", "different": "different"}
    words |= {"incomplete": "incomplete", "other_theta": "of a θ that is not known here"}
    told = ", ".join(f"{counts[result]} {text}" for result, text in words.items() if counts[result])
    typer.echo(f"{counts.total()} published mappings made again: {told or 'none in this range'}")
    return FAILED if counts["different"] else OK


def _line(found: Replayed) -> str:
    facts = found.facts
    return f"{found.result:11}  {facts.stream}, version {facts.version}: {found.detail}"


def _compare(
    settings: Settings,
    span: OffsetSpan,
    log: RecordedLog,
    remakers: Remakers,
    other: Settings,
    meta_init: Path | None,
    every: int,
    report: Path | None,
) -> None:
    from daemon.replay.backtest import backtest
    from daemon.replay.log import read_log
    from daemon.replay.remake import Remaker
    from daemon.worker.wiring import engine_of
    from model.theta.meta_init_file import load_meta_init
    from model.values.errors import BadMetaInit

    try:
        theta = load_meta_init(meta_init) if meta_init else remakers.first.engine.meta_init
    except BadMetaInit as e:
        raise Misconfigured(f"--meta-init: {e}") from e
    challenger = Remaker(other, engine_of(other, theta))
    same = challenger.engine.theta.encoder_version == remakers.first.engine.theta.encoder_version
    its_log = log if same else read_log(other, challenger.engine, span)
    rows = backtest({"now": (remakers.first, log), "instead": (challenger, its_log)}, every)
    _show(rows)
    if report is not None:
        facts = {
            "now": remakers.first.engine.theta.version,
            "instead": theta.version,
            "settings instead": ", ".join(_differences(settings, other)) or "the same",
            "events": str(log.events),
        }
        _write(report, facts, rows)
        typer.echo(f"report: {report}", err=True)


def _differences(settings: Settings, other: Settings) -> list[str]:
    shown, others = config.shown_settings(settings), config.shown_settings(other)
    return [f"{name}={value}" for name, value in others.items() if shown[name] != value]


def _show(rows: Sequence[BacktestRow]) -> None:
    from daemon.commands.results_tables import console
    from daemon.replay.backtest import COMPARED
    from model.evaluate.page import HEADINGS

    console().print(_table(rows, COMPARED, HEADINGS))


def _table(
    rows: Sequence[BacktestRow], measures: Sequence[str], headings: Mapping[str, str]
) -> Table:
    from rich.table import Table

    streams = rows[0].figures.measures["r_at_1"].streams
    table = Table(
        title=f"New pairs of {streams} streams, by the mapping before", title_justify="left"
    )
    table.add_column("")
    for measure in measures:
        table.add_column(headings[measure], justify="right")
        table.add_column("instead - now", justify="right")
    for row in rows:
        cells = []
        for measure in measures:
            cells.append(interval_text(row.figures.measures[measure]))
            apart = row.differences
            cells.append("" if apart is None else interval_text(apart[measure], sign="+"))
        table.add_row(row.figures.method, *cells)
    return table


def interval_text(interval: Interval, sign: str = "") -> str:
    """Returns a mean and half of its interval's width."""
    half = (interval.high - interval.low) / 2
    mean = f"{interval.mean:{sign}.3f}"
    return mean if half != half else f"{mean} ±{half:.3f}"


def _write(report: Path, facts: Mapping[str, str], rows: Sequence[BacktestRow]) -> None:
    from daemon.commands.results_page import write_tables_page
    from daemon.replay.backtest import COMPARED
    from model.evaluate.page import HEADINGS
    from model.evaluate.result_table import ResultRow, ResultTable

    notes = [
        f"{row.figures.method} less now: "
        + ", ".join(f"{HEADINGS[m]} {interval_text(row.differences[m], '+')}" for m in COMPARED)
        for row in rows
        if row.differences is not None
    ]
    streams = rows[0].figures.measures["r_at_1"].streams
    table = ResultTable(
        "backtest",
        "New pairs, by the mapping of the pairs before",
        streams,
        tuple(ResultRow(None, row.figures) for row in rows),
        notes=tuple(notes),
    )
    write_tables_page(report, "Recorded traffic, replayed", facts, [table])
