"""A live worker to scrape: the demo's, with its services, its topics and its producer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from daemon.demo.environment import (
    create_scenario_topics,
    demo_environment,
    load_theta,
    theta_paths,
)
from daemon.demo.plan import Plan
from daemon.demo.processes import Processes

START_WITHIN_S = 60.0
BUSY_S = 120.0
"""Longer than any check takes, so that the worker has work throughout."""


@contextmanager
def demo_worker(note: Callable[[str], None]) -> Iterator[str]:
    """Runs the demo's worker of the tenants until the block ends, and gives its HTTP address.

    The address is HOST:PORT. Raises ServicesUnavailable, Unavailable, ProcessEnded, TimeoutError.
    """
    thetas = theta_paths({})
    with demo_environment(None, None, thetas, note) as environment:
        theta = load_theta("tenants", thetas["tenants"])
        create_scenario_topics(environment.settings_of("tenants"), theta)
        with Processes(environment.common) as processes:
            processes.start_worker("tenants", environment.variables_of("tenants"))
            address = _address(processes)
            note(f"the demo's worker serves {address}")
            plan = Plan(seconds=BUSY_S, events_per_language=0)
            processes.start("producer", environment.run_config(plan).to_json())
            yield address


def _address(processes: Processes) -> str:
    give_up_at = time.monotonic() + START_WITHIN_S
    while (url := processes.worker_url("tenants")) is None:
        processes.check()
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"the demo's worker opened no port within {START_WITHIN_S:g} s")
        time.sleep(0.1)
    return urlsplit(url).netloc
