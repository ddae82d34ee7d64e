"""Notices that a partition is read over another connection than before."""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer


class Links:
    """The connections over which a consumer reads its partitions, as they were last looked at."""

    def __init__(self) -> None:
        self._links: dict[int, Any] = {}

    def changed(self, consumer: KafkaConsumer) -> frozenset[int]:
        """Returns the assigned partitions whose leader's connection has gone, or is another one,
        since the call before: their broker may have been restarted, with other data. To be called
        after a poll, and before its records count."""
        before, self._links = self._links, _links(consumer)
        return frozenset(
            p for p, link in before.items() if p in self._links and self._links[p] is not link
        )


def _links(consumer: KafkaConsumer) -> dict[int, Any]:
    cluster, connections = consumer._client.cluster, consumer._manager._conns
    return {
        tp.partition: connections.get(cluster.leader_for_partition(tp))
        for tp in consumer.assignment()
    }
