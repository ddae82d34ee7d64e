"""A child process that cannot outlive its owner: `subprocess.Popen` with a guard beside it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from daemon.local import guard

START_TIMEOUT_S = 20.0
_SLICE_S = 0.1  # how long one thread's wait() keeps the socket from another thread's


class GuardedProcess:
    """Runs `command` until it ends, `terminate`/`kill` is called, or this process ends.

    The command runs in a session and process group of its own, so Ctrl-C in the terminal reaches
    this process alone, which decides. `remove`, a folder, is deleted at `close`, or when this
    process ends first. `grace_s` is how long the command has between TERM and KILL in that case.
    Output goes where `stdout` and `stderr` say, as with Popen (`subprocess.PIPE` gives `.stdout`).

    Raises OSError when the command cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        grace_s: float = 5.0,
        remove: Path | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.command = [str(word) for word in command]
        self.returncode: int | None = None
        self._grace_s, self._remove = grace_s, remove
        self._lock, self._heard = threading.RLock(), b""
        self._closed, self._pid = False, 0
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._guard = subprocess.Popen(
                [*self._guard_command(theirs.fileno()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=env,
                cwd=cwd,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.stdout: IO[Any] | None = self._guard.stdout
        self.stderr: IO[Any] | None = self._guard.stderr
        self._wait_for_start()

    @property
    def pid(self) -> int:
        """The command's process id (not the guard's)."""
        return self._pid

    @property
    def guard_pid(self) -> int:
        return self._guard.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        self._listen(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            self._listen(_SLICE_S)
            if give_up_at is not None and self.returncode is None and time.monotonic() > give_up_at:
                raise subprocess.TimeoutExpired(self.command, timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing happens when the command has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def terminate(self, grace_s: float | None = None) -> int:
        """TERM, then KILL after `grace_s` seconds (default: as given at the start); exit code."""
        self.send_signal(signal.SIGTERM)
        self.send_signal(signal.SIGCONT)  # a paused process hears TERM only once it goes on
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(self._grace_s if grace_s is None else grace_s)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL, and wait for the end; the exit code."""
        self.send_signal(signal.SIGKILL)
        return self.wait()

    def pause(self) -> None:
        """SIGSTOP: alive, holding its connections, answering nothing."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the command if it still runs (TERM, grace, KILL), delete its folder. Idempotent."""
        self._part(keep_folder=False)

    def hand_over(self) -> None:
        """As `close`, but leave the folder: another guarded process looks after it now."""
        self._part(keep_folder=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _guard_command(self, socket_fd: int) -> list[str]:
        """In the order of `guard.main`."""
        python = [sys.executable, "-I", "-S", guard.__file__]
        return [
            *python,
            str(socket_fd),
            str(os.getpid()),
            str(self._grace_s),
            str(self._remove or ""),
        ]

    def _part(self, keep_folder: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if self.poll() is None:
            self.terminate()
        if keep_folder:
            with contextlib.suppress(OSError):
                self._socket.sendall(b"keep\n")
        self._dismiss_guard()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        if self._remove is not None and not keep_folder:
            guard.remove_folder(str(self._remove))  # in case the guard was killed

    def _wait_for_start(self) -> None:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not self._pid and self.returncode is None and time.monotonic() < give_up_at:
            self._listen(_SLICE_S)
        if not self._pid:
            self._guard.kill()
            self._dismiss_guard()
            raise OSError(f"cannot start {self.command[0]}: its guard did not answer")

    def _listen(self, timeout_s: float) -> None:
        """Take in what the guard has to say, waiting at most `timeout_s` for it."""
        with self._lock:
            if self.returncode is not None:
                return
            self._socket.settimeout(timeout_s)
            try:
                said = self._socket.recv(4096)
            except (BlockingIOError, TimeoutError):
                return
            except ConnectionError:
                said = b""
            if not said:
                self._guard_died()
            *lines, self._heard = (self._heard + said).split(b"\n")
            for line in lines:
                self._take(*line.decode().split(" ", 1))

    def _take(self, word: str, rest: str) -> None:
        match word:
            case "pid":
                self._pid = int(rest)
            case "exit":
                self._ended(int(rest))
            case "fail":
                self._ended(127)
                self._dismiss_guard()
                raise OSError(f"cannot start {self.command[0]}: {rest}")

    def _guard_died(self) -> None:
        """Linux has killed the command with its guard; elsewhere, or to be sure, we do."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._ended(-signal.SIGKILL)

    def _ended(self, code: int) -> None:
        self.returncode = code
        if self._remove is None:  # otherwise the guard stays, for the folder
            self._dismiss_guard()

    def _dismiss_guard(self) -> None:
        self._socket.close()
        self._guard.wait()
