"""The producer's process: replays the plan's events into Kafka at a steady rate.

python -m daemon.demo.producer PLAN        (JSON; ADAPTD_* settings as for the daemon)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
from kafka import KafkaProducer

from daemon import config
from daemon.adapters.kafka_client import QUIET, connection
from daemon.demo.news import Finished, Injected, Produced, tell
from daemon.demo.plan import Plan, Planned, record_value, schedule
from daemon.wire.paired_event import CONTENT_TYPE, MSGPACK

TELL_EVERY_S = 0.25
ACKNOWLEDGED_WITHIN_S = 20.0

Send = Callable[[Planned], Any]


def main() -> None:
    """Produce everything, then say each tenant's last offset."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    settings = config.load(None)
    producer = KafkaProducer(
        **connection(settings), **QUIET, acks="all", enable_idempotence=True, linger_ms=0
    )

    def send(planned: Planned) -> Any:
        return producer.send(
            settings.kafka_events_topic,
            key=planned.tenant.encode(),
            value=record_value(planned),
            headers=[(CONTENT_TYPE, MSGPACK.encode())],
        )

    tell(replay(plan, send))
    producer.close(ACKNOWLEDGED_WITHIN_S)


def replay(plan: Plan, send: Send) -> Finished:
    """Send each record when it is due, waiting for none but the malformed ones."""
    sent, last = 0, {}
    started_at = told_at = time.monotonic()
    for planned in schedule(plan):
        time.sleep(max(0.0, started_at + planned.due_s - time.monotonic()))
        future = send(planned)
        if planned.malformed is not None:
            tell(_injected(planned, future))
            continue
        sent += 1
        last[planned.tenant] = future
        if time.monotonic() - told_at > TELL_EVERY_S:
            told_at = time.monotonic()
            tell(Produced(sent))
    offsets = {name: future.get(ACKNOWLEDGED_WITHIN_S).offset for name, future in last.items()}
    return Finished(sent, offsets)


def _injected(planned: Planned, future: Any) -> Injected:
    assert planned.malformed is not None
    place = future.get(ACKNOWLEDGED_WITHIN_S)
    return Injected(place.partition, place.offset, planned.malformed.what, planned.malformed.reason)


if __name__ == "__main__":
    main()
