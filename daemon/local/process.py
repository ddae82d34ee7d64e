"""A child process that cannot outlive this one: like subprocess.Popen, with a guard in between.

guard.py says who watches whom and what is left after a kill -9; this file is the owner's side. Its
state changes in one place: `_receive` reads lines from the guard under a lock (several threads may
ask for the exit code), `_apply` acts on each. The end of the socket means that the guard is dead.

A GuardedProcess starts as running (`returncode` None) and ends once (`_ended`). The guard ends with
the command, except when there is a folder to delete: then it stays until `close` or `hand_over`, so
that the folder never lacks a guard.
"""

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
from typing import IO, Any, Self

from daemon.local import guard

START_TIMEOUT_S = 20.0
_SLICE_S = 0.1
"""Longest time for which a waiting thread holds the lock; other threads' calls wait for it."""


class GuardedProcess:
    """A running command. It ends by itself, by `terminate` or `kill`, or with this process.

    The command has a session and a process group of its own: Ctrl-C in the terminal reaches only
    this process, which decides. When this process ends, the guard sends the command TERM, and KILL
    after `grace_s` seconds (at once if 0). The folder `remove` is deleted then, or on `close`.
    `stdout`, `stderr`, `env` and `cwd` are those of subprocess.Popen.

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
        self._lock, self._unfinished_line = threading.RLock(), b""
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
        """The guard's process id."""
        return self._guard.pid

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal; None while the command runs."""
        self._receive(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command's end; returns its exit code. Raises subprocess.TimeoutExpired
        after `timeout` seconds."""
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            self._receive(_SLICE_S)
            if give_up_at is not None and self.returncode is None and time.monotonic() > give_up_at:
                raise subprocess.TimeoutExpired(self.command, timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the command; does nothing once it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def terminate(self, grace_s: float | None = None) -> int:
        """Send TERM, and KILL after `grace_s` seconds (default: the constructor's). Returns the
        exit code."""
        self.send_signal(signal.SIGTERM)
        self.send_signal(signal.SIGCONT)  # a paused process sees TERM only when it continues
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(self._grace_s if grace_s is None else grace_s)
        return self.kill()

    def kill(self) -> int:
        """Send KILL and wait for the end; returns the exit code."""
        self.send_signal(signal.SIGKILL)
        return self.wait()

    def pause(self) -> None:
        """Send STOP: the command keeps its connections open and answers nothing until `resume`."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Send CONT: the command goes on after `pause`."""
        self.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the command if it still runs (TERM, grace, KILL) and delete its folder. Calling it
        again does nothing."""
        self._close(keep_folder=False)

    def hand_over(self) -> None:
        """Close, but leave the folder to another GuardedProcess that was started with it."""
        self._close(keep_folder=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _guard_command(self, socket_fd: int) -> list[str]:
        """The arguments of `guard.main`, but for the command."""
        python = [sys.executable, "-I", "-S", guard.__file__]
        folder = str(self._remove or "")
        return [*python, str(socket_fd), str(os.getpid()), str(self._grace_s), folder]

    def _close(self, keep_folder: bool) -> None:
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
            self._receive(_SLICE_S)
        if not self._pid:
            self._guard.kill()
            self._dismiss_guard()
            raise OSError(f"cannot start {self.command[0]}: its guard did not answer")

    def _receive(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` for the guard to send something, and act on every whole line."""
        with self._lock:
            if self.returncode is not None:
                return
            self._socket.settimeout(timeout_s)
            try:
                received = self._socket.recv(4096)
            except (BlockingIOError, TimeoutError):
                return
            except ConnectionError:
                received = b""
            if not received:
                self._guard_died()
            *lines, self._unfinished_line = (self._unfinished_line + received).split(b"\n")
            for line in lines:
                self._apply(*line.decode().split(" ", 1))

    def _apply(self, word: str, rest: str) -> None:
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
        """Kill what is left: Linux has killed the command, but nothing that it started."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
        self._ended(-signal.SIGKILL)

    def _ended(self, code: int) -> None:
        self.returncode = code
        if self._remove is None:  # otherwise the guard stays for the folder
            self._dismiss_guard()

    def _dismiss_guard(self) -> None:
        """Close the socket, which tells the guard to finish, and wait for its end."""
        self._socket.close()
        self._guard.wait()
