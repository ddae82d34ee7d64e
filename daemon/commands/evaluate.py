"""`adaptd evaluate`: evaluate a θ beside baselines."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console

from daemon.commands.outputs import require_writable
from daemon.errors import Misconfigured

if TYPE_CHECKING:
    from daemon.offline.evaluate import JudgedPart
    from model.emoji.evaluate import EmojiEvaluation
    from model.evaluate.result_table import ResultTable


def evaluate(
    events: Annotated[
        list[Path] | None,
        typer.Argument(help="Events files, .jsonl or .msgpack. [default: the emoji tables]"),
    ] = None,
    meta_init: Annotated[
        Path | None, typer.Option("--meta-init", help="θ to evaluate. [default: the shipped ones]")
    ] = None,
    part: Annotated[
        str,
        typer.Option(
            help="Streams to evaluate on: all, or a part (train, validation, test) of meta-train's "
            "split; test leaves the training streams to the baselines."
        ),
    ] = "all",
    tables: Annotated[
        list[str] | None, typer.Option("--table", help="An emoji table; may be repeated.")
    ] = None,
    extra_steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=64,
            help="Inner steps beyond those that θ was trained for. "
            "[default: 25 in the table stability]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    digits: Annotated[
        bool,
        typer.Option(
            "--digits",
            help="Evaluate a new θ on scikit-learn's digits, in place of the shipped θs on emoji.",
        ),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Make a small run that shows that everything works.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page with curves and examples.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Evaluate θ adapted, gated and unadapted, beside baselines and luck.

    Without events files: the shipped θs on emoji that they were never trained on, and a new θ on
    pairs of embeddings, as tables; tenants are synthetic, languages are not. With events files: one
    θ on recorded streams.
    """
    import torch

    torch.set_num_threads(1)  # matrices this small gain nothing from a second
    require_writable(report)
    show = not as_json
    if digits:
        if events or tables or meta_init or part != "all":
            raise Misconfigured("--digits: goes with --seed, --quick, --report and --json alone")
        found, facts = _digits(seed, quick=quick, show=show)
    elif events:
        if tables:
            raise Misconfigured("--table: emoji tables are judged without events files")
        found, facts = _recorded(
            tuple(events), meta_init, _part(part), seed, extra_steps or 0, quick=quick, show=show
        )
    else:
        if part != "all":
            raise Misconfigured("--part: emoji tables have no parts; name events files")
        evaluation = _emoji(meta_init, tuple(tables or ()), seed, extra_steps, quick=quick)
        found, facts = list(_judged(evaluation, show=show)), evaluation.facts
    _write(found, facts, report, as_json=as_json)


def _part(name: str) -> JudgedPart:
    from daemon.offline.evaluate import JudgedPart

    known: tuple[JudgedPart, ...] = get_args(JudgedPart)
    for part in known:
        if part == name:
            return part
    raise Misconfigured(f"--part {name!r} is none of {', '.join(known)}")


def _recorded(
    events: tuple[Path, ...],
    meta_init: Path | None,
    part: JudgedPart,
    seed: int,
    extra_steps: int,
    *,
    quick: bool,
    show: bool,
) -> tuple[list[ResultTable], dict[str, Any]]:
    from daemon.config import Settings
    from daemon.offline.evaluate import EvaluationRequest, evaluate_recorded
    from daemon.wire.paired_event import EventLimits
    from model.baselines.joint import JointRecipe
    from model.evaluate.comparison import MetaTestPlan

    settings = Settings()
    request = EvaluationRequest(
        events,
        EventLimits(settings.max_event_bytes, settings.max_pairs_per_event),
        meta_init,
        part,
        seed,
        extra_steps,
        MetaTestPlan((5, 16), 1, seed=seed) if quick else MetaTestPlan(seed=seed),
        JointRecipe(steps=30, streams=4) if quick else JointRecipe(),
    )
    console = Console(stderr=True)
    found = evaluate_recorded(request, lambda line: console.print(line, highlight=False))
    _show(found.table, show=show)
    facts = {"seeds": {"episodes": seed, "split": seed, "baselines": seed}}
    return [found.table], {"facts": found.facts} | facts


def _emoji(
    meta_init: Path | None,
    tables: tuple[str, ...],
    seed: int,
    extra_steps: int | None,
    *,
    quick: bool,
) -> EmojiEvaluation:
    from dataclasses import replace

    from model.emoji.evaluate import emoji_evaluation
    from model.emoji.judge_tables import full_options, quick_options
    from model.values.errors import BadData, BadMetaInit

    options = quick_options(seed) if quick else full_options(seed)
    if extra_steps is not None:
        options = replace(options, extra_steps=extra_steps)
    try:
        return emoji_evaluation(meta_init, tables, options)
    except BadMetaInit as e:
        raise Misconfigured(f"--meta-init: {e}") from e
    except BadData as e:
        raise Misconfigured(f"--table {e}") from e


def _digits(seed: int, *, quick: bool, show: bool) -> tuple[list[ResultTable], dict[str, Any]]:
    from model.evaluate.digits import DigitsOptions, judge_digits
    from model.values.errors import BadData

    options = DigitsOptions(streams=4, seed=seed, steps=20) if quick else DigitsOptions(seed=seed)
    try:
        table = judge_digits(options)
    except BadData as e:
        raise Misconfigured(f"--digits: {e}") from e
    _show(table, show=show)
    told = {
        "θ": "as adaptd new-theta makes it; meta-trained in the last row",
        "run": f"seed {seed}; {options.streams} streams",
    }
    return [table], {"facts": told, "seeds": {"streams": seed, "theta": seed}}


def _judged(evaluation: EmojiEvaluation, *, show: bool) -> Iterator[ResultTable]:
    err, begun, steps = Console(stderr=True), time.monotonic(), list(evaluation.steps())
    for number, (title, judge) in enumerate(steps, start=1):
        line = f"table {number} of {len(steps)}: {title}" + _to_go(begun, number - 1, len(steps))
        if not err.is_terminal:
            err.print(line, highlight=False, soft_wrap=True)
        with err.status(line):
            table = judge()
        _show(table, show=show)
        yield table


def _to_go(begun: float, done: int, tables: int) -> str:
    """Return how long it has taken and may take yet, as if all tables took as long; nothing before
    the first is done."""
    from model.meta.progress_lines import duration

    if not done:
        return ""
    passed = time.monotonic() - begun
    to_go = passed / done * (tables - done)
    return f", {duration(passed)} so far, about {duration(to_go)} to go"


def _show(table: ResultTable, *, show: bool) -> None:
    """Print a table and its notes on stdout, or the notes alone on stderr where stdout is for
    JSON."""
    from daemon.commands.results_tables import console, tables_of

    out = console() if show else Console(stderr=True)
    for shown in tables_of(table) if show else ():
        out.print(shown)
    for line in table.notes:
        place = "" if show else f"{table.name}: "
        out.print(place + line, highlight=False, markup=False, soft_wrap=True)


def _write(
    tables: Sequence[ResultTable], facts: Mapping[str, Any], report: Path | None, *, as_json: bool
) -> None:
    """Print the summary or the JSON, and write the report where one is asked for."""
    from daemon.commands.results_json import as_json as to_json
    from daemon.commands.results_json import results_document
    from daemon.commands.results_page import write_tables_page
    from daemon.commands.results_tables import console, summary_table
    from model.evaluate.machine import machine

    if not as_json and (summary := summary_table(tables, "tenants are synthetic")) is not None:
        console().print(summary)
    if report is not None:
        lines = {k: str(v) for k, v in facts["facts"].items()}
        where = machine()
        lines["machine"] = f"{where['cpu']}, {where['cores']} cores"
        write_tables_page(report, "What adaptd's θs are worth", lines, tables)
        Console(stderr=True).print(f"wrote {report}", highlight=False)
    if as_json:
        typer.echo(to_json(results_document(tables, facts)))
