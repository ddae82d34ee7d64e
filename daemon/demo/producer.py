"""The producer's process: replays the plan's events into Kafka at a steady rate.

python -m daemon.demo.producer SCRIPT
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from kafka import KafkaProducer

from daemon.adapters.kafka_python.client import QUIET, connection_arguments
from daemon.demo.news import Finished, Injected, Produced, tell
from daemon.demo.part import PARTS, PartName
from daemon.demo.plan import Plan, Planned, record_value, schedule
from daemon.demo.script import read_script
from daemon.wire.paired_event import CONTENT_TYPE, MSGPACK

TELL_EVERY_S = 0.25
ACKNOWLEDGED_WITHIN_S = 20.0

Send = Callable[[Planned], Any]


def main() -> None:
    """Produce everything, then say each stream's last offset."""
    script = read_script(sys.argv[1])
    settings = {part: script.settings_of(part) for part in PARTS}
    parts = script.plan.parts()
    producer = KafkaProducer(
        **connection_arguments(settings["tenants"]),
        **QUIET,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
    )

    def send(planned: Planned) -> Any:
        return producer.send(
            settings[planned.part].kafka_events_topic,
            key=planned.stream.encode(),
            value=record_value(parts[planned.part], planned),
            headers=[(CONTENT_TYPE, MSGPACK.encode())],
        )

    tell(replay(script.plan, send))
    producer.close(ACKNOWLEDGED_WITHIN_S)


def replay(plan: Plan, send: Send) -> Finished:
    """Send each record when it is due, waiting for none but the malformed ones."""
    sent: Counter[PartName] = Counter()
    last: dict[PartName, dict[str, Any]] = {part: {} for part in PARTS}
    started_at = told_at = time.monotonic()
    for planned in schedule(plan):
        time.sleep(max(0.0, started_at + planned.due_s - time.monotonic()))
        future = send(planned)
        if planned.malformed is not None:
            tell(_injected(planned, future))
            continue
        sent[planned.part] += 1
        last[planned.part][planned.stream] = future
        if time.monotonic() - told_at > TELL_EVERY_S:
            told_at = time.monotonic()
            tell(Produced(dict(sent)))
    return Finished(dict(sent), {part: _offsets(futures) for part, futures in last.items()})


def _offsets(futures: dict[str, Any]) -> dict[str, int]:
    return {name: future.get(ACKNOWLEDGED_WITHIN_S).offset for name, future in futures.items()}


def _injected(planned: Planned, future: Any) -> Injected:
    assert planned.malformed is not None
    place = future.get(ACKNOWLEDGED_WITHIN_S)
    what, reason = planned.malformed.what, planned.malformed.reason
    return Injected(planned.part, place.partition, place.offset, what, reason)


if __name__ == "__main__":
    main()
