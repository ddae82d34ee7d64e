"""`adaptd demo`: everything for real on this machine, in under 90 seconds. Start reading here.

Real Kafka and Valkey; two workers, of which one maps pictures to tenants' vectors and one pictures
to names; a producer, a subscriber and a scraper; a summary, and exit code 0 only if all that the
demo promises was seen to be true.
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
from daemon.demo.part import PARTS, PartName
from daemon.demo.places import Place, make_topics, place
from daemon.demo.plan import Plan
from daemon.demo.processes import ProcessEnded, Processes
from daemon.demo.screen import summary_screen
from daemon.demo.thetas import load_theta, paths
from daemon.demo.verdict import Summary, summarise
from daemon.errors import Unavailable
from daemon.local.errors import ServicesUnavailable
from daemon.local.foreground import Interrupted, signals_interrupt

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
    names_meta_init: Path | None = None


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
        chosen = paths({"tenants": options.meta_init, "names": options.names_meta_init})
        thetas = {part: load_theta(part, path) for part, path in chosen.items()}
        with place(options.kafka, options.redis, chosen, self._say) as here:
            self._say(f"services: {here.description}")
            for part, theta in thetas.items():
                self._say(f"θ of the {part}: {theta.version}")
                make_topics(here.settings_of(part), theta)
            faults = self._play(here)
            seconds = time.monotonic() - self._started_at
        summary = summarise(self._board, here.description, seconds, faults)
        self._console.print(summary_screen(summary, self._board), highlight=False)
        return summary

    def _play(self, here: Place) -> list[str]:
        """What went wrong besides the verdict's conditions; at best nothing."""
        display = display_on(self._console)
        try:
            with Processes(here.environment) as processes:
                self._say("starting two workers and a subscriber ...")
                _Play(here, processes, self._board, self._watch(display, here)).play()
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

    place: Place
    processes: Processes
    board: Board
    refresh: Callable[[], None]

    def play(self) -> None:
        """Raises ProcessEnded, TimedOut."""
        plan = self.board.plan
        script = self.place.script(plan).to_json()
        for part in PARTS:
            self.processes.start_worker(part, self.place.environment_of(part))
        self.processes.start("subscriber", script)
        self.processes.start("scraper", msgspec.json.encode(self._urls()).decode())
        self._until(lambda: None if self.board.ready else "the workers to be ready", READY_WITHIN_S)
        self.processes.start("producer", script)
        self._until(self.board.missing, plan.seconds + COMPLETE_WITHIN_S)
        self.processes.stop_workers()

    def _urls(self) -> dict[PartName, str]:
        url = self.processes.url
        missing = "the workers' logs to say their ports"
        self._until(lambda: None if all(map(url, PARTS)) else missing, READY_WITHIN_S)
        return {part: url(part) or "" for part in PARTS}

    def _until(self, missing: Callable[[], str | None], within_s: float) -> None:
        give_up_at = time.monotonic() + within_s
        while (waiting_for := missing()) is not None:
            if time.monotonic() > give_up_at:
                raise TimedOut(f"waited {within_s:.0f} s in vain for {waiting_for}")
            for news in self.processes.news(NEWS_WAIT_S):
                self.board.take(news)
            self.processes.check()
            self.refresh()
