"""A running Kafka or Valkey: what a test, the demo or `adaptd up` may do to one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from daemon.local.errors import ServicesUnavailable
from daemon.local.folders import DataFolder
from daemon.local.guard import remove_folder
from daemon.local.process import GuardedProcess

LOG = "server.log"
LOG_TAIL_LINES = 25


class Server:
    """One server process with a port and a data folder that outlive restarts, until `close`.

    `answers()` talks to it as a client would, and is true once it can be used.
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
        """True also while it is paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def process(self) -> GuardedProcess:
        if self._process is None:
            raise RuntimeError(f"{self.name} is not started")
        return self._process

    def start(self) -> None:
        """Returns when it answers. Raises ServicesUnavailable with its last log lines."""
        if self.running:
            return
        with (self.folder / LOG).open("ab") as log:
            process = GuardedProcess(
                self._command,
                grace_s=0.0,  # when we are gone, nobody needs its data
                remove=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self.folder,
            )
        if self._process is not None:  # only now: the folder is never without a guard
            self._process.hand_over()
        self._process = process
        self._wait_until_it_answers(process)

    def stop(self, grace_s: float = 20.0) -> None:
        """End it as an operator would (TERM); port and data are kept for `start`."""
        self.process.terminate(grace_s)

    def kill(self) -> None:
        """SIGKILL; port and data are kept for `start`."""
        self.process.kill()

    def restart(self) -> None:
        """Stop it if it runs, then start it on the same port with the same data."""
        if self.running:
            self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def close(self) -> None:
        """End it for good; the data is deleted. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._process is not None:
            self._process.kill()
            self._process.close()
        remove_folder(str(self.folder))  # in case it never started
        self._data_folder.unlock()

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        try:
            text = (self.folder / LOG).read_text(errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
