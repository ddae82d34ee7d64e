"""A Kafka and a Valkey for figures: patient where the tests' ones are quick to restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from daemon.local.kafka import start_kafka
from daemon.local.kafka_install import KAFKA_VERSION, Note
from daemon.local.services import Services
from daemon.local.valkey import redis_url, start_valkey

PATIENT = {"broker.session.timeout.ms": "30000", "broker.heartbeat.interval.ms": "2000"}
"""On a busy machine a heartbeat may be late by seconds; the controller must not take the only
broker out of service for that, and every partition with it."""


@contextmanager
def servers(note: Note) -> Iterator[Services]:
    """Both, for the length of the block."""
    with start_valkey() as valkey, start_kafka(properties=PATIENT, note=note) as kafka:
        where = f"Kafka {KAFKA_VERSION} at {kafka.address}, Valkey at {valkey.address}"
        yield Services(kafka.address, redis_url(valkey), "local", where, kafka, valkey)
