"""`adaptd evaluate`: what a θ is worth, beside baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console

from daemon.errors import Misconfigured

if TYPE_CHECKING:
    from daemon.offline.evaluate import Judge
    from model.emoji.evaluate import EmojiTest
    from model.emoji.tables import EmojiTable
    from model.evaluate.judged import Judged
    from model.theta.meta_init import MetaInit


def evaluate(
    events: Annotated[
        list[Path] | None,
        typer.Argument(help="Events files, .jsonl or .msgpack. [default: the emoji tables]"),
    ] = None,
    meta_init: Annotated[
        Path | None, typer.Option("--meta-init", help="θ to judge. [default: the shipped]")
    ] = None,
    part: Annotated[
        str,
        typer.Option(
            help="Streams to judge on: all, or a part (train, validation, test) of meta-train's "
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
            help="Inner steps beyond those trained for. [default: 25 in the table stability]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small run that shows that everything works.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="An HTML page with curves and examples.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.")] = False,
) -> None:
    """Judge the meta-learned mapping beside θ unadapted, baselines and luck.

    Without events: the shipped θs on emoji that they were never trained on, as tables; tenants
    are synthetic, languages are not. With events: a θ on recorded streams.
    """
    import torch

    torch.set_num_threads(1)  # matrices this small gain nothing from a second
    if events:
        if tables:
            raise Misconfigured("--table: emoji tables are judged without events files")
        found, facts = _recorded(
            tuple(events),
            meta_init,
            _part(part),
            seed,
            extra_steps or 0,
            quick=quick,
            show=not as_json,
        )
    else:
        if part != "all":
            raise Misconfigured("--part: emoji tables have no parts; name events files")
        found, facts = _emoji(
            meta_init, tuple(tables or ()), seed, extra_steps, quick=quick, show=not as_json
        )
    _give(found, facts, report, as_json=as_json)


def _part(name: str) -> Judge:
    from daemon.offline.evaluate import Judge

    known: tuple[Judge, ...] = get_args(Judge)
    for part in known:
        if part == name:
            return part
    raise Misconfigured(f"--part {name!r} is none of {', '.join(known)}")


def _recorded(
    events: tuple[Path, ...],
    meta_init: Path | None,
    part: Judge,
    seed: int,
    extra_steps: int,
    *,
    quick: bool,
    show: bool,
) -> tuple[list[Judged], dict[str, Any]]:
    from daemon.config import Settings
    from daemon.offline.evaluate import Wanted
    from daemon.offline.evaluate import evaluate as judge
    from daemon.wire.paired_event import EventLimits
    from model.baselines.joint import JointRecipe
    from model.evaluate.recorded import TestPlan

    settings = Settings()
    wanted = Wanted(
        events,
        EventLimits(settings.max_event_bytes, settings.max_pairs_per_event),
        meta_init,
        part,
        seed,
        extra_steps,
        TestPlan((5, 16), 1, seed=seed) if quick else TestPlan(seed=seed),
        JointRecipe(steps=30, streams=4) if quick else JointRecipe(),
    )
    console = Console(stderr=True)
    found = judge(wanted, lambda line: console.print(line, highlight=False))
    _show(found.judged, show=show)
    facts = {"seeds": {"episodes": seed, "split": seed, "baselines": seed}}
    return [found.judged], {"facts": found.facts} | facts


def _emoji(
    meta_init: Path | None,
    names: tuple[str, ...],
    seed: int,
    extra_steps: int | None,
    *,
    quick: bool,
    show: bool,
) -> tuple[list[Judged], dict[str, Any]]:
    from dataclasses import replace

    from model.emoji import evaluate as emoji
    from model.emoji.streams import TENANT_SEED
    from model.emoji.tables import STABILITY, TABLES

    thetas, missing = emoji.shipped_thetas() if meta_init is None else ({}, {})
    every = list(TABLES)
    if meta_init is not None:
        thetas, every = _named(meta_init)
    chosen = _chosen(names, every)
    options = emoji.quick(seed) if quick else emoji.full(seed)
    if extra_steps is not None:
        options = replace(options, extra_steps=extra_steps)
    test = emoji.EmojiTest(thetas, missing, options)
    found = list(_judged(test, chosen, with_stability=not names or STABILITY in names, show=show))
    facts = {
        "seeds": {
            "episodes": seed,
            "baselines": seed,
            "first_tenant": TENANT_SEED,
            "episodes_per_stream": options.plan.episodes,
        },
        "thetas": {name: f"{t.version} {t.content_hash}" for name, t in thetas.items()},
        "facts": {
            "drawings": "twemoji, never trained on, unless a table says otherwise",
            "tenants": "synthetic; support and query share no concept; 128 candidates",
            "θ": ", ".join(t.version for t in thetas.values()) or "none",
            "run": f"seed {seed}; {options.tenants} tenants, {options.plan.episodes} episodes each"
            + ("; quick: figures not worth comparing" if quick else ""),
        },
    }
    return found, facts


def _named(path: Path) -> tuple[dict[str, MetaInit], list[EmojiTable]]:
    from model.emoji.evaluate import tables_for
    from model.theta.meta_init_file import load_meta_init
    from model.values.errors import BadMetaInit

    try:
        theta = load_meta_init(path)
    except BadMetaInit as e:
        raise Misconfigured(f"--meta-init: {e}") from e
    tables = list(tables_for(theta, theta.version))
    if not tables:
        raise Misconfigured(
            f"--meta-init: {theta.version} maps {theta.source_modality} to "
            f"{theta.target_modality} ({theta.target_dim}); no emoji table has such streams: "
            "name events files"
        )
    return {theta.version: theta}, tables


def _chosen(names: Sequence[str], every: Sequence[EmojiTable]) -> list[EmojiTable]:
    from model.emoji.tables import STABILITY

    known = {table.name: table for table in every}
    if unknown := [name for name in names if name not in known and name != STABILITY]:
        all_names = ", ".join([*known, STABILITY])
        raise Misconfigured(f"--table {unknown[0]!r} is none of {all_names}")
    return [table for table in every if not names or table.name in names]


def _judged(
    test: EmojiTest, chosen: Sequence[EmojiTable], *, with_stability: bool, show: bool
) -> Iterator[Judged]:
    err = Console(stderr=True)
    for table in chosen:
        with err.status(table.title):
            judged = test.judge(table)
        _show(judged, show=show)
        yield judged
    if with_stability:
        with err.status("extra inner steps"):
            judged = test.stability()
        _show(judged, show=show)
        yield judged


def _show(judged: Judged, *, show: bool) -> None:
    """On stdout, unless that is for JSON."""
    from daemon.offline import results

    out = results.console() if show else Console(stderr=True)
    for table in results.tables_of(judged) if show else ():
        out.print(table)
    for line in judged.notes:
        place = "" if show else f"{judged.name}: "
        out.print(place + line, highlight=False, markup=False, soft_wrap=True)


def _give(
    tables: Sequence[Judged], facts: Mapping[str, Any], report: Path | None, *, as_json: bool
) -> None:
    from daemon.offline import results
    from model.evaluate.machine import machine

    if not as_json and (overview := results.summary_table(tables)) is not None:
        results.console().print(overview)
    if report is not None:
        lines = {k: str(v) for k, v in facts["facts"].items()}
        where = machine()
        lines["machine"] = f"{where['cpu']}, {where['cores']} cores"
        results.write_tables_page(report, "What adaptd's θs are worth", lines, tables)
        Console(stderr=True).print(f"wrote {report}", highlight=False)
    if as_json:
        typer.echo(results.as_json(results.document(tables, facts)))
