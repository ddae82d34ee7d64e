"""A partition that its broker does not send stops no other.

Symptom without this: while the broker answers the fetch of one partition by an error (as
CORRUPT_MESSAGE, where the file of its log was cut), or by less than one batch, `poll` raises, again
and again, and brings next to nothing of the other partitions. Seen in 3.0.12.

Theory of operation: the fetcher parses what it has fetched of each partition in one call, on the
thread that polls, and that call is an attribute, so a consumer can be given another. Where it
raises, this one pauses the partition for HOLD_S and says that nothing has come. So the partition's
position stays, its lag and the age of its oldest event grow, and AdaptdPartitionStuck names it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from daemon.adapters.kafka_python.client import REFUSALS

HOLD_S = 5.0
"""How long a partition is left alone before it is asked for again."""

log = logging.getLogger("adaptd.kafka")


class Unsent:
    """The partitions of one consumer that their brokers do not send."""

    def __init__(self, consumer: KafkaConsumer, now: Callable[[], float] = time.monotonic) -> None:
        """To be made before the consumer's first poll; `now` is in monotonic seconds."""
        self._consumer, self._now = consumer, now
        self._until: dict[TopicPartition, float] = {}
        self._last: KafkaError | None = None
        self._told: dict[TopicPartition, int] = {}
        fetcher = consumer._fetcher
        self._parse = fetcher._parse_fetched_data
        fetcher._parse_fetched_data = self._parsed

    def __contains__(self, tp: TopicPartition) -> bool:
        return tp in self._until

    def resume(self, *, at_once: bool = False) -> None:
        """Has the partitions asked for again whose time has come, or all. To be called before a
        poll."""
        now = self._now()
        for tp, until in list(self._until.items()):
            if at_once or now >= until:
                del self._until[tp]
                with suppress(KeyError):  # it is not ours any more
                    self._consumer.resume(tp)

    def raise_if_all(self) -> None:
        """Raises the client's last error when every partition that is assigned is left alone: then
        it is the brokers that do not answer. To be called after a poll."""
        if not self._until or self._last is None:
            return
        assigned = self._consumer.assignment()
        if assigned and assigned <= self._until.keys():
            raise self._last

    def _parsed(self, fetched: Any) -> Any:
        try:
            return self._parse(fetched)
        except tuple(REFUSALS):
            raise
        except KafkaError as e:
            self._hold(fetched.topic_partition, fetched.fetched_offset, e)
            return None

    def _hold(self, tp: TopicPartition, offset: int, error: KafkaError) -> None:
        with suppress(KeyError):  # it was taken away meanwhile
            self._consumer.pause(tp)
            self._until[tp], self._last = self._now() + HOLD_S, error
            if self._told.get(tp) != offset:
                self._told[tp] = offset
                log.warning(
                    "%s-%d cannot be read at offset %d: %s; it is asked for every %g s",
                    *(tp.topic, tp.partition, offset, error, HOLD_S),
                )
