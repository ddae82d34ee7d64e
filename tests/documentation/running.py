"""Runs a page's blocks in order, as a reader does: one shell, one Python, commands that stay.

A line such as `adaptd run` works until it is stopped. It is started, waited for until it is ready,
and stays while the blocks behind it run, as in another terminal.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.documentation.blocks import ROOT, Block

LINE_TIMEOUT_S = 120.0
READY_WITHIN_S = 90.0
STOPPED_WITHIN_S = 30.0
CHECKOUT = ("Makefile", "benchmarks", "daemon", "deploy", "docs", "examples", "model")
"""What readers have in the folder they work in."""


class Staying(NamedTuple):
    """A command that stays: what it prints when it is ready, and how it ends on Ctrl-C."""

    ready: str
    exit_code: int
    once: bool = False
    """Whether it is stopped as soon as it is ready: it has services of its own."""


STAYING = {
    "adaptd run": Staying("partitions_claimed", 0),
    "python examples/subscribe.py": Staying(r"camera-7: \w+, version \d+", 0),
    "adaptd up": Staying("Ctrl-C ends both", 0, once=True),
    "make demo": Staying("services: ", -signal.SIGINT, once=True),
}
FLAGS_THAT_END = {"--print-config", "--until-end"}

PYTHON = """\
import sys
namespace = {"__name__": "__main__"}
for number, line in enumerate(sys.stdin):
    exec(compile(eval(line), f"<block {number}>", "exec"), namespace)
    print("\\0", flush=True)
"""
"""Runs one block for each line of stdin, which holds it as a literal, in one namespace."""


class Session:
    """A reader at work in `folder`; `places` are names in the pages and what stands for them."""

    def __init__(
        self, folder: Path, places: Mapping[str, str], environment: dict[str, str]
    ) -> None:
        self._folder, self._places, self._environment = folder, places, environment
        self._state = folder / ".state"
        self._state.write_text("")
        self._open = ExitStack()
        self._python: subprocess.Popen[str] | None = None
        for name in CHECKOUT:
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").symlink_to(sys.prefix)

    def run(self, block: Block) -> None:
        """Runs what the block does not leave out. Raises AssertionError when a line fails."""
        if block.language == "python":
            self._run_python(self._localized(block.text), block.where)
        elif block.language == "bash":
            for line in block.lines:
                self._run_line(self._localized(line), block.where)

    def _localized(self, text: str) -> str:
        for name, value in self._places.items():
            text = text.replace(name, value)
        return text

    def _run_line(self, line: str, where: str) -> None:
        for prefix, staying in STAYING.items():
            if line.startswith(prefix) and not FLAGS_THAT_END & set(shlex.split(line, True)):
                self._start(line, staying, where)
                return
        done = subprocess.run(
            self._shell(f"trap 'export -p > {self._state}' EXIT\n{line}"),
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=LINE_TIMEOUT_S,
            check=False,
        )
        said = f"{where}: {line}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, f"exit code {done.returncode} from {said}"

    def _shell(self, script: str) -> list[str]:
        return ["bash", "-euo", "pipefail", "-c", f"source {self._state}\n{script}"]

    def _start(self, line: str, staying: Staying, where: str) -> None:
        log = self._folder / f".log-{time.monotonic_ns()}"
        with log.open("w") as out:
            process = subprocess.Popen(
                self._shell(f"exec {line}"),
                cwd=self._folder,
                env=self._environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches all that a terminal has in front
            )
        with ExitStack() as stopping:
            stopping.callback(_interrupt, process, staying, log)
            give_up_at = time.monotonic() + READY_WITHIN_S
            while not re.search(staying.ready, log.read_text()):
                gone = process.poll() is not None or time.monotonic() > give_up_at
                assert not gone, f"{where}: {line} is not ready:\n{log.read_text()}"
                time.sleep(0.05)
            if not staying.once:
                self._open.push(stopping.pop_all())

    def _run_python(self, text: str, where: str) -> None:
        if self._python is None:
            self._python = subprocess.Popen(
                [sys.executable, "-c", PYTHON],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self._open.enter_context(self._python)  # ends it, by the end of its input
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        self._python.stdin.write(f"{text!r}\n")
        self._python.stdin.flush()
        said = ""
        for line in self._python.stdout:
            if line == "\0\n":
                return
            said += line
        raise AssertionError(f"{where}:\n{said}")

    def close(self) -> None:
        """Stops what stays, the newest first. Raises AssertionError if one ended badly."""
        self._open.close()


def _interrupt(process: subprocess.Popen[bytes], staying: Staying, log: Path) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    try:
        code = process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    assert code == staying.exit_code, f"exit code {code} after Ctrl-C:\n{log.read_text()}"
