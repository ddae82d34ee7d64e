"""Times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def time_told(ms: int) -> str:
    """Returns a time (ms since 1970, UTC) to the second; a record may hold any number."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"
