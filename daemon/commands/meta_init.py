"""`adaptd meta-init`: publish θs, list them, choose the active one, and go back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from daemon import config
from daemon.canary.operate import begin_watch
from daemon.commands.canary import canary_command, print_standing
from daemon.commands.options import AsJson, ConfigFile
from daemon.commands.thetas_topic import (
    now_ms,
    opened_topic,
    who,
)
from daemon.config import Settings
from daemon.errors import Misconfigured, RefusedMetaInit
from daemon.thetas import operate
from daemon.thetas.active import read_theta
from daemon.thetas.port import MetaInits
from daemon.utc import time_told
from daemon.wire.catalogue import Active, Catalogue, PublishedTheta
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import load_meta_init, meta_init_to_bytes
from model.values.errors import BadMetaInit
from model.values.outside import BadBytes, parse_json

app = typer.Typer(
    help="The θs that workers serve: publish, list, activate, go back. Workers change to another θ "
    "between turns, without a restart.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Version = Annotated[str, typer.Argument(help="A published version; `list` shows all of them.")]
ChangeDimensions = Annotated[
    bool,
    typer.Option(
        "--change-dimensions",
        help="Allow other modalities or dimensions than those of the active θ. Running workers "
        "refuse such a θ until they are restarted. Subscribers must be ready for it.",
    ),
]


app.command("canary")(canary_command)


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(help="A θ: a safetensors file.")],
    then_activate: Annotated[
        bool, typer.Option("--activate", help="Activate it too, so that workers serve it.")
    ] = False,
    change_dimensions: ChangeDimensions = False,
    config_file: ConfigFile = None,
) -> None:
    """Publish a θ to the meta-inits topic. Publishing the same θ again changes nothing."""
    settings = config.load_settings(config_file)
    theta = _load(file, settings)
    with opened_topic(settings) as topic:
        new = operate.publish_theta(topic, theta, meta_init_to_bytes(theta))
        _say(f"{theta.version}: {'published' if new else 'was published already'}")
        if then_activate:
            _activate(topic, theta.version, change_dimensions)


@app.command("list")
def list_published(as_json: AsJson = False, config_file: ConfigFile = None) -> None:
    """List every published θ: version, parent, hash, dimensions, time and evaluation."""
    settings = config.load_settings(config_file)
    with opened_topic(settings) as topic:
        found = topic.catalogue()
    if as_json:
        _print_json(_catalogue_json(found))
        return
    if found.fault:
        typer.echo(f"which θ is active cannot be read: {found.fault}", err=True)
    if not found.published:
        _say("no θ is published; adaptd meta-init publish FILE puts one there")
        return
    _console().print(published_table(found))
    print_standing(settings, found)


@app.command()
def show(version: Version, as_json: AsJson = False, config_file: ConfigFile = None) -> None:
    """Show one θ, read back from the topic: parts, provenance, evaluation."""
    with opened_topic(config.load_settings(config_file)) as topic:
        found = topic.catalogue()
        with _refusals():
            theta = read_theta(topic, found, version)
    told = _theta_json(theta, found)
    if as_json:
        _print_json(told)
    else:
        _print_theta(told)


@app.command()
def activate(
    version: Version, change_dimensions: ChangeDimensions = False, config_file: ConfigFile = None
) -> None:
    """Make workers serve a published θ, after it was read back and found intact."""
    with opened_topic(config.load_settings(config_file)) as topic:
        _activate(topic, version, change_dimensions)


@app.command()
def rollback(config_file: ConfigFile = None) -> None:
    """Make workers serve the θ that was active before the present one."""
    with opened_topic(config.load_settings(config_file)) as topic:
        before = topic.catalogue().active
        active = operate.rollback_theta(topic, by=who(), now_ms=now_ms())
    left = f" instead of {before.version}" if before else ""
    _say(f"{active.version}: active again{left}")


@app.command()
def delete(version: Version, config_file: ConfigFile = None) -> None:
    """Delete a θ from the topic, unless it is active."""
    with opened_topic(config.load_settings(config_file)) as topic:
        operate.delete_theta(topic, version)
    _say(f"{version}: deleted")


def _activate(topic: MetaInits, version: str, change_dimensions: bool) -> None:
    before = topic.catalogue().active
    active, new = operate.activate_theta(
        topic, version, by=who(), now_ms=now_ms(), change_dimensions=change_dimensions
    )
    after = f", after {before.version}" if before and new else ""
    _say(f"{active.version}: {'active' if new else 'was active already'}{after}")
    if watch := begin_watch(topic, by=who(), now_ms=now_ms()):
        _say(f"{watch.version} watches it: adaptd meta-init canary tells what it finds")


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except RefusedMetaInit as e:
        raise Misconfigured(str(e)) from e


def _load(file: Path, settings: Settings) -> MetaInit:
    try:
        return load_meta_init(file, settings.meta_init_max_bytes)
    except BadMetaInit as e:
        raise Misconfigured(
            f"{e} (ADAPTD_META_INIT_MAX_BYTES sets the limit)" if "limit" in str(e) else str(e)
        ) from e


# ---- output


def published_table(found: Catalogue) -> Table:
    """Return the table of `adaptd meta-init list`."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "version", "parent", "hash", "maps", "parts", "published (UTC)", "MB"):
        table.add_column(name, overflow="fold", no_wrap=name in ("hash", "MB"))
    table.add_column("scores", overflow="fold")
    for version, one in found.published.items():
        table.add_row(
            "●" if found.active and found.active.version == version else "",
            Text(version),
            Text(one.parent or ""),
            one.content_hash[:12],
            Text(one.maps),
            Text(f"{one.generator}, {one.learner}"),
            time_told(one.published_at_ms),
            f"{one.nbytes / 1e6:.2f}",
            Text(scores_line(one.facts)),
        )
    if found.active:
        at, by = time_told(found.active.activated_at_ms), found.active.by
        table.caption = f"● {found.active.version} is active since {at}, by {by}"
    return table


def scores_line(facts: Mapping[str, str]) -> str:
    """Return the main figures of the fact `evaluation` on one line; empty where it has none."""
    rows = _parsed(facts.get("evaluation", ""))
    found = [_score(row) for row in rows] if isinstance(rows, list) else []
    told = [(pairs, f"{r_at_1:.3f}".removeprefix("0")) for pairs, r_at_1 in filter(None, found)]
    if not told:
        return ""
    pairs, r_at_1 = ("/".join(column) for column in zip(*told, strict=True))
    return f"R@1 {r_at_1} at {pairs} pairs"


def _score(row: Any) -> tuple[str, float] | None:
    """Return (pairs, R@1 of the adapted mapping) of a row of the fact; None where it has none."""
    if not isinstance(row, dict) or "pairs" not in row:
        return None
    r_at_1 = row.get("r_at_1")
    adapted = r_at_1.get("adapted") if isinstance(r_at_1, dict) else r_at_1
    return (str(row["pairs"]), adapted) if isinstance(adapted, float) else None


def _print_theta(told: dict[str, Any]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in told.items():
        if name != "facts":
            grid.add_row(name, Text(_as_text(value)))
    for name, fact in told["facts"].items():
        rows = fact if isinstance(fact, list) else [fact]
        grid.add_row(name, Text("\n".join(map(_as_text, rows))))
    _console().print(grid)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _theta_json(theta: MetaInit, found: Catalogue) -> dict[str, Any]:
    entry = found.published[theta.version]
    parts = {name: dict(part.config) for name, part in theta.parts.items()}
    return {
        "version": theta.version,
        "active": bool(found.active and found.active.version == theta.version),
        "parent": theta.parent,
        "content_hash": theta.content_hash,
        "maps": entry.maps,
        "hidden_dim": theta.hidden_dim,
        "activation": theta.activation,
        "output_activation": theta.output_activation,
        "encoder_version": theta.encoder_version,
        "published_at": time_told(entry.published_at_ms),
        "bytes": entry.nbytes,
        "tensors": {name: list(tensor.shape) for name, tensor in theta.tensors().items()},
        **parts,
        "facts": {name: _parsed(text) for name, text in theta.facts.items()},
    }


def _catalogue_json(found: Catalogue) -> dict[str, Any]:
    def plain(one: PublishedTheta | Active) -> dict[str, Any]:
        return asdict(one)

    return {
        "active": plain(found.active) if found.active else None,
        "fault": found.fault,
        "published": [plain(one) for one in found.published.values()],
        "canary": asdict(found.canary) if found.canary else None,
    }


def _parsed(text: str) -> Any:
    """Return a fact's JSON value, or its text where that is no JSON."""
    try:
        return parse_json(text)
    except BadBytes:
        return text


def _say(line: str) -> None:
    typer.echo(line)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=200)
