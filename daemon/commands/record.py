"""`adaptd record`: write a topic's events to a file."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from daemon import config
from daemon.commands.options import ConfigFile
from daemon.errors import Misconfigured


def record(
    out: Annotated[Path, typer.Argument(help="Events file to write: .jsonl or .msgpack.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many events.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Leave out records before this time, ISO 8601 with a zone.")
    ] = None,
    config_file: ConfigFile = None,
) -> None:
    """Write the events that the topic holds now to a file, to meta-train and evaluate on.

    Reads without a consumer group, so a running daemon is not disturbed. Events that the daemon
    would send to the dead-letter topic are left out and counted.
    """
    from daemon.offline.events_file import is_json
    from daemon.offline.record import Recorded, record_topic
    from model.meta.progress_lines import duration

    settings = config.load_settings(config_file)
    is_json(out)  # refuses a wrong name before Kafka is asked

    begun = time.monotonic()

    def show(found: Recorded) -> None:
        passed = time.monotonic() - begun
        expected = found.expected if limit is None else min(limit, found.expected)
        to_go = passed / found.events * max(0, expected - found.events)
        typer.echo(
            f"{found.events:,} of about {expected:,} events, of {len(found.streams):,} streams, "
            f"{duration(passed)} so far, {duration(to_go)} to go",
            err=True,
        )

    found = record_topic(settings, out, limit, _milliseconds(since), show)
    left_out = ", ".join(f"{n} {reason}" for reason, n in sorted(found.malformed.items()))
    typer.echo(
        f"{out}: {found.events} events of {len(found.streams)} streams"
        + (f"; left out as malformed: {left_out}" if left_out else "")
    )


def _milliseconds(since: str | None) -> int | None:
    if since is None:
        return None
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as e:
        raise Misconfigured(f"--since {since!r}: not an ISO 8601 time: {e}") from e
    if moment.tzinfo is None:
        raise Misconfigured(f"--since {since!r}: needs a time zone, for example {since}Z")
    return int(moment.timestamp() * 1000)
