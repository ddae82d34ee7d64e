"""Lines of a file of any size, of which some may be too long to be held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO


def bounded_lines(file: IO[bytes], max_bytes: int) -> Iterator[tuple[str, bytes | None]]:
    """Yields (place, line) of every line that is not blank, with None for a line of more than
    `max_bytes`."""
    number = 0
    while line := file.readline(max_bytes + 2):
        number += 1
        too_long = len(line) > max_bytes + 1 or not (line.endswith(b"\n") or len(line) <= max_bytes)
        while too_long and not line.endswith(b"\n") and line:
            line = file.readline(max_bytes)
        if too_long:
            yield f"line {number}", None
        elif line.strip():
            yield f"line {number}", line
