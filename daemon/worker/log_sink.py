"""Where log lines go. A worker does its work whether or not anybody reads its log: a line that
cannot be written is counted and lost.

A pipe whose reader sleeps would hold the loop's thread, and with it every stream, for as long as
the reader sleeps. So each write first asks whether there is room, and waits for it no longer than
PATIENCE_S, and not at all while the line before was lost too.
"""

from __future__ import annotations

import os
import select
from threading import Lock
from typing import TextIO

PATIENCE_S = 0.5
"""How long a line waits for a reader that is only slow."""
MAX_LINE_BYTES = 64 * 1024
"""A longer line is cut."""


class LogSink:
    """Writes text to a stream, and never raises or blocks for long."""

    def __init__(self, stream: TextIO | None) -> None:
        """A stream of None is one that was closed before the process began."""
        self._stream = stream
        self._lock = Lock()
        self._blocked = False
        self._torn = False
        self.lost_lines = 0
        """How many lines could not be written whole."""

    def isatty(self) -> bool:
        """Returns whether a person reads it."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def write(self, text: str) -> None:
        """Writes the text, or counts it as lost. May be called from any thread."""
        with self._lock:
            try:
                self._write(text)
            except (OSError, ValueError):  # gone, full, or closed
                self.lost_lines += 1

    def flush(self) -> None:
        """Does nothing: every write reaches the system at once."""

    def _write(self, text: str) -> None:
        if self._stream is None:
            raise ValueError("there is no stderr")
        data = text.encode(errors="backslashreplace")
        if len(data) > MAX_LINE_BYTES:
            data = data[:MAX_LINE_BYTES] + "…\n".encode()
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):  # no file of the system's, but some object that takes text
            self._stream.write(data.decode())
            return
        self._write_to(descriptor, data)

    def _write_to(self, descriptor: int, data: bytes) -> None:
        room = select.poll()
        room.register(descriptor, select.POLLOUT)
        left = b"\n" + data if self._torn else data  # ends a line that was cut short
        wait_ms = 0 if self._blocked else int(1000 * PATIENCE_S)
        while left:
            self._blocked = not room.poll(wait_ms)
            if self._blocked:
                raise BlockingIOError("nobody reads the log")
            # what a pipe with room takes without blocking
            written = os.write(descriptor, left[: select.PIPE_BUF])
            left = left[written:]
            self._torn = bool(left)
