"""A server process (Kafka or Valkey) on a port of its own: start, stop, kill, pause, restart.

    new_server -> start_on_free_port -> Server.start ... Server.close

A server's port and data folder stay the same over restarts, until `close`. A folder that is `kept`
stays behind it too.
"""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from daemon.local.errors import ServicesUnavailable
from daemon.local.folders import DataFolder, kept_data_folder, new_data_folder
from daemon.local.guard import remove_folder
from daemon.local.process import GuardedProcess

LOG = "server.log"
LOG_TAIL_LINES = 25

START_ATTEMPTS = 3
STOP_GRACE_S = 20.0
"""How long a server may take to write down what is to be kept."""

LOWEST_PORT = 15_000
FALLBACK_HIGHEST_PORT = 32_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Server:
    """A server that can be started, stopped and started again on the same port and data.

    `answers` asks it as a client would, and returns True once it can be used. `address` is
    HOST:PORT.
    """

    def __init__(
        self,
        name: str,
        address: str,
        command: list[str],
        folder: DataFolder,
        answers: Callable[[], bool],
        env: Mapping[str, str] | None = None,
        start_timeout_s: float = 60.0,
    ) -> None:
        self.name, self.address, self.folder = name, address, folder.path
        self._command, self._answers, self._env = command, answers, env
        self._data_folder, self._start_timeout_s = folder, start_timeout_s
        self._process: GuardedProcess | None = None
        self._closed = False

    @property
    def running(self) -> bool:
        """True while the process lives, also when it is paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def process(self) -> GuardedProcess:
        """The process that was started last. Raises RuntimeError before the first start."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not started")
        return self._process

    def start(self) -> None:
        """Start it unless it runs, and return when it answers.

        Raises ServicesUnavailable, with the end of the log, when it ends or does not answer.
        """
        if self.running:
            return
        with (self.folder / LOG).open("ab") as log:
            process = GuardedProcess(
                self._command,
                # unless they are kept, nobody needs its data without this process
                grace_s=STOP_GRACE_S if self._data_folder.kept else 0.0,
                remove=None if self._data_folder.kept else self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self.folder,
            )
        if self._process is not None:  # only now, so that the folder always has a guard
            self._process.hand_over()
        self._process = process
        self._wait_until_it_answers(process)

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End it with TERM, as an operator would, and with KILL after `grace_s` seconds."""
        self.process.terminate(grace_s)

    def kill(self) -> None:
        """End it with KILL; `start` finds the data as they are."""
        self.process.kill()

    def restart(self) -> None:
        """Stop it if it runs, then start it on the same port with the same data."""
        if self.running:
            self.stop()
        self.start()

    def pause(self) -> None:
        """Send STOP: its connections stay open, and it answers nothing until `resume`."""
        self.process.pause()

    def resume(self) -> None:
        """Send CONT: it goes on after `pause`."""
        self.process.resume()

    def close(self) -> None:
        """End it, and delete its data unless they are kept. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._process is not None:
            if not self._data_folder.kept:
                self._process.kill()
            self._process.close()
        if not self._data_folder.kept:
            remove_folder(str(self.folder))  # in case it never started
        self._data_folder.unlock()

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """Returns the last lines of its log."""
        try:
            text = (self.folder / LOG).read_text(errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait_until_it_answers(self, process: GuardedProcess) -> None:
        give_up_at = time.monotonic() + self._start_timeout_s
        while not self._answers():
            if process.poll() is not None:
                raise self._failure(f"ended with code {process.returncode} while starting")
            if time.monotonic() > give_up_at:
                raise self._failure(f"did not answer within {self._start_timeout_s:g} s")
            time.sleep(0.03)

    def _failure(self, what: str) -> ServicesUnavailable:
        return ServicesUnavailable(
            f"{self.name} at {self.address} {what}; the end of its log:\n{self.log_tail()}"
        )


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """Where a server is to listen and to keep its data, for whoever wants to choose."""

    port: int | None = None
    """A port of 127.0.0.1; None for a free one."""
    data: Path | None = None
    """A folder that stays, made if it does not exist; None for one that is deleted."""

    def folder(self, name: str) -> DataFolder:
        """Returns the folder for a server. Raises ServicesUnavailable."""
        return new_data_folder(name) if self.data is None else kept_data_folder(self.data)

    def chosen_port(self) -> int:
        """Returns the port to listen on. Raises ServicesUnavailable when it is taken."""
        if self.port is None:
            return free_port()
        if not is_free(self.port):
            raise ServicesUnavailable(f"port {self.port} of 127.0.0.1 is in use: choose another")
        return self.port


ANYWHERE = ServerPlace()


def start_on_free_port(new_server: Callable[[], Server]) -> Server:
    """Start the server that `new_server` makes, and return it once it answers.

    `new_server` picks a free port. When another process takes the port first, it is called again,
    at most three times in all. Raises ServicesUnavailable.
    """
    for _ in range(START_ATTEMPTS - 1):
        try:
            return _started(new_server())
        except ServicesUnavailable as error:
            if "address already in use" not in str(error).lower():
                raise
    return _started(new_server())


def _started(server: Server) -> Server:
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens on, below those the kernel gives to clients.

    Binding to port 0 would return one of the latter: while the server is down, between a kill and a
    restart, any client's outgoing connection could take it. Two processes may be given the same
    port at the same moment; see `start_on_free_port`.
    """
    while True:
        port = random.randint(LOWEST_PORT, _highest_port())
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    """Whether a server could listen on the port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _highest_port() -> int:
    try:
        lowest_ephemeral = int(EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return FALLBACK_HIGHEST_PORT
    return lowest_ephemeral - 1 if lowest_ephemeral > LOWEST_PORT + 1000 else FALLBACK_HIGHEST_PORT
