"""The producer's process: writes the plan's events to Kafka at a steady rate.

python -m daemon.demo.producer RUN_CONFIG
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from kafka import KafkaProducer

from daemon.adapters.kafka_python.client import QUIET, connection_arguments
from daemon.demo.plan import Plan, PlannedEvent, read_run_config, record_value, schedule
from daemon.demo.reports import EventsProduced, MalformedProduced, ProducerFinished, send_report
from daemon.demo.scenarios import SCENARIOS, ScenarioName
from daemon.wire.paired_event import CONTENT_TYPE, MSGPACK

REPORT_EVERY_S = 0.25
ACKNOWLEDGED_WITHIN_S = 20.0

Send = Callable[[PlannedEvent], Any]
"""Hands an event to Kafka; returns kafka-python's future of the acknowledgement."""


def main() -> None:
    """Produce everything, and report each stream's last offset."""
    run = read_run_config(sys.argv[1])
    settings = {scenario: run.settings_of(scenario) for scenario in SCENARIOS}
    scenarios = run.plan.scenarios()
    producer = KafkaProducer(
        **connection_arguments(settings["tenants"]),
        **QUIET,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
    )

    def send(planned: PlannedEvent) -> Any:
        return producer.send(
            settings[planned.scenario].kafka_events_topic,
            key=planned.stream.encode(),
            value=record_value(scenarios[planned.scenario], planned),
            headers=[(CONTENT_TYPE, MSGPACK.encode())],
        )

    send_report(produce(run.plan, send))
    producer.close(ACKNOWLEDGED_WITHIN_S)


def produce(plan: Plan, send: Send) -> ProducerFinished:
    """Send each event when it is due; returns the report of the end.

    Waits for Kafka's acknowledgement of each malformed event and, at the end, of all good ones.
    """
    sent: Counter[ScenarioName] = Counter()
    last: dict[ScenarioName, dict[str, Any]] = {scenario: {} for scenario in SCENARIOS}
    started_at = reported_at = time.monotonic()
    for planned in schedule(plan):
        time.sleep(max(0.0, started_at + planned.due_s - time.monotonic()))
        future = send(planned)
        if planned.malformed is not None:
            send_report(_malformed_produced(planned, future))
            continue
        sent[planned.scenario] += 1
        last[planned.scenario][planned.stream] = future
        if time.monotonic() - reported_at > REPORT_EVERY_S:
            reported_at = time.monotonic()
            send_report(EventsProduced(dict(sent)))
    offsets = {scenario: _offsets(futures) for scenario, futures in last.items()}
    return ProducerFinished(dict(sent), offsets)


def _offsets(futures: dict[str, Any]) -> dict[str, int]:
    return {name: future.get(ACKNOWLEDGED_WITHIN_S).offset for name, future in futures.items()}


def _malformed_produced(planned: PlannedEvent, future: Any) -> MalformedProduced:
    assert planned.malformed is not None
    acknowledged = future.get(ACKNOWLEDGED_WITHIN_S)
    return MalformedProduced(
        scenario=planned.scenario,
        partition=acknowledged.partition,
        offset=acknowledged.offset,
        description=planned.malformed.description,
        reason=planned.malformed.reason,
    )


if __name__ == "__main__":
    main()
