"""The meta-inits topic by kafka-python: θs are published to it, listed, and fetched.

Theory of operation: the reader is a consumer in no group, on one partition, opened by the first
call and thrown away by the first error, so that the next call begins anew. `catalogue` reads only
what came since the last call. It asks for the topic's id each time: where that is another one, and
after every error, during which a broker may have been restored from an older copy, it reads the
topic from its beginning. Values are megabytes each, so none is kept: the catalogue knows their
offsets, and `fetch` reads the one that is wanted from there. Each `write` opens a producer of its
own, for θs are written rarely. All calls block, and come from the thread of whoever follows θs,
never from the loop's. Reading may be repeated at will; writing the same version again replaces it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, MessageSizeTooLargeError

from daemon.adapters.kafka_limits import CLOSE_TIMEOUT_S
from daemon.adapters.kafka_python.client import (
    QUIET,
    connect,
    described_topic,
    kafka_errors_translated,
)
from daemon.adapters.kafka_python.groupless import close_consumer, groupless_consumer
from daemon.adapters.kafka_python.mended import close_at_once
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.config import Settings
from daemon.errors import Misconfigured, Unavailable
from daemon.wire.catalogue import Catalogue, PublishedTheta
from daemon.wire.meta_init import with_record
from daemon.wire.record import Headers, RawRecord
from daemon.wire.topics import ENVELOPE_BYTES, meta_inits_spec

POLL_MS = 500
PATIENCE_S = 20.0
"""How long nothing may come while the topic's end is not reached: a θ may be large."""
WRITE_TIMEOUT_S = 60.0


class KafkaPythonMetaInits:
    """The MetaInits port on a KafkaConsumer and a KafkaProducer. Connects when first asked."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._tp = TopicPartition(settings.kafka_meta_inits_topic, 0)
        self._consumer: Any = None
        self._admin: Any = None
        self._topic_id = ""
        self._next = 0
        self._catalogue = Catalogue()

    def catalogue(self) -> Catalogue:
        """See MetaInits."""
        with self._reading("read the θs") as consumer:
            topic = described_topic(self._admin, self._tp.topic)
            if topic is None:
                self._begin_anew("")
                return Catalogue(exists=False)
            if (topic_id := str(topic["topic_id"])) != self._topic_id:
                self._begin_anew(topic_id)
            consumer.assign([self._tp])
            end = consumer.end_offsets([self._tp], self._settings.kafka_timeout_ms)[self._tp]
            if end < self._next:  # its log was restored from an older copy
                self._begin_anew(topic_id)
            for record in self._records(consumer, self._next, end):
                self._catalogue = with_record(self._catalogue, record)
            self._next = end
        return self._catalogue

    def _begin_anew(self, topic_id: str) -> None:
        self._topic_id, self._next, self._catalogue = topic_id, 0, Catalogue()

    def fetch(self, published: PublishedTheta) -> bytes | None:
        """See MetaInits."""
        if published.nbytes > self._settings.meta_init_max_bytes:
            return None
        with self._reading(f"fetch θ {published.version}") as consumer:
            consumer.assign([self._tp])
            at = published.offset
            found = next(self._records(consumer, at, at + 1), None)
        if found is None or found.key != published.version.encode():
            return None
        value: bytes | None = found.value
        return value

    def _records(self, consumer: Any, start: int, end: int) -> Iterator[Any]:
        """Yields the records from offset `start` to before `end`; compaction may have left gaps,
        and what cannot be parsed is passed over.

        Raises Unavailable when none comes for PATIENCE_S.
        """
        consumer.seek(self._tp, start)
        silent_since = time.monotonic()
        while consumer.position(self._tp, self._settings.kafka_timeout_ms) < end:
            batch = consumer.poll(POLL_MS, max_records=1).get(self._tp, [])
            yield from (record for record in batch if record.offset < end and _is_whole(record))
            if batch:
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > PATIENCE_S:
                raise Unavailable("kafka", f"no θ came for {PATIENCE_S:g} s")

    @contextmanager
    def _reading(self, doing: str) -> Iterator[Any]:
        try:
            with kafka_errors_translated(doing):
                if self._consumer is None:
                    self._admin = connect(
                        KafkaAdminClient, self._settings, client_id=f"{self._client_id}-topic"
                    )
                    self._consumer = self._connect()
                yield self._consumer
        except (Unavailable, Misconfigured):
            self._close_clients()
            self._begin_anew("")
            raise

    def _connect(self) -> Any:
        largest = self._settings.meta_init_max_bytes + ENVELOPE_BYTES
        return groupless_consumer(
            self._settings,
            self._client_id,
            max_partition_fetch_bytes=largest,
            fetch_max_bytes=largest,
        )

    def write(self, key: str, value: bytes | None, headers: Headers = ()) -> None:
        """See MetaInits."""
        self._make_topic()
        size = len(value or b"") + ENVELOPE_BYTES
        timeout_ms = int(1000 * WRITE_TIMEOUT_S)
        with kafka_errors_translated("publish"):
            producer = connect(
                KafkaProducer,
                self._settings,
                **QUIET,
                request_timeout_ms=timeout_ms,
                client_id=self._client_id,
                acks="all",
                enable_idempotence=True,
                allow_auto_create_topics=False,
                max_request_size=size,
                max_block_ms=self._settings.kafka_timeout_ms,
                delivery_timeout_ms=2 * timeout_ms,
            )
        try:
            with kafka_errors_translated("publish"), self._fits(size):
                sent = producer.send(
                    self._tp.topic, value, key.encode(), headers=list(headers), partition=0
                )
                sent.get(2 * WRITE_TIMEOUT_S)
        finally:
            close_at_once(producer, CLOSE_TIMEOUT_S)

    @contextmanager
    def _fits(self, size: int) -> Iterator[None]:
        try:
            yield
        except MessageSizeTooLargeError as e:
            raise Misconfigured(
                f"topic {self._tp.topic!r} does not take a record of {size} bytes: raise its "
                "max.message.bytes (kafka-configs.sh --alter)"
            ) from e

    def _make_topic(self) -> None:
        topics = KafkaTopics(self._settings)
        try:
            topics.create(meta_inits_spec(self._settings))
        finally:
            topics.close()

    def _close_clients(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            with suppress(KafkaError, OSError):
                admin.close()
        consumer, self._consumer = self._consumer, None
        close_consumer(consumer)

    def close(self) -> None:
        """See MetaInits."""
        self._close_clients()


def _is_whole(record: object) -> bool:
    return not isinstance(record, RawRecord) or record.fault is None
