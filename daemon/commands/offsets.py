"""`adaptd offsets`: show where the group has got to, and move it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Annotated

import typer

from daemon import config
from daemon.commands.options import ConfigFile
from daemon.errors import Misconfigured
from daemon.turn.log_identity import MOVED, noted_log
from daemon.turn.ports import Bounds

app = typer.Typer(
    help="The offsets that the consumer group has committed in the events topic.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command("show")
def show_offsets(config_file: ConfigFile = None) -> None:
    """Show, for each partition, its first and end offset, the committed one, and who committed it.

    A worker that starts goes on from an offset that adaptd has committed, or from before it if
    Redis has lost windows. An offset that an operator has committed is taken as it is.
    """
    settings = config.load_settings(config_file)
    from daemon.adapters.kafka_python.group_offsets import GroupOffsets

    with closing(GroupOffsets(settings)) as group:
        found, members = group.read(), group.members()
    typer.echo(f"group {settings.kafka_group_id}, {members} members")
    typer.echo("partition      first        end  committed       left  by")
    for partition, at in sorted(found.items()):
        committed = "-" if at.committed is None else str(at.committed)
        start = at.beginning if _is_void(at) else max(at.committed or 0, at.beginning)
        left = max(0, at.end - start)
        typer.echo(
            f"{partition:9} {at.beginning:10} {at.end:10} {committed:>10} {left:10}  {_by(at)}"
        )


def _is_void(at: Bounds) -> bool:
    """Returns whether a worker has committed more than the log has: the log was restored from an
    older copy, and is read from its beginning. (An operator may have gone beyond the end that
    workers read up to, where a transaction is open.)"""
    return at.committed is not None and at.committed > at.end and noted_log(at.note) is not None


def _by(at: Bounds) -> str:
    if at.committed is None:
        return "nobody"
    if _is_void(at):
        return "adaptd, of another log: a worker begins at the first offset"
    return "adaptd" if noted_log(at.note) else "an operator"


@app.command("move")
def move_offsets(
    to: Annotated[
        str,
        typer.Option(
            help="earliest, latest, an offset, +N or -N from the committed one, or an ISO 8601 "
            "time with a zone."
        ),
    ],
    partition: Annotated[
        list[int] | None, typer.Option(min=0, help="Only these partitions; repeat the option.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Move the group's committed offsets, while no worker of the group runs.

    Forward skips events: windows keep what they hold. Backward replays: events that a window has
    had already do not count again, but their streams' mappings are published anew, and events that
    became dead letters become dead letters again. Says what it will do and asks, then does it.
    """
    settings = config.load_settings(config_file)
    since_ms = _milliseconds(to)
    from daemon.adapters.kafka_python.group_offsets import GroupOffsets

    with closing(GroupOffsets(settings)) as group:
        found = _chosen(group.read(), partition)
        if members := group.members():
            raise Misconfigured(
                f"group {settings.kafka_group_id!r} has {members} members; Kafka moves the offsets "
                "of a group only while nobody is in it: stop its workers first"
            )
        times = {} if since_ms is None else group.first_at(since_ms, found)
        moves = {p: times[p] if p in times else _target(to, p, at) for p, at in found.items()}
        for p, offset in sorted(moves.items()):
            typer.echo(f"partition {p}: {_effect(found[p], offset)}")
        if not yes:
            typer.confirm("Move them?", abort=True)
        group.move(moves, MOVED)
    typer.echo("moved; the next worker to start begins there")


def _chosen(found: Mapping[int, Bounds], wanted: Sequence[int] | None) -> dict[int, Bounds]:
    if unknown := sorted(set(wanted or ()) - set(found)):
        raise Misconfigured(f"--partition {unknown[0]}: the topic has {len(found)} partitions")
    return {p: at for p, at in found.items() if not wanted or p in wanted}


def _milliseconds(to: str) -> int | None:
    """Returns the time (ms, UTC) that `to` names, or None if it names an offset. Raises
    Misconfigured when it names neither."""
    if to in ("earliest", "latest") or re.fullmatch(r"[+-]?\d{1,18}", to):
        return None
    try:
        moment = datetime.fromisoformat(to)
    except ValueError as e:
        raise Misconfigured(
            f"--to {to!r}: neither earliest, latest, an offset, +N, -N nor an ISO 8601 time"
        ) from e
    if moment.tzinfo is None:
        raise Misconfigured(f"--to {to!r}: needs a time zone, for example {to}Z")
    return int(moment.timestamp() * 1000)


def _target(to: str, partition: int, at: Bounds) -> int:
    """Returns the offset that `to` names in this partition. Raises Misconfigured."""
    if to == "earliest":
        return at.beginning
    if to == "latest":
        return at.end
    if to[0] not in "+-":
        offset = int(to)
    elif at.committed is None:
        raise Misconfigured(f"--to {to}: partition {partition} has no committed offset")
    else:
        offset = at.committed + int(to)
    if not at.beginning <= offset <= at.end:
        raise Misconfigured(
            f"--to {to}: partition {partition} has the offsets {at.beginning} to {at.end}, "
            f"not {offset}"
        )
    return offset


def _effect(at: Bounds, offset: int) -> str:
    """Returns what the move does, in words."""
    if at.committed is None:
        return f"begins at {offset}, with {at.end - offset} events to read"
    if _is_void(at):
        return f"{at.committed} -> {offset}, in another log: {at.end - offset} events to read"
    moved = f"{at.committed} -> {offset}"
    if offset > at.committed:
        return f"{moved}, skips {offset - at.committed} events; windows keep what they hold"
    if offset < at.committed:
        replayed = max(0, min(at.committed, at.end) - offset)
        return f"{moved}, replays {replayed} events; none counts twice in its window"
    return f"{moved}, stays"
