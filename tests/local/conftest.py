"""How the tests of this folder look at processes from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Condition = Callable[[], bool]


@pytest.fixture
def eventually() -> Callable[[Condition], None]:
    def wait(condition: Condition) -> None:
        give_up_at = time.monotonic() + 10.0
        while not condition():
            assert time.monotonic() < give_up_at, "it did not happen within 10 s"
            time.sleep(0.02)

    return wait


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Whether a process lives; a zombie does not, it only waits to be reaped."""

    def check(pid: int) -> bool:
        try:
            os.kill(pid, 0)
            stat = Path(f"/proc/{pid}/stat").read_text()
        except ProcessLookupError:
            return False
        except FileNotFoundError:  # gone since, or no /proc here
            return not Path("/proc/self/stat").exists()
        return stat.rpartition(")")[2].split()[0] != "Z"

    return check
