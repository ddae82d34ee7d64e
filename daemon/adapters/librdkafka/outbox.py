"""Producing to Kafka by librdkafka: idempotently, acknowledged by all in-sync replicas.

Theory of operation: `send` runs on the loop's thread; librdkafka batches and sends on threads of
its own, and calls `_delivered` and `error_cb` back on the loop's thread, within `poll` and `flush`.
`send` blocks for `kafka_delivery_timeout_ms` and a second at most. A message may arrive although
`send` raised: the turn is then repeated and sends it again, so readers keep the largest (epoch,
version).
After a failure the producer is thrown away with what it still holds: that must not come behind what
the repeated turn sends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivered

from daemon.adapters.kafka_limits import BATCH_BYTES, BUFFER_BYTES, CLOSE_TIMEOUT_S, LINGER_MS
from daemon.adapters.librdkafka.client import BoundedCalls, Complaints, connection_properties
from daemon.config import Settings
from daemon.errors import Misconfigured, Unavailable
from daemon.wire.record import Message

SEND_BUFFER_BYTES = 1024 * 1024
"""Of the socket: a batch is larger than the system's default, and would wait for room in it several
times."""


class LibrdkafkaOutbox:
    """The Outbox port on a Producer. Raises Misconfigured when librdkafka refuses the settings; it
    connects in the background, so an absent broker shows at the first `send`.
    """

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._complaints = Complaints()
        self._failure: KafkaError | None = None
        self._producer: Producer | None = self._connect()

    def _connect(self) -> Producer:
        with self._complaints.translated("connect"):
            return Producer(
                connection_properties(self._settings, self._client_id)
                | _writing(self._settings)
                | {"error_cb": self._complaints.on_error, "on_delivery": self._delivered}
            )

    def _delivered(self, error: KafkaError | None, _: Delivered) -> None:
        """Notes the first failure. Called within polls, and only for messages that were not
        delivered (delivery.report.only.error)."""
        self._failure = self._failure or error

    def send(self, messages: Sequence[Message]) -> None:
        """See Outbox."""
        if self._producer is None:
            self._producer = self._connect()
        self._failure = None
        try:
            with self._complaints.translated("produce"):
                self._send(self._producer, messages)
        except (Unavailable, Misconfigured):
            self.close()
            raise
        except SystemError as e:
            # how confluent-kafka raises a fatal error of the producer while it reports deliveries:
            # brokers that were restored from an older copy know other sequence numbers
            self.close()
            raise Unavailable("kafka", f"produce: {e.__cause__}".replace("\n", " ")) from e

    def _send(self, producer: Producer, messages: Sequence[Message]) -> None:
        give_up_at = time.monotonic() + self._settings.kafka_delivery_timeout_ms / 1000 + 1
        for message in messages:
            self._enqueue(producer, message, give_up_at)
        left = producer.flush(max(0.0, give_up_at - time.monotonic()))
        if self._failure is not None:
            raise KafkaException(self._failure)
        if left:
            raise TimeoutError(f"{left} records are not acknowledged")

    def _enqueue(self, producer: Producer, m: Message, give_up_at: float) -> None:
        """Hands one message to librdkafka, waiting while its buffer is full."""
        while True:
            try:
                producer.produce(m.topic, m.value, m.key, headers=list(m.headers))
            except BufferError:
                if time.monotonic() > give_up_at:
                    raise TimeoutError("the buffer stays full") from None
                producer.poll(0.05)
            else:
                return

    def close(self) -> None:
        """See Outbox. What was sent is acknowledged by now, or to be given up. librdkafka ends its
        threads, and waits for them, when the last reference to the producer goes: so that happens
        in `_end`, on a thread of its own."""
        held, self._producer = [self._producer], None
        with suppress(KafkaException, OSError):
            BoundedCalls().run(lambda: _end(held), CLOSE_TIMEOUT_S)


def _end(held: list[Producer | None]) -> None:
    producer = held.pop()
    if producer is not None:
        producer.purge()
        producer.flush(0)


def _writing(settings: Settings) -> dict[str, Any]:
    return {
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",  # as kafka-python and Java: a key stays where it is
        "linger.ms": LINGER_MS,
        "batch.size": BATCH_BYTES,
        "socket.send.buffer.bytes": SEND_BUFFER_BYTES,
        "message.max.bytes": BUFFER_BYTES,  # the topic has the stricter limit
        "queue.buffering.max.kbytes": BUFFER_BYTES // 1024,
        "request.timeout.ms": settings.kafka_timeout_ms,
        "message.timeout.ms": settings.kafka_delivery_timeout_ms,
        "delivery.report.only.error": True,
    }
