"""Showing the demo while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console
from rich.live import Live

from daemon.demo.board import Board
from daemon.demo.screen import dead_letter_line, live, progress_line

REDRAW_EVERY_S = 0.2
LINE_EVERY_S = 3.0


class Display(Protocol):
    """Shows a board whenever it likes."""

    def refresh(self, board: Board, services: str, seconds: float) -> None:
        """`seconds` since the demo began."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def display_on(console: Console) -> Display:
    """The one that suits the console."""
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


class LiveDisplay:
    """Redraws one screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._drawn_at = float("-inf")
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def refresh(self, board: Board, services: str, seconds: float) -> None:
        """See Display."""
        if seconds - self._drawn_at < REDRAW_EVERY_S:
            return
        self._drawn_at = seconds
        self._live.start()
        self._live.update(live(board, services, seconds, self._console.height), refresh=True)

    def close(self) -> None:
        """See Display."""
        self._live.stop()


class PlainDisplay:
    """Writes a line now and then, and each dead letter when it comes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._written_at = float("-inf")
        self._letters = 0

    def refresh(self, board: Board, services: str, seconds: float) -> None:
        """See Display."""
        for letter in board.dead_letters[self._letters :]:
            self._write(str(dead_letter_line(letter)).strip())
        self._letters = len(board.dead_letters)
        if board.events_seen and seconds - self._written_at >= LINE_EVERY_S:
            self._written_at = seconds
            self._write(progress_line(board, seconds))

    def _write(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def close(self) -> None:
        """See Display."""
