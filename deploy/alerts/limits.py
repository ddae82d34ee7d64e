"""A limit of memory for a process that runs, by cgroups of the first or second version."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
NAME = "adaptd-alerts-check"


@cache
def refusal() -> str:
    """Returns why this process may not make cgroups; empty when it may."""
    try:
        _group("memory", "probe").rmdir()
    except OSError as e:
        return f"{e.strerror}: {e.filename}"
    return ""


def limit_memory(pid: int, used: float) -> None:
    """Gives a process a limit of which it uses this share. What it has taken already counts in the
    group that it came from, so the kernel kills nothing. Raises OSError."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    limit = int(pages * os.sysconf("SC_PAGE_SIZE") / used)
    folder = _group("memory", str(pid))
    name = "memory.max" if _is_second() else "memory.limit_in_bytes"
    (folder / name).write_text(str(limit))
    _move(pid, folder)


def remove_groups() -> None:
    """Removes the groups whose processes have ended. Never raises."""
    for folder in {*MOUNT.glob(f"{NAME}-*"), *MOUNT.glob(f"*/{NAME}-*")}:
        with suppress(OSError):
            folder.rmdir()


def _is_second() -> bool:
    return (MOUNT / "cgroup.controllers").exists()


def _group(controller: str, name: str) -> Path:
    folder = (MOUNT if _is_second() else MOUNT / controller) / f"{NAME}-{name}"
    folder.mkdir(exist_ok=True)
    if not any(folder.glob(f"{controller}.*")):
        folder.rmdir()
        raise OSError(0, f"no controller {controller}", str(folder))
    return folder


def _move(pid: int, folder: Path) -> None:
    (folder / "cgroup.procs").write_text(str(pid))
