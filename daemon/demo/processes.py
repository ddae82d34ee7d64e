"""The demo's processes: a worker for each part, and three that serve both. All are guarded, so none
outlives this one, however it ends."""

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
from daemon.demo.part import PartName
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
        self._workers: list[str] = []
        folder = new_data_folder("demo")
        self._stack.callback(folder.unlock)
        self._folder = folder.path

    def start_worker(self, part: PartName, environment: Mapping[str, str]) -> None:
        """`adaptd run`; the first one's guard also looks after the folder of logs."""
        name = _worker(part)
        with self._log(name).open("wb") as log:
            process = GuardedProcess(
                [sys.executable, "-m", "daemon", "run"],
                grace_s=0.0,  # if the demo goes, so does Kafka: there is nothing to finish
                remove=None if self._workers else self._folder,
                stdout=log,
                stderr=log,
                env=environment,
            )
        self._workers.append(name)
        self._running[name] = self._stack.enter_context(process)

    def start(self, name: str, argument: str) -> None:
        """The process `daemon.demo.NAME`, whose stdout is news."""
        with self._log(name).open("wb") as log:
            process = GuardedProcess(
                [sys.executable, "-m", f"daemon.demo.{name}", argument],
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

    def url(self, part: PartName) -> str | None:
        """Where the part's worker serves /metrics, once its log says so."""
        *lines, _unfinished = self._log(_worker(part)).read_text(errors="replace").split("\n")
        for line in lines:
            if '"starting"' in line:
                return str(json.loads(line)["http"])
        return None

    def stop_workers(self) -> None:
        """SIGTERM. Raises ProcessEnded unless each then exits with 0."""
        for name in self._workers:
            code = self._running.pop(name).terminate(STOP_WITHIN_S)
            if code != 0:
                raise ProcessEnded(f"{name}, told to stop, exited with {code}; {self._tail(name)}")

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


def _worker(part: PartName) -> str:
    return f"adaptd-{part}"
