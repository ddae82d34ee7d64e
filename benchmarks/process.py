"""A process of its own for what is measured: a line of JSON asks, a line of JSON answers, or it
works until it is stopped."""

import contextlib
import json
import os
import select
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from subprocess import PIPE, Popen, TimeoutExpired
from threading import Event
from typing import IO, Any, Self

from benchmarks.output import NoFigures

END_TIMEOUT_S = 10.0
Message = dict[str, Any]


class Gone(NoFigures):
    """The process ended or does not answer; the message says how."""


class Process:
    """Runs `python -m module arguments`, which answers by `serve_requests`; leaving the
    context ends it."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        timeout_s: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._timeout_s, self._environment = timeout_s, os.environ | (environment or {})
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def ask(self, request: Message) -> Message:
        """Returns the answer. Raises Gone when there is none; a new process then waits for the
        next request."""
        try:
            return self._answer(request)
        except Gone:
            self._end()
            self._start()
            raise

    def _start(self) -> None:
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `_end`
        pipes: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": self._errors}
        self._process = Popen(self._command, text=True, env=self._environment, **pipes)
        assert self._process.stdin is not None  # for pipes were asked for
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def _answer(self, request: Message) -> Message:
        try:
            self._stdin.write(json.dumps(request) + "\n")
            self._stdin.flush()
        except OSError as error:
            raise Gone(self._last_words()) from error
        if not select.select([self._stdout], [], [], self._timeout_s)[0]:
            self._process.kill()
            raise Gone(f"no answer in {self._timeout_s or 0:.0f} s")
        line = self._stdout.readline()
        if not line:
            raise Gone(self._last_words())
        answer: Message = json.loads(line)
        return answer

    def _end(self) -> None:
        """Closes its stdin, at which it ends; a run that lasts longer is cut short."""
        with contextlib.suppress(OSError):  # it had ended before
            self._stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._errors.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().strip().splitlines()[-1:]
        return f"its process ended ({code}) {' '.join(words)}".strip()


def serve_requests(answer: Callable[[Message], Message]) -> None:
    """Answers the requests on stdin until it ends."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


def work_until_stopped(turn: Callable[[], None], close: Callable[[], None]) -> None:
    """Does turns until SIGTERM, then closes in good order."""
    stop = Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    while not stop.is_set():
        turn()
    close()
