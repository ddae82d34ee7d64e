"""A contender's process, as the benchmark that asks it sees it."""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import IO, Any, Self

ANSWER_TIMEOUT_S = 120.0
END_TIMEOUT_S = 10.0
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}


class Gone(Exception):
    """The process ended, or does not answer; the message says how."""


class Seat:
    """Runs `benchmarks.numerics.adapt_run` for one contender; leaving the context ends it."""

    def __init__(self, contender: str, device: str) -> None:
        arguments = json.dumps({"contender": contender, "device": device})
        self._command = [sys.executable, "-m", "benchmarks.numerics.adapt_run", arguments]
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Its answer. Raises Gone; a new process then waits for the next case."""
        try:
            return self._answer(request)
        except Gone:
            self._end()
            self._start()
            raise

    def _start(self) -> None:
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115  # see `_end`
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | ONE_THREAD,
        )

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # for pipes were asked for
        assert stdout is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
        except OSError as error:
            raise Gone(self._last_words()) from error
        if not select.select([stdout], [], [], ANSWER_TIMEOUT_S)[0]:
            self._process.kill()
            raise Gone(f"no answer in {ANSWER_TIMEOUT_S:.0f} s")
        line = stdout.readline()
        if not line:
            raise Gone(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self) -> None:
        """It ends as its stdin does; a run that lasts is cut short."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # it had ended before
            self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().strip().splitlines()[-1:]
        return f"its process ended ({code}) {' '.join(words)}".strip()
