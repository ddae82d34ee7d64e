"""The demo's child processes: a worker for each scenario, and a producer, a subscriber and a
scraper that serve both. Each has a guard (daemon.local.guard), so that none outlives this one."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Self

from daemon.demo.reports import Report, parse_report
from daemon.demo.scenarios import ScenarioName
from daemon.local.folders import new_data_folder
from daemon.local.process import GuardedProcess

LOG_TAIL_LINES = 15
STOP_WITHIN_S = 10.0


class ProcessEnded(Exception):
    """A process ended that should still run, or did not end well."""


class Processes:
    """Starts the processes, collects their reports, and notices when one ends."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._stack = ExitStack()
        self._reports: SimpleQueue[Report] = SimpleQueue()
        self._running: dict[str, GuardedProcess] = {}
        self._workers: list[str] = []
        folder = new_data_folder("demo")
        self._stack.callback(folder.unlock)
        self._folder = folder.path

    def start_worker(self, scenario: ScenarioName, environment: Mapping[str, str]) -> None:
        """Start `adaptd run`. The first worker's guard also deletes the folder of logs."""
        name = _worker(scenario)
        with self._log(name).open("wb") as log:
            process = GuardedProcess(
                [sys.executable, "-m", "daemon", "run"],
                grace_s=0.0,  # Kafka ends with the demo: there is nothing to finish
                remove=None if self._workers else self._folder,
                stdout=log,
                stderr=log,
                env=environment,
            )
        self._workers.append(name)
        self._running[name] = self._stack.enter_context(process)

    def start(self, name: str, argument: str) -> None:
        """Start `python -m daemon.demo.NAME ARGUMENT`, whose stdout is reports."""
        with self._log(name).open("wb") as log:
            process = GuardedProcess(
                [sys.executable, "-m", f"daemon.demo.{name}", argument],
                grace_s=0.0,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )
        self._running[name] = self._stack.enter_context(process)
        threading.Thread(target=self._read_reports, args=(process,), name=name, daemon=True).start()

    def _read_reports(self, process: GuardedProcess) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._reports.put(parse_report(line))

    def reports(self, wait_s: float) -> list[Report]:
        """Returns the reports since the last call, waiting at most `wait_s` for the first."""
        received: list[Report] = []
        try:
            received.append(self._reports.get(timeout=wait_s))
            while True:
                received.append(self._reports.get_nowait())
        except Empty:
            return received

    def check(self) -> None:
        """Raises ProcessEnded when a process has ended; the producer may, with exit code 0."""
        for name, process in self._running.items():
            code = process.poll()
            if code is not None and (name, code) != ("producer", 0):
                raise ProcessEnded(f"{name} ended with code {code}; {self._tail(name)}")

    def worker_url(self, scenario: ScenarioName) -> str | None:
        """Returns the URL at which the scenario's worker serves HTTP, once its log names it."""
        *lines, _unfinished = self._log(_worker(scenario)).read_text(errors="replace").split("\n")
        for line in lines:
            if '"starting"' in line:
                return str(json.loads(line)["http"])
        return None

    def stop_workers(self) -> None:
        """Send TERM to each worker. Raises ProcessEnded unless it exits with 0."""
        for name in self._workers:
            code = self._running.pop(name).terminate(STOP_WITHIN_S)
            if code != 0:
                raise ProcessEnded(f"{name}, asked to stop, exited with {code}; {self._tail(name)}")

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _tail(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "the end of its log:\n" + "\n".join(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _worker(scenario: ScenarioName) -> str:
    return f"adaptd-{scenario}"
