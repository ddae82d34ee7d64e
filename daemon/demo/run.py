"""`adaptd demo`: everything for real on this machine, in under 90 seconds. Start reading here.

Real Kafka and Valkey; a producer, the daemon, a subscriber and a scraper as four processes; a
summary, and exit code 0 only if all that the demo promises was seen to be true.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from daemon.demo.board import Board
from daemon.demo.display import Display, display_on
from daemon.demo.places import Place, make_topics, place
from daemon.demo.plan import Plan
from daemon.demo.processes import ProcessEnded, Processes
from daemon.demo.screen import summary_table
from daemon.demo.verdict import Summary, summarise
from daemon.errors import Misconfigured, Unavailable
from daemon.local.errors import ServicesUnavailable
from daemon.local.interrupts import Interrupted, signals_interrupt
from model.data.emoji import LOW_RANK_DIM
from model.errors import BadMetaInit
from model.meta_init import MetaInit, load, shipped

READY_WITHIN_S = 60.0
COMPLETE_WITHIN_S = 60.0
"""Besides the time that the producer is meant to take: a busy machine may be slower."""
NO_TERMINAL_WIDTH = 100
NEWS_WAIT_S = 0.05
OK, FAILED = 0, 1


@dataclass(frozen=True, slots=True)
class Options:
    """The command's options."""

    plan: Plan
    json: bool = False
    kafka: str | None = None
    redis: str | None = None
    meta_init: Path | None = None


class TimedOut(Exception):
    """Something did not happen in time."""


def demo(options: Options) -> int:
    """Run it; the exit code. Raises Misconfigured before anything is started."""
    console = Console(stderr=options.json)
    if not console.is_terminal:
        console.width = NO_TERMINAL_WIDTH
    try:
        with signals_interrupt():
            summary = _Run(options, console).run()
    except Interrupted as e:
        console.print("interrupted: everything that was started has been stopped")
        return 128 + e.number
    except (ServicesUnavailable, Unavailable) as e:
        console.print(f"no demo without services: {e}", style="red", markup=False)
        return FAILED
    if options.json:
        sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
    return OK if summary.ok else FAILED


class _Run:
    """One run: what all its steps share."""

    def __init__(self, options: Options, console: Console) -> None:
        self._options, self._console = options, console
        self._board = Board(options.plan)
        self._started_at = time.monotonic()

    def run(self) -> Summary:
        """Services, topics, processes; then wait, stop the daemon, and judge."""
        options = self._options
        theta = _theta(options.meta_init or shipped())
        with place(options.kafka, options.redis, options.meta_init, self._say) as here:
            self._say(f"services: {here.description}")
            self._say(f"θ: {theta.version}")
            make_topics(here.settings, theta)
            faults = self._play(here)
            seconds = time.monotonic() - self._started_at
        summary = summarise(self._board, here.description, seconds, faults)
        self._console.print(summary_table(summary, self._board), highlight=False)
        return summary

    def _play(self, here: Place) -> list[str]:
        """What went wrong besides the verdict's conditions; at best nothing."""
        display = display_on(self._console)
        try:
            with Processes(here.environment) as processes:
                self._say("starting the daemon and a subscriber ...")
                _Play(self._options.plan, processes, self._board, self._watch(display, here)).play()
        except (ProcessEnded, TimedOut) as e:
            return [str(e)]
        finally:
            display.close()
        return []

    def _watch(self, display: Display, here: Place) -> Callable[[], None]:
        def refresh() -> None:
            seconds = time.monotonic() - self._started_at
            display.refresh(self._board, here.description, seconds)

        return refresh

    def _say(self, line: str) -> None:
        self._console.print(line, style="dim", highlight=False, markup=False)


@dataclass(frozen=True, slots=True)
class _Play:
    """The processes' entrances and exits."""

    plan: Plan
    processes: Processes
    board: Board
    refresh: Callable[[], None]

    def play(self) -> None:
        """Raises ProcessEnded, TimedOut."""
        self.processes.start_daemon()
        self.processes.start("subscriber")
        self.processes.start("scraper", self._url())
        self._until(lambda: None if self.board.ready else "the daemon to be ready", READY_WITHIN_S)
        self.processes.start("producer", msgspec.json.encode(self.plan).decode())
        self._until(self.board.missing, self.plan.seconds + COMPLETE_WITHIN_S)
        self.processes.stop_daemon()

    def _url(self) -> str:
        self._until(
            lambda: None if self.processes.daemon_url() else "the daemon's log to say its port",
            READY_WITHIN_S,
        )
        return self.processes.daemon_url() or ""

    def _until(self, missing: Callable[[], str | None], within_s: float) -> None:
        give_up_at = time.monotonic() + within_s
        while (waiting_for := missing()) is not None:
            if time.monotonic() > give_up_at:
                raise TimedOut(f"waited {within_s:.0f} s in vain for {waiting_for}")
            for news in self.processes.news(NEWS_WAIT_S):
                self.board.take(news)
            self.processes.check()
            self.refresh()


def _theta(path: Path) -> MetaInit:
    """Raises Misconfigured unless it is a θ for the demo's events."""
    try:
        theta = load(path)
    except BadMetaInit as e:
        raise Misconfigured(f"--meta-init: {e}") from e
    maps = (theta.source_modality, theta.target_modality, theta.target_dim)
    if maps != ("image", "vector", LOW_RANK_DIM):
        raise Misconfigured(
            f"--meta-init: the demo maps image to vector ({LOW_RANK_DIM}), and θ {theta.version} "
            f"{maps[0]} to {maps[1]} ({maps[2]})"
        )
    return theta
