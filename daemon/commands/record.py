"""`adaptd record`: a topic on disk."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from daemon import config
from daemon.errors import Misconfigured


def record(
    out: Annotated[Path, typer.Argument(help="Events file to write: .jsonl or .msgpack.")],
    limit: Annotated[int | None, typer.Option(min=1, help="The most events.")] = None,
    since: Annotated[
        str | None, typer.Option(help="From this record time on, ISO 8601 with a zone.")
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="TOML file of settings.")
    ] = None,
) -> None:
    """Write what the events topic holds to a file, to meta-train and evaluate on.

    Reads without a consumer group, so a running daemon does not notice. Events that the daemon
    would put aside as dead letters are left out and counted.
    """
    from daemon.offline.files import is_json
    from daemon.offline.record import Recorded
    from daemon.offline.record import record as write

    settings = config.load_settings(config_file)
    is_json(out)  # a wrong name is told before Kafka is asked

    def show(found: Recorded) -> None:
        typer.echo(f"{found.events} events of {len(found.streams)} streams ...", err=True)

    found = write(settings, out, limit, _milliseconds(since), show)
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
