from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.local.process import GuardedProcess

Alive = Callable[[int], bool]
Eventually = Callable[[Callable[[], bool]], None]

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
IGNORES_TERM = [
    sys.executable,
    "-S",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); time.sleep(600)",
]


def test_the_exit_code_is_the_commands() -> None:
    with GuardedProcess(["sh", "-c", "exit 7"]) as process:
        assert process.wait(10) == process.returncode == 7


def test_output_goes_to_a_pipe_which_ends_with_the_command() -> None:
    with GuardedProcess(["sh", "-c", "echo $0 $$"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == f"sh {process.pid}\n".encode()


def test_a_command_that_does_not_exist_is_an_error_naming_it() -> None:
    with pytest.raises(OSError, match=r"cannot start \./no-such-command"):
        GuardedProcess(["./no-such-command"])


def test_waiting_has_a_timeout() -> None:
    with GuardedProcess(SLEEP) as process, pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)


def test_terminate_sends_term_first() -> None:
    with GuardedProcess(SLEEP) as process:
        assert process.terminate(10) == -signal.SIGTERM


def test_terminate_kills_what_ignores_term_after_the_grace() -> None:
    with GuardedProcess(IGNORES_TERM, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.terminate(0.2) == -signal.SIGKILL


def test_a_paused_command_can_be_terminated() -> None:
    with GuardedProcess(SLEEP) as process:
        process.pause()
        assert process.terminate(10) == -signal.SIGTERM


def test_ctrl_c_in_the_terminal_reaches_neither_command_nor_guard() -> None:
    with GuardedProcess(SLEEP) as process:
        ours = os.getpgrp()
        assert ours not in {os.getpgid(process.pid), os.getpgid(process.guard_pid)}
        assert os.getsid(process.pid) != os.getsid(0)


def test_sigint_ends_a_command_even_when_its_owner_ignores_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with GuardedProcess(["sleep", "600"]) as process:
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == -signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_the_command_leaves_running_ends_with_it(alive: Alive, eventually: Eventually) -> None:
    script = ["sh", "-c", "sleep 600 >/dev/null & echo $!"]
    with GuardedProcess(script, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        orphan = int(process.stdout.readline())
        process.wait(10)
        eventually(lambda: not alive(orphan))


def test_close_ends_command_and_guard_and_deletes_the_folder(tmp_path: Path, alive: Alive) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    process = GuardedProcess(SLEEP, remove=folder)
    process.close()
    process.close()
    assert not folder.exists()
    assert not alive(process.pid)
    assert not alive(process.guard_pid)


def test_the_folder_outlives_the_command_until_close(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with GuardedProcess(SLEEP, remove=folder) as process:
        process.kill()
        time.sleep(0.1)
        assert folder.exists()
    assert not folder.exists()


def test_hand_over_leaves_the_folder_to_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    first = GuardedProcess(SLEEP, remove=folder)
    first.kill()
    with GuardedProcess(SLEEP, remove=folder):
        first.hand_over()
        assert folder.exists()
    assert not folder.exists()


def test_a_killed_guard_takes_the_command_with_it(
    tmp_path: Path, alive: Alive, eventually: Eventually
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with GuardedProcess(SLEEP, remove=folder) as process:
        os.kill(process.guard_pid, signal.SIGKILL)
        eventually(lambda: not alive(process.pid))
        assert process.wait(10) == -signal.SIGKILL
    assert not folder.exists()


def test_what_a_command_started_ends_with_a_killed_guard(
    alive: Alive, eventually: Eventually
) -> None:
    script = ["sh", "-c", "sleep 600 >/dev/null & echo $!; wait"]
    with GuardedProcess(script, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        os.kill(process.guard_pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        eventually(lambda: not alive(grandchild))


OWNER = """
import os, signal, sys, time
from pathlib import Path
from daemon.local.process import GuardedProcess

# where the tests themselves were started in the background, SIGINT comes ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
how, folder = sys.argv[1], Path(sys.argv[2])
process = GuardedProcess(sys.argv[3:], remove=folder)
print(process.pid, process.guard_pid, flush=True)
if how == "exception":
    raise RuntimeError("on purpose")
if how == "forked":
    os.fork()
if how != "exit":
    time.sleep(600)
"""


@pytest.fixture
def owned(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], list[int]]]]:
    """Start an owner in a process of its own; it has a folder `data` and prints its two ids."""
    owners: list[subprocess.Popen[bytes]] = []

    def start(how: str, command: list[str]) -> tuple[subprocess.Popen[bytes], list[int]]:
        (tmp_path / "data").mkdir()
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, how, str(tmp_path / "data"), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        owners.append(owner)
        assert owner.stdout is not None
        return owner, [int(word) for word in owner.stdout.readline().split()]

    yield start
    for owner in owners:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(owner.pid, signal.SIGKILL)
        owner.communicate()


@pytest.mark.parametrize("how", ["exit", "exception", "SIGINT", "SIGTERM", "SIGKILL", "forked"])
def test_nothing_is_left_however_the_owner_ends(
    how: str,
    owned: Callable[..., tuple[subprocess.Popen[bytes], list[int]]],
    tmp_path: Path,
    alive: Alive,
    eventually: Eventually,
) -> None:
    owner, pids = owned(how, SLEEP)
    if how not in ("exit", "exception"):
        owner.send_signal(signal.SIGKILL if how == "forked" else signal.Signals[how])
    eventually(lambda: not any(map(alive, pids)))
    eventually(lambda: not (tmp_path / "data").exists())
