"""A producer that keeps to a timetable, as a process of its own.

Each event's timestamp is the time it was due, not the time it got away: if the machine holds the
producer up, the wait counts as latency.

    python -m benchmarks.worker.paced SERVERS TOPIC RATE FIRST COUNT WORKLOAD...
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence

from benchmarks.worker.topics import FLUSH_S, producer, send
from benchmarks.worker.workload import Workload

TICK_S = 0.002
"""A wake-up for every event would keep a core busy that the worker could use."""
LEAD_S = 0.2
"""Before the first event is due, so that the start is on time."""


def main(arguments: Sequence[str]) -> None:
    """Send, then say on stdout when the first event was due and how late the latest was."""
    servers, topic, rate, first, count, *workload = arguments
    events = list(Workload(*map(int, workload)).events(int(first), int(count)))
    sender = producer(servers)
    sender.partitions_for(topic)  # fetches what the first send would wait for
    start, late_s = time.time() + LEAD_S, 0.0
    for i, event in enumerate(events):
        due = start + i / float(rate)
        while (now := time.time()) < due:
            time.sleep(max(TICK_S, due - now))
        late_s = max(late_s, now - due)
        send(sender, topic, event, int(due * 1000))
    sender.flush(FLUSH_S)
    sender.close(FLUSH_S)
    print(json.dumps({"start_ms": start * 1000, "late_ms": 1000 * late_s}))  # noqa: T201 - its result


def arguments(
    servers: str, topic: str, rate: float, first: int, count: int, workload: Workload
) -> list[str]:
    """For `main`."""
    of_workload = map(str, dataclasses.astuple(workload))
    return [servers, topic, str(rate), str(first), str(count), *of_workload]


if __name__ == "__main__":
    main(sys.argv[1:])
