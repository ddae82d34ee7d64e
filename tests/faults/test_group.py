"""Joining the group: a worker that has joined gets to know."""

from __future__ import annotations

import time

import pytest
from kafka import KafkaAdminClient

from daemon.adapters.kafka_python.source import KafkaPythonEventSource
from tests.faults.conftest import Install
from tests.faults.lab import Installation


@pytest.mark.parametrize("poll_s", [0.001, 0.004])
def test_joins_that_outlast_a_poll_are_taken_in(install: Install, poll_s: float) -> None:
    """kafka-python 3.0.12 forgets a join that a change of metadata began, if a poll ends before
    the join does: no partitions, no heartbeat, for ever. Short polls make that likely, at the
    start (metadata come late) and when a topic gets more partitions."""
    lab = install(partitions=3)
    for attempt in range(5):
        source = KafkaPythonEventSource(lab.settings, f"member-{attempt}")
        try:
            assert assigned(source, 3, poll_s) == {0, 1, 2}
        finally:
            source.close()
    source = KafkaPythonEventSource(lab.settings, "member-last")
    other = KafkaPythonEventSource(lab.settings, "member-other")
    try:
        both(source, other, 3, poll_s)
        add_partitions(lab, 6)
        source._consumer._client.cluster.request_update()
        other._consumer._client.cluster.request_update()
        both(source, other, 6, poll_s)
    finally:
        source.close()
        other.close()


def assigned(source: KafkaPythonEventSource, count: int, poll_s: float) -> set[int]:
    mine: set[int] = set()
    give_up_at = time.monotonic() + 12
    while len(mine) < count and time.monotonic() < give_up_at:
        polled = source.poll(poll_s, 10)
        mine = (mine | polled.assigned) - polled.revoked
    return mine


def both(
    one: KafkaPythonEventSource, other: KafkaPythonEventSource, count: int, poll_s: float
) -> None:
    give_up_at = time.monotonic() + 12
    while len(one._consumer.assignment() | other._consumer.assignment()) < count or not (
        one._consumer.assignment() and other._consumer.assignment()
    ):
        assert time.monotonic() < give_up_at, (
            one._consumer.assignment(),
            other._consumer.assignment(),
        )
        one.poll(poll_s, 10)
        other.poll(poll_s, 10)


def add_partitions(lab: Installation, total: int) -> None:
    with KafkaAdminClient(bootstrap_servers=lab.kafka) as admin:
        admin.create_partitions({lab.settings.kafka_events_topic: total})
