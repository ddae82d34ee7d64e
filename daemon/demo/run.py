"""`adaptd demo`: the whole of adaptd for real on this machine, in under 90 seconds. Start here.

A real Kafka and Valkey; two workers, one for each scenario (pictures to tenants' vectors, pictures
to names); a producer, a subscriber and a scraper. The exit code is 0 only if every check passes.

Reading order, from what is produced to what is shown:

    scenarios     the two scenarios' streams, pairs and malformed events
    plan          which events are produced, and when
    environment   services, θs and settings
    processes     starts the child processes and reads their reports
    reports       what the child processes report
    producer      writes the events
    subscriber    reads mappings, and scores each event with them
    scores        how an event is scored, and means of scores
    scraper       reads the workers' /readyz and /metrics
    progress      the state of the run, kept up to date by the reports
    summary       the result, and the checks that it must pass
    screen        what is shown; its tables are in `tables`
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from daemon.demo.environment import (
    DemoEnvironment,
    create_scenario_topics,
    demo_environment,
    load_theta,
    theta_paths,
)
from daemon.demo.plan import Plan
from daemon.demo.processes import ProcessEnded, Processes
from daemon.demo.progress import DemoProgress
from daemon.demo.scenarios import SCENARIOS, ScenarioName
from daemon.demo.screen import display_on, summary_screen
from daemon.demo.summary import Summary, summarise
from daemon.errors import Unavailable
from daemon.local.errors import ServicesUnavailable
from daemon.local.foreground import Interrupted, signals_interrupt

READY_WITHIN_S = 60.0
COMPLETE_WITHIN_S = 60.0
"""Beyond the time that the producer is planned to take, for busy machines."""
NO_TERMINAL_WIDTH = 100
REPORT_WAIT_S = 0.05
OK, FAILED = 0, 1


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of `adaptd demo`."""

    plan: Plan
    json: bool = False
    kafka: str | None = None
    redis: str | None = None
    meta_init: Path | None = None
    names_meta_init: Path | None = None


class TimedOut(Exception):
    """What the demo waited for did not happen in time."""


def run_demo(options: DemoOptions) -> int:
    """Runs the demo, prints its result, and returns the exit code.

    Raises Misconfigured, before anything is started.
    """
    console = Console(stderr=options.json)
    if not console.is_terminal:
        console.width = NO_TERMINAL_WIDTH
    try:
        with signals_interrupt():
            summary = _Demo(options, console).run()
    except Interrupted as e:
        console.print("interrupted: everything that was started has been stopped")
        return 128 + e.number
    except (ServicesUnavailable, Unavailable) as e:
        console.print(f"no demo without services: {e}", style="red", markup=False)
        return FAILED
    if options.json:
        sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
    return OK if summary.ok else FAILED


class _Demo:
    """One run from the options to the summary."""

    def __init__(self, options: DemoOptions, console: Console) -> None:
        self._options, self._console = options, console
        self._progress = DemoProgress(options.plan)
        self._started_at = time.monotonic()

    def run(self) -> Summary:
        """Starts services, creates topics, runs the processes, and judges what they reported."""
        options = self._options
        paths = theta_paths({"tenants": options.meta_init, "names": options.names_meta_init})
        thetas = {scenario: load_theta(scenario, path) for scenario, path in paths.items()}
        with demo_environment(options.kafka, options.redis, paths, self._say) as environment:
            self._say(f"services: {environment.services}")
            for scenario, theta in thetas.items():
                self._say(f"θ of the {scenario}: {theta.version}")
                create_scenario_topics(environment.settings_of(scenario), theta)
            faults = self._run_processes(environment)
            seconds = time.monotonic() - self._started_at
        summary = summarise(self._progress, environment.services, seconds, faults)
        self._console.print(summary_screen(summary, self._progress), highlight=False)
        return summary

    def _run_processes(self, environment: DemoEnvironment) -> list[str]:
        """Returns what went wrong while they ran; at best nothing."""
        display = display_on(self._console)

        def refresh() -> None:
            seconds = time.monotonic() - self._started_at
            display.refresh(self._progress, environment.services, seconds)

        try:
            with Processes(environment.common) as processes:
                self._say("starting two workers and a subscriber ...")
                _ProcessRun(environment, processes, self._progress, refresh).run()
        except (ProcessEnded, TimedOut) as e:
            return [str(e)]
        finally:
            display.close()
        return []

    def _say(self, line: str) -> None:
        self._console.print(line, style="dim", highlight=False, markup=False)


@dataclass(frozen=True, slots=True)
class _ProcessRun:
    """The order in which the processes start and stop."""

    environment: DemoEnvironment
    processes: Processes
    progress: DemoProgress
    refresh: Callable[[], None]

    def run(self) -> None:
        """Starts the processes, waits until everything has arrived, and stops the workers.

        Raises ProcessEnded, TimedOut.
        """
        plan = self.progress.plan
        config = self.environment.run_config(plan).to_json()
        for scenario in SCENARIOS:
            self.processes.start_worker(scenario, self.environment.variables_of(scenario))
        self.processes.start("subscriber", config)
        self.processes.start("scraper", msgspec.json.encode(self._worker_urls()).decode())
        self._wait_while(self.progress.not_ready, READY_WITHIN_S)
        self.processes.start("producer", config)
        self._wait_while(self.progress.missing, plan.seconds + COMPLETE_WITHIN_S)
        self.processes.stop_workers()

    def _worker_urls(self) -> dict[ScenarioName, str]:
        url = self.processes.worker_url

        def missing() -> str | None:
            return None if all(map(url, SCENARIOS)) else "the workers' logs to name their ports"

        self._wait_while(missing, READY_WITHIN_S)
        return {scenario: url(scenario) or "" for scenario in SCENARIOS}

    def _wait_while(self, missing: Callable[[], str | None], within_s: float) -> None:
        """Takes in reports until `missing` returns None. Raises ProcessEnded, TimedOut."""
        give_up_at = time.monotonic() + within_s
        while (waiting_for := missing()) is not None:
            if time.monotonic() > give_up_at:
                raise TimedOut(f"waited {within_s:.0f} s in vain for {waiting_for}")
            for report in self.processes.reports(REPORT_WAIT_S):
                self.progress.update(report)
            self.processes.check()
            self.refresh()
