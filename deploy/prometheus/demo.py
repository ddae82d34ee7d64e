"""A live worker to scrape: the demo's, with its services, its topics and its producer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from daemon.demo.places import make_topics, place
from daemon.demo.plan import Plan
from daemon.demo.processes import Processes
from daemon.demo.thetas import load_theta, paths

START_WITHIN_S = 60.0
BUSY_S = 120.0
"""Longer than any check takes, so that the worker has work throughout."""


@contextmanager
def demo_worker(note: Callable[[str], None]) -> Iterator[str]:
    """Runs the demo's worker of the tenants until the block ends, and gives its HTTP address.

    The address is HOST:PORT. Raises ServicesUnavailable, Unavailable, ProcessEnded, TimeoutError.
    """
    thetas = paths({})
    with place(None, None, thetas, note) as here:
        make_topics(here.settings_of("tenants"), load_theta("tenants", thetas["tenants"]))
        with Processes(here.environment) as processes:
            processes.start_worker("tenants", here.environment_of("tenants"))
            address = _address(processes)
            note(f"the demo's worker serves {address}")
            plan = Plan(seconds=BUSY_S, events_per_language=0)
            processes.start("producer", here.script(plan).to_json())
            yield address


def _address(processes: Processes) -> str:
    give_up_at = time.monotonic() + START_WITHIN_S
    while (url := processes.url("tenants")) is None:
        processes.check()
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"the demo's worker opened no port within {START_WITHIN_S:g} s")
        time.sleep(0.1)
    return urlsplit(url).netloc
