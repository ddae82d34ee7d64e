"""The demo's four processes. All are guarded, so none outlives this one, however it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from daemon.demo.news import News, parse
from daemon.local.folders import new_data_folder
from daemon.local.process import GuardedProcess

LOG_TAIL_LINES = 15
STOP_WITHIN_S = 10.0


class ProcessEnded(Exception):
    """A process of the demo ended that should not have."""


class Processes:
    """Start them, hear what they say, and notice when one ends."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._stack = ExitStack()
        self._news: SimpleQueue[News] = SimpleQueue()
        self._running: dict[str, GuardedProcess] = {}
        folder = new_data_folder("demo")
        self._stack.callback(folder.unlock)
        self._folder = folder.path

    def start_daemon(self) -> None:
        """`adaptd run`; its guard also looks after the folder of logs."""
        with self._log("adaptd").open("wb") as log:
            process = GuardedProcess(
                [sys.executable, "-m", "daemon", "run"],
                grace_s=0.0,  # if the demo goes, so does Kafka: there is nothing to finish
                remove=self._folder,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        self._running["adaptd"] = self._stack.enter_context(process)

    def start(self, name: str, *arguments: str) -> None:
        """The process `daemon.demo.NAME`, whose stdout is news."""
        with self._log(name).open("wb") as log:
            process = GuardedProcess(
                [sys.executable, "-m", f"daemon.demo.{name}", *arguments],
                grace_s=0.0,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )
        self._running[name] = self._stack.enter_context(process)
        threading.Thread(target=self._listen, args=(process,), name=name, daemon=True).start()

    def _listen(self, process: GuardedProcess) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._news.put(parse(line))

    def news(self, wait_s: float) -> list[News]:
        """What they said since the last call, waiting a little for the first."""
        heard: list[News] = []
        try:
            heard.append(self._news.get(timeout=wait_s))
            while True:
                heard.append(self._news.get_nowait())
        except Empty:
            return heard

    def check(self) -> None:
        """Raises ProcessEnded. The producer may end well: it has nothing more to do."""
        for name, process in self._running.items():
            code = process.poll()
            if code is not None and (name, code) != ("producer", 0):
                raise ProcessEnded(f"{name} ended with code {code}; {self._tail(name)}")

    def daemon_url(self) -> str | None:
        """Where the daemon serves /metrics, once its log says so."""
        *lines, _unfinished = self._log("adaptd").read_text(errors="replace").split("\n")
        for line in lines:
            if '"starting"' in line:
                return str(json.loads(line)["http"])
        return None

    def stop_daemon(self) -> None:
        """SIGTERM. Raises ProcessEnded unless it then exits with 0."""
        code = self._running.pop("adaptd").terminate(STOP_WITHIN_S)
        if code != 0:
            raise ProcessEnded(f"adaptd, told to stop, exited with {code}; {self._tail('adaptd')}")

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _tail(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "the end of its log:\n" + "\n".join(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
