"""Publishes pairs to the events topic, after the checks that a worker makes of an event.

    with PairPublisher("kafka:9092") as pairs:
        pairs.send("camera-7", source=x, target=y)

All producers of a topic must choose partitions by one rule: this one takes murmur2 of the key, as
Java's clients, kafka-python and `adaptd send` do. D = source dim, E = target dim
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from threading import Condition, Lock
from typing import Any, Literal, Self

import numpy as np
from kafka import KafkaProducer
from kafka.partitioner import DefaultPartitioner

from daemon.adapters.kafka_limits import BATCH_BYTES, BUFFER_BYTES, CLOSE_TIMEOUT_S
from daemon.adapters.kafka_python.client import QUIET, connect, kafka_errors_translated
from daemon.adapters.kafka_python.mended import close_at_once
from daemon.config import Settings
from daemon.errors import MalformedEvent, Unavailable
from daemon.wire.paired_event import (
    CONTENT_TYPE,
    MSGPACK,
    Audio,
    Content,
    EventLimits,
    Image,
    PairedEvent,
    Text,
    Vector,
    Video,
    WirePair,
    decode_event,
    encode_event,
    raw_content,
    vector,
)
from daemon.wire.record import RawRecord
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import load_meta_init

Side = Literal["source", "target"]
LINGER_MS = 20
"""How long an event waits for others of its partition, to be sent together."""
FLOATS = ("float16", "float32", "float64")
MOST_BYTES = BUFFER_BYTES
"""Of events that Kafka has not acknowledged yet. kafka-python's producer would take any number, and
give up what does not go out within the delivery timeout."""


class Unacknowledged:
    """The bytes of events that Kafka has not acknowledged yet. Any thread may call."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes, self._fewer = most, 0, Condition()

    def add(self, size: int, timeout_s: float) -> None:
        """Adds an event's bytes as soon as there are not too many with them; an event alone may
        have any size. Raises Unavailable when that takes longer than `timeout_s`."""
        with self._fewer:
            if not self._fewer.wait_for(lambda: self._fits(size), timeout_s):
                detail = f"{self._bytes} bytes of events are not acknowledged after {timeout_s:g} s"
                raise Unavailable("kafka", detail)
            self._bytes += size

    def _fits(self, size: int) -> bool:
        return not self._bytes or self._bytes + size <= self._most

    def remove(self, size: int) -> None:
        """Removes an event's bytes: it was acknowledged, or given up."""
        with self._fewer:
            self._bytes -= size
            self._fewer.notify_all()


class PairPublisher:
    """Publishes pairs, batched and acknowledged. Any number of threads may call it.

    `send` does not wait for Kafka's answer; `flush`, and the end of the block, wait until it has
    acknowledged everything, and raise Unavailable when it has not.
    """

    def __init__(
        self,
        kafka: str | Settings,
        *,
        theta: Path | str | None = None,
        client_id: str = "adaptd-publisher",
    ) -> None:
        """Connects. `kafka` is an address, or settings where more is needed. `theta` is the file of
        the θ that workers serve: pairs of other modalities or dimensions are then refused here.
        Raises Unavailable, Misconfigured, Refused, and BadMetaInit for a file that is no θ."""
        settings = kafka if isinstance(kafka, Settings) else Settings(kafka_bootstrap_servers=kafka)
        self._settings = settings
        self._theta: MetaInit | None = load_meta_init(Path(theta)) if theta else None
        self._limits = EventLimits(settings.max_event_bytes, settings.max_pairs_per_event)
        self._lock, self._failed, self._first = Lock(), 0, ""
        self._waiting = Unacknowledged(MOST_BYTES)
        self.acknowledged = 0
        """Events that Kafka has acknowledged."""
        self._producer: KafkaProducer = connect(
            KafkaProducer,
            settings,
            **QUIET,
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            partitioner=DefaultPartitioner(),
            batch_size=BATCH_BYTES,
            linger_ms=LINGER_MS,
            max_request_size=BUFFER_BYTES,
            max_block_ms=settings.kafka_timeout_ms,
            delivery_timeout_ms=settings.kafka_delivery_timeout_ms,
        )

    def send(
        self,
        stream: str,
        source: Any,
        target: Any,
        *,
        label: str | None = None,
        time_ms: int | None = None,
        event_id: str | None = None,
    ) -> None:
        """Publishes one pair of a stream. A side is an array of numbers (numpy, torch, JAX, list),
        a text, the bytes of a picture or WAV file, or a content of `daemon.wire.paired_event`.

        Returns at once, unless 64 MiB of events are not acknowledged yet: then it waits until there
        are fewer. Raises MalformedEvent, whose `reason` is the one that its dead letter would have,
        and Unavailable when that, or looking the topic up, takes longer than
        ADAPTD_KAFKA_TIMEOUT_MS.
        """
        self.send_event(stream, [(source, target, label)], time_ms=time_ms, event_id=event_id)

    def send_event(
        self,
        stream: str,
        pairs: Iterable[tuple[Any, Any, str | None]],
        *,
        time_ms: int | None = None,
        event_id: str | None = None,
    ) -> None:
        """Publishes several pairs (source, target, label) of a stream as one event. See `send`."""
        wire = [
            WirePair(self._content("source", x), self._content("target", y), label)
            for x, y, label in pairs
        ]
        value = encode_event(PairedEvent(wire, event_id, time_ms))
        try:
            key = stream.encode()
        except UnicodeEncodeError as e:
            raise MalformedEvent("key_not_utf8", f"stream {stream!r}: {e}") from e
        decode_event(RawRecord(0, 0, key, value), 0, self._limits)
        size = len(key) + len(value)
        self._waiting.add(size, self._settings.kafka_timeout_ms / 1000)
        try:
            with kafka_errors_translated("publish"):
                sent = self._producer.send(
                    self._settings.kafka_events_topic,
                    value,
                    key,
                    headers=[(CONTENT_TYPE, MSGPACK.encode())],
                )
        except BaseException:
            self._waiting.remove(size)
            raise
        sent.add_callback(self._on_acknowledged).add_errback(self._on_failed)
        sent.add_both(lambda _: self._waiting.remove(size))

    def _content(self, side: Side, value: Any) -> Content:
        content = as_content(value)
        modality, raw = raw_content(content)
        wanted = self._theta
        if wanted is not None and modality != (has := getattr(wanted, f"{side}_modality")):
            raise MalformedEvent("wrong_modality", f"{side} is {modality!r}, expected {has!r}")
        if isinstance(raw, np.ndarray):
            if not np.isfinite(raw).all():
                raise MalformedEvent("not_finite", f"{side} holds NaN or infinity")
            dim = getattr(wanted, f"{side}_dim") if wanted else len(raw)
            if len(raw) != dim:
                detail = f"{side} has {len(raw)} dimensions, expected {dim}"
                raise MalformedEvent("wrong_dimension", detail)
        return content

    def _on_acknowledged(self, _: object) -> None:
        with self._lock:
            self.acknowledged += 1

    def _on_failed(self, e: BaseException) -> None:
        with self._lock:
            self._failed += 1
            self._first = self._first or f"{type(e).__name__}: {e}"

    def flush(self) -> None:
        """Waits until Kafka has acknowledged all that was sent. Raises Unavailable, which says how
        many events were not acknowledged since the last call; they may have arrived or not."""
        with kafka_errors_translated("publish"):
            self._producer.flush(self._settings.kafka_delivery_timeout_ms / 1000 + 1)
        with self._lock:
            failed, self._failed, first, self._first = self._failed, 0, self._first, ""
        if failed:
            raise Unavailable("kafka", f"{failed} events were not acknowledged; the first: {first}")

    def close(self) -> None:
        """Closes the connections; what was not flushed is given up. Never raises."""
        close_at_once(self._producer, CLOSE_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()


def as_content(value: Any) -> Content:
    """Returns a content of whatever it is given. Raises MalformedEvent where that is none."""
    if isinstance(value, Vector | Image | Text | Audio | Video):
        return value
    if isinstance(value, str):
        return Text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        return Audio(data) if data[:4] == b"RIFF" and data[8:12] == b"WAVE" else Image(data)
    if value is None:
        raise MalformedEvent("schema", "no content: None")
    if hasattr(value, "detach"):  # torch's
        value = value.detach().cpu()
        value = value if str(value.dtype).removeprefix("torch.") in FLOATS else value.float()
    try:
        numbers = np.asarray(value)
        if numbers.dtype.name not in FLOATS:
            numbers = numbers.astype(np.float32)
    except (TypeError, ValueError, RuntimeError) as e:
        raise MalformedEvent("schema", f"no content: {type(value).__name__}: {e}") from e
    if numbers.ndim != 1:
        detail = f"a vector of {numbers.ndim} dimensions; expected shape (dim,)"
        raise MalformedEvent("lying_shape", detail)
    return vector(numbers)
