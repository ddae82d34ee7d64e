"""Files that commands write: refused before the work begins, where that can be told, and with one
line in any case."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from daemon.errors import Misconfigured


def require_writable(*paths: Path | None) -> None:
    """Raises Misconfigured for the first path that no file can be written to; hours of work may
    lie between now and then."""
    for path in paths:
        if path is None:
            continue
        with writing(path):
            with suppress(FileNotFoundError):
                path.stat()  # raises for a name that no file can have
            if path.is_dir():
                raise IsADirectoryError("it is a folder")
            if not path.absolute().parent.is_dir():
                raise NotADirectoryError(f"there is no folder {path.absolute().parent}")
            if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
                raise PermissionError("permission denied")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises Misconfigured in place of what the system, or a name that it cannot have, raises."""
    try:
        yield
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or e
        raise Misconfigured(f"{path}: cannot be written: {why}") from e
