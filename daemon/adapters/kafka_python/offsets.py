"""Where a consumer of kafka-python is, and where the log ends, without waiting for a broker."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.protocol.consumer import OffsetSpec


def positions(consumer: KafkaConsumer) -> dict[int, int]:
    """Returns the offset of the next fetch of each assigned partition of the consumer's one topic,
    where it is known. It passes what brings no record. (`KafkaConsumer.position` may ask a
    broker.)"""
    states = consumer._subscription.assignment
    found = {tp.partition: states.get(tp) for tp in consumer.assignment()}
    known = {p: state.position for p, state in found.items() if state is not None}
    return {p: position.offset for p, position in known.items() if position is not None}


def ask_ends(consumer: KafkaConsumer, tps: Collection[TopicPartition]) -> Future[dict[int, int]]:
    """Sends each leader one request for the ends of its partitions, from the client's IO thread.
    The future has them by partition, without those whose leader does not know; the end is that of
    the consumer's isolation level."""
    answer: Future[dict[int, int]] = Future()

    def heard(offsets_and_retries: Any) -> None:
        offsets, _ = offsets_and_retries
        answer.set_result({tp.partition: found.offset for tp, found in offsets.items()})

    fetcher = consumer._fetcher
    wanted = dict.fromkeys(tps, OffsetSpec.LATEST)
    asked = fetcher._manager.call_soon(fetcher._send_list_offsets_requests, wanted)
    asked.add_callback(heard)
    asked.add_errback(answer.set_exception)
    return answer
