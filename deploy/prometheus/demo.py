"""A live worker to scrape: the demo's, with its services, its topics and its producer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import msgspec

from daemon.demo.places import make_topics, place
from daemon.demo.plan import Plan
from daemon.demo.processes import Processes
from model.meta_init import load, shipped

START_WITHIN_S = 60.0
BUSY_S = 120.0
"""Longer than any check takes, so that the worker has work throughout."""


@contextmanager
def demo_worker(note: Callable[[str], None]) -> Iterator[str]:
    """Its HTTP address, HOST:PORT, for the length of the block.

    Raises ServicesUnavailable, Unavailable, ProcessEnded, TimeoutError.
    """
    with place(None, None, None, note) as here:
        make_topics(here.settings, load(shipped()))
        with Processes(here.environment) as processes:
            processes.start_daemon()
            address = _address(processes)
            note(f"the demo's worker serves {address}")
            processes.start("producer", msgspec.json.encode(Plan(seconds=BUSY_S)).decode())
            yield address


def _address(processes: Processes) -> str:
    give_up_at = time.monotonic() + START_WITHIN_S
    while (url := processes.daemon_url()) is None:
        processes.check()
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"the demo's worker opened no port within {START_WITHIN_S:g} s")
        time.sleep(0.1)
    return urlsplit(url).netloc
