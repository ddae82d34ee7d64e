"""Data folders that never stay behind: what nobody deletes now, the next run deletes.

The process that makes a folder holds a lock on a file in it. Normally that process or its guard
(guard.py) deletes the folder. When both are killed with SIGKILL, the kernel frees the lock, and
`new_data_folder` deletes every folder whose lock is free.
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
    """A folder that no other run uses or deletes until `unlock`."""

    path: Path
    _lock_fd: int
    kept: bool = False
    """Whether its files stay when its server is closed."""

    def unlock(self) -> None:
        """Give the folder up; call it when the folder has been deleted."""
        os.close(self._lock_fd)


def new_data_folder(name: str, parent: Path | None = None) -> DataFolder:
    """Returns a new, empty folder under `parent`, by default a private one of the temporary folder.

    Deletes the folders there whose owners have ended. Raises ServicesUnavailable when the private
    folder belongs to another user.
    """
    parent = parent or private_folder(Path(tempfile.gettempdir()) / f"adaptd-{os.getuid()}")
    with locked(parent / ".lock"):
        _delete_ownerless(parent)
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
        return DataFolder(path, _own(path))


def kept_data_folder(path: Path) -> DataFolder:
    """Returns the folder at `path`, made if it does not exist, whose files stay for later runs.

    Raises ServicesUnavailable when it cannot be made or another run uses it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return DataFolder(path, _own(path), kept=True)
    except BlockingIOError as e:
        raise ServicesUnavailable(f"{path} is in use by another run: name another folder") from e
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or e
        raise ServicesUnavailable(f"{path}: data cannot be kept there: {why}") from e


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold an exclusive lock on `file` for the block, waiting for other processes to release it.
    The kernel releases a process's locks when it ends, so that no lock outlives its holder."""
    fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def private_folder(path: Path) -> Path:
    """Returns `path`, made if it does not exist. Raises ServicesUnavailable when it belongs to
    another user, who may have guessed its name."""
    path.mkdir(mode=0o700, exist_ok=True)
    if path.lstat().st_uid != os.getuid():
        raise ServicesUnavailable(
            f"{path} belongs to another user; set TMPDIR to a folder of yours"
        )
    return path


def _own(folder: Path) -> int:
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
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
