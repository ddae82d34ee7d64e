"""Data folders that are deleted in every case, if need be by the next run.

A folder's owner holds a lock on a file in it. Its guard deletes it when the owner ends; should
guard and owner both be killed with SIGKILL, the kernel frees the lock, and whoever makes the next
folder deletes this one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from daemon.local.errors import ServicesUnavailable
from daemon.local.guard import remove_folder

LOCK = ".owner"


@dataclass
class DataFolder:
    path: Path
    _lock_fd: int

    def unlock(self) -> None:
        os.close(self._lock_fd)


def new_data_folder(name: str, parent: Path | None = None) -> DataFolder:
    """A new folder with an unused name, owned by this process until `unlock`."""
    parent = parent or private_folder(Path(tempfile.gettempdir()) / f"adaptd-{os.getuid()}")
    with locked(parent / ".lock"):
        _delete_ownerless(parent)
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
        return DataFolder(path, _own(path))


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time; the kernel unlocks when a process ends, so no lock is ever stale."""
    fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def private_folder(path: Path) -> Path:
    """`path`, made if need be; its name can be guessed, so another user's is refused."""
    path.mkdir(mode=0o700, exist_ok=True)
    if path.lstat().st_uid != os.getuid():
        raise ServicesUnavailable(
            f"{path} belongs to another user; set TMPDIR to a folder of yours"
        )
    return path


def _own(folder: Path) -> int:
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def _delete_ownerless(parent: Path) -> None:
    for folder in parent.iterdir():
        if folder.is_dir() and not _has_owner(folder):
            remove_folder(str(folder))


def _has_owner(folder: Path) -> bool:
    try:
        os.close(_own(folder))
    except BlockingIOError:
        return True
    except OSError:  # its guard is deleting it at this moment
        return False
    return False
