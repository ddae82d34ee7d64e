"""The meta-inits topic by kafka-python: θs are published to it, listed, and fetched.

Theory of operation: `catalogue` reads only what came since the last call. Where the topic's id is
another one, and after every error, during which a broker may have been restored from an older copy,
it reads the topic from its beginning. Values are megabytes each, so none is kept: the catalogue
knows their offsets, and `fetch` reads the one that is wanted from there. Each `write` opens a
producer of its own, for θs are written rarely. All calls block, and come from the thread of whoever
follows θs, never from the loop's. Reading may be repeated at will; writing the same version again
replaces it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import KafkaProducer
from kafka.errors import MessageSizeTooLargeError

from daemon.adapters.kafka_limits import CLOSE_TIMEOUT_S
from daemon.adapters.kafka_python.client import QUIET, connect, kafka_errors_translated
from daemon.adapters.kafka_python.mended import close_at_once
from daemon.adapters.kafka_python.single_partition import SinglePartition
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.config import Settings
from daemon.errors import Misconfigured
from daemon.wire.catalogue import Catalogue, PublishedTheta
from daemon.wire.meta_init import with_record
from daemon.wire.record import Headers
from daemon.wire.topics import ENVELOPE_BYTES, meta_inits_spec

WRITE_TIMEOUT_S = 60.0


class KafkaPythonMetaInits:
    """The MetaInits port on a KafkaConsumer and a KafkaProducer. Connects when first asked."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._topic = settings.kafka_meta_inits_topic
        largest = settings.meta_init_max_bytes + ENVELOPE_BYTES
        self._partition = SinglePartition(
            settings,
            client_id,
            self._topic,
            max_partition_fetch_bytes=largest,
            fetch_max_bytes=largest,
        )
        self._topic_id, self._next, self._catalogue = "", 0, Catalogue()

    def catalogue(self) -> Catalogue:
        """See MetaInits."""
        with self._reading("read the θs"):
            topic_id = self._partition.topic_id()
            if topic_id is None:
                self._begin_anew("")
                return Catalogue(exists=False)
            end = self._partition.end()
            if topic_id != self._topic_id or end < self._next:  # restored from an older copy
                self._begin_anew(topic_id)
            for record in self._partition.records(self._next, end, at_once=1):
                self._catalogue = with_record(self._catalogue, record)
            self._next = end
        return self._catalogue

    def _begin_anew(self, topic_id: str) -> None:
        self._topic_id, self._next, self._catalogue = topic_id, 0, Catalogue()

    def fetch(self, published: PublishedTheta) -> bytes | None:
        """See MetaInits."""
        if published.nbytes > self._settings.meta_init_max_bytes:
            return None
        with self._reading(f"fetch θ {published.version}"):
            at = published.offset
            found = next(self._partition.records(at, at + 1, at_once=1), None)
        if found is None or found.key != published.version.encode():
            return None
        value: bytes | None = found.value
        return value

    @contextmanager
    def _reading(self, doing: str) -> Iterator[None]:
        try:
            with self._partition.opened(doing):
                yield
        except BaseException:
            self._begin_anew("")
            raise

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
                    self._topic, value, key.encode(), headers=list(headers), partition=0
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
                f"topic {self._topic!r} does not take a record of {size} bytes: raise its "
                "max.message.bytes (kafka-configs.sh --alter)"
            ) from e

    def _make_topic(self) -> None:
        topics = KafkaTopics(self._settings)
        try:
            topics.create(meta_inits_spec(self._settings))
        finally:
            topics.close()

    def close(self) -> None:
        """See MetaInits."""
        self._partition.close()
