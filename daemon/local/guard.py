"""The guard: a small process that ends one command when its owner ends, however it ends.

An owner killed with SIGKILL runs no handler, so somebody else has to clean up. The owner starts
this file with one end of a socket; the kernel closes the other end with the owner. Then the guard
ends the command and deletes its folder. Should the guard itself be killed, Linux kills the command
(PR_SET_PDEATHSIG), and the owner deletes the folder, or else the next run does (see `folders`).

On the socket, guard to owner: `pid N`, then `exit CODE` (negative: a signal), or `fail REASON`.
Owner to guard: `keep` (somebody else looks after the folder now).

Standard library only, and little of it: run as `python -I -S guard.py`, it starts in 20 ms.
`daemon.local.process` is the owner's side.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from typing import NoReturn

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOOK_FOR_OWNER_EVERY_S = 1.0
"""A process that the owner forked may hold the socket open; then only our parent's id tells."""


def main(arguments: list[str]) -> None:
    owner_fd, owner_pid, grace_s, folder, *command = arguments
    owner = int(owner_fd)
    os.set_inheritable(owner, False)
    wakeups = _listen_to_signals()
    try:
        pid = _start(command)
    except OSError as error:
        _tell(owner, f"fail {error}")
        return
    _tell(owner, f"pid {pid}")
    _let_go_of_output()
    running, keep = _watch(owner, int(owner_pid), wakeups, pid, stay=bool(folder))
    if running:
        _end(pid, float(grace_s))
    if folder and not keep:
        remove_folder(folder)


def _listen_to_signals() -> int:
    """A pipe that gets one byte per signal, so that one poll waits for everything.

    Python handlers, not SIG_IGN: ignored signals stay ignored in the command we start.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    return reader


def _start(command: list[str]) -> int:
    """The command's process id, once it really runs. Raises OSError when it cannot be run."""
    guard = os.getpid()
    reader, writer = os.pipe()  # closed in the child by a successful exec, so then we read nothing
    pid = os.fork()
    if pid == 0:
        _become(command, writer, guard)
    os.close(writer)
    with open(reader, "rb") as failure:
        reason = failure.read().decode()
    if reason:
        os.waitpid(pid, 0)
        raise OSError(reason)
    return pid


def _become(command: list[str], failure: int, guard: int) -> NoReturn:
    """In the child: a process group of its own, to be killed with the guard, default signals."""
    try:
        os.setpgid(0, 0)
        _die_with(guard)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except BaseException as error:
        os.write(failure, str(error).encode())
    os._exit(127)


def _die_with(guard: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:  # it died before the call above
        os._exit(1)


def _let_go_of_output() -> None:
    """Whoever reads the command's output through a pipe must see it end with the command."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)


def _watch(owner: int, owner_pid: int, wakeups: int, pid: int, stay: bool) -> tuple[bool, bool]:
    """Wait for the owner's end, or (unless there is a folder to look after) the command's.

    Returns whether the command still runs, and whether its folder is to be kept.
    """
    poll = select.poll()
    poll.register(owner, select.POLLIN)
    poll.register(wakeups, select.POLLIN)
    running, keep = True, False
    while running or stay:
        ready = {fd for fd, _ in poll.poll(LOOK_FOR_OWNER_EVERY_S * 1000)}
        if wakeups in ready and signal.SIGTERM in os.read(wakeups, 512):
            break
        if running and (code := _reap(pid)) is not None:
            running = False
            _tell(owner, f"exit {code}")
        if owner in ready:
            said = _hear(owner)
            if not said:
                break
            keep = keep or b"keep" in said
        if os.getppid() != owner_pid:
            break
    return running, keep


def _hear(owner: int) -> bytes:
    try:
        return os.read(owner, 512)
    except OSError:
        return b""


def _tell(owner: int, line: str) -> None:
    with contextlib.suppress(OSError):  # an owner that is gone needs no news
        os.write(owner, f"{line}\n".encode())


def _reap(pid: int) -> int | None:
    """The command's exit code if it has ended; what it left in its group is killed."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        return None
    _signal_group(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def _end(pid: int, grace_s: float) -> None:
    if grace_s > 0:
        _signal_group(pid, signal.SIGTERM)
        _signal_group(pid, signal.SIGCONT)  # a paused process hears TERM only once it goes on
        give_up_at = time.monotonic() + grace_s
        while time.monotonic() < give_up_at:
            if _reap(pid) is not None:
                return
            time.sleep(0.02)
    _signal_group(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def remove_folder(folder: str) -> None:
    """Delete a folder in which a dying process may still be creating files."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1:])
