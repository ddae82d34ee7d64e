"""The guard: a small process that ends one command when the command's owner ends, however it ends.

Three processes belong together. The owner (a test, the demo, `adaptd up`) holds a GuardedProcess
(process.py) and starts the guard (this file). The guard starts the command (a Kafka, a Valkey, a
worker) as its own child. The command may have a data folder, which has to be deleted last.

An owner killed with SIGKILL runs no handler, so somebody else must clean up after it. This is who
watches whom:

    ends          who notices, and how                  what happens
    command       guard: SIGCHLD                        guard kills what the command left in its
                                                        process group and sends `exit` to the owner;
                                                        then it ends, unless there is a folder
    owner         guard: end of file on their socket    guard ends the command (TERM, grace, KILL)
                  (or another parent id, see below)     and deletes the folder
    guard         kernel: PR_SET_PDEATHSIG (Linux)      kernel kills the command
                  owner: end of file on the socket      owner kills the command's process group, and
                                                        deletes the folder on close
    both at once  kernel, as above                      kernel kills the command; the folder stays
                                                        until the next run deletes it (folders.py)

So after any kill -9 at most a folder is left, and that for one run. Only processes that the command
itself started can outlive a simultaneous kill of owner and guard.

The owner and the guard exchange lines over the socket:

    guard to owner   `pid N`       the command runs
                     `fail REASON` it could not be started; the guard ends
                     `exit CODE`   it has ended; a negative code is a signal's number
    owner to guard   `keep`        leave the folder: another guard looks after it now

The guard uses the standard library only, and little of it: started as `python -I -S guard.py` it is
ready after 20 ms.
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
CHECK_PARENT_EVERY_S = 1.0
"""A process that the owner forked may hold the socket open after the owner's end. Then the guard
notices only that it has another parent."""


def main(arguments: list[str]) -> None:
    """Guard one command. `arguments`: the socket's file descriptor, the owner's process id, the
    grace in seconds between TERM and KILL, the folder to delete ("" for none), the command."""
    owner_fd, owner_pid, grace_s, folder, *command = arguments
    owner = int(owner_fd)
    os.set_inheritable(owner, False)
    wakeups = _signal_pipe()
    try:
        pid = _start(command)
    except OSError as error:
        _send(owner, f"fail {error}")
        return
    _send(owner, f"pid {pid}")
    _release_output()
    running, keep = _watch(owner, int(owner_pid), wakeups, pid, stay=bool(folder))
    if running:
        _end(pid, float(grace_s))
    if folder and not keep:
        remove_folder(folder)


def _signal_pipe() -> int:
    """Returns the read end of a pipe that receives one byte per signal, so that a single poll waits
    for the owner and for signals.

    The handlers do nothing, but they must not be SIG_IGN: the command would inherit that.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    return reader


def _start(command: list[str]) -> int:
    """Returns the command's process id once it runs. Raises OSError when it cannot be run."""
    guard = os.getpid()
    reader, writer = os.pipe()  # a successful exec closes the child's end: then nothing is read
    pid = os.fork()
    if pid == 0:
        _exec(command, writer, guard)
    os.close(writer)
    with open(reader, "rb") as failure:
        reason = failure.read().decode()
    if reason:
        os.waitpid(pid, 0)
        raise OSError(reason)
    return pid


def _exec(command: list[str], failure: int, guard: int) -> NoReturn:
    """In the forked child: turn into the command, with a process group of its own and default
    signals, to be killed when the guard dies. Writes to `failure` why it could not."""
    try:
        os.setpgid(0, 0)
        _die_with_guard(guard)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except BaseException as error:
        os.write(failure, str(error).encode())
    os._exit(127)


def _die_with_guard(guard: int) -> None:
    """On Linux, make the kernel kill this process when the guard dies."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:  # the guard died before the call above
        os._exit(1)


def _release_output() -> None:
    """Close the guard's copies of stdout and stderr, so that a reader of the command's output sees
    end of file when the command ends."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)


def _watch(owner: int, owner_pid: int, wakeups: int, pid: int, stay: bool) -> tuple[bool, bool]:
    """Wait until the owner or the command ends; with `stay`, for the folder, only for the owner.

    Returns whether the command still runs, and whether the owner asked to keep the folder. SIGTERM
    sent to the guard counts as the owner's end.
    """
    poll = select.poll()
    poll.register(owner, select.POLLIN)
    poll.register(wakeups, select.POLLIN)
    running, keep = True, False
    while running or stay:
        ready = {fd for fd, _ in poll.poll(CHECK_PARENT_EVERY_S * 1000)}
        if wakeups in ready and signal.SIGTERM in os.read(wakeups, 512):
            break
        if running and (code := _reap(pid)) is not None:
            running = False
            _send(owner, f"exit {code}")
        if owner in ready:
            received = _receive(owner)
            if not received:
                break
            keep = keep or b"keep" in received
        if os.getppid() != owner_pid:
            break
    return running, keep


def _receive(owner: int) -> bytes:
    try:
        return os.read(owner, 512)
    except OSError:
        return b""


def _send(owner: int, line: str) -> None:
    with contextlib.suppress(OSError):  # the owner may be gone
        os.write(owner, f"{line}\n".encode())


def _reap(pid: int) -> int | None:
    """Returns the command's exit code if it has ended, else None. Kills what it left in its process
    group."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        return None
    _signal_group(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def _end(pid: int, grace_s: float) -> None:
    """End the command's process group: TERM, then KILL after `grace_s`; without grace KILL only."""
    if grace_s > 0:
        _signal_group(pid, signal.SIGTERM)
        _signal_group(pid, signal.SIGCONT)  # a paused process sees TERM only when it continues
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
    """Delete `folder`, trying for a second: a dying process may still create files in it."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1:])
