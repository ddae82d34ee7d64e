"""No error of a vendor's client leaves an adapter, whichever method it meets.

The translations themselves are tested with every error that the vendors have, in the suites of the
ports; here every public method of every adapter meets one, from a client that fails in all it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
import redis
from kafka import TopicPartition
from kafka import errors as kafka_errors

from daemon.adapters.kafka_python import (
    aside,
    group_offsets,
    meta_inits,
    outbox,
    reader,
    source,
    topics,
)
from daemon.adapters.kafka_python import client as kafka_python
from daemon.adapters.redis import info, windows
from daemon.adapters.redis.keys import WindowLayout
from daemon.config import Settings
from daemon.errors import Misconfigured, Unavailable
from daemon.turn.ports import Append, Bounds, Home, LastRead
from daemon.turn.window import Pair, PairId
from daemon.wire.catalogue import PublishedTheta
from daemon.wire.record import Message
from daemon.wire.topics import TopicSpec
from tests.contracts.conftest import NO_LIBRDKAFKA

SETTINGS = Settings()
MESSAGE = Message("topic", b"key", b"value", ())
SPEC = TopicSpec("topic", 1, 1, {}, 0)
THETA = PublishedTheta("v1", offset=0, nbytes=1, published_at_ms=0)
PAIR = Append("stream", Pair(PairId(0, 0), np.zeros(1, np.float32), np.zeros(1, np.float32), 0))
LAYOUT = WindowLayout("p", "g", "i", "e", 4, 1, 1)

Calls = Mapping[str, tuple[Any, ...]]
EVENT_SOURCE: Calls = {
    "poll": (0.0, 10),
    "bounds": ([0],),
    "logs": ([0],),
    "seek": (0, 0),
    "commit": ({0: 1},),
    "lag": (),
    "joined": (),
    "verify": (),
    "close": (),
}
OUTBOX: Calls = {"send": ([MESSAGE],), "close": ()}
META_INITS: Calls = {"catalogue": (), "fetch": (THETA,), "write": ("v1", b"1"), "close": ()}
READER: Calls = {"read": (0, 0, 1), "close": ()}
OFFSETS: Calls = {
    "read": (),
    "first_at": (0, {0: Bounds(0, 0, None)}),
    "members": (),
    "move": ({0: 1}, "note"),
    "close": (),
}
TOPICS: Calls = {
    "describe": (["topic"],),
    "group_rights": ("group",),
    "create": (SPEC,),
    "close": (),
}
WINDOW_STORE: Calls = {
    "use_topic": ("i", 1),
    "claim": (0, 1),
    "begin_anew": (0, 1),
    "remember": ({0: LastRead("i", 0, 0)},),
    "homes": (["stream"],),
    "keep_homes": ({"stream": Home(0, 0)},),
    "append": (0, 1, 1, [PAIR]),
    "restore": (0, 1, {"stream": [PAIR.pair]}),
    "look": (0, "stream"),
    "load": (0, ["stream"]),
    "streams": ([0],),
    "shorten": (0, 1, {"stream": 0}),
    "mark": (0, 1, "theta"),
    "verify": ({0: 1},),
    "expire_all": (0,),
    "close": (),
}
NEVER_RAISE = {"lag", "joined", "close"}


class Vendor:
    """A client, and every part of one: all calls succeed until there is an error, and then none."""

    error: Exception | None = None

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Vendor:
        return self

    def __call__(self, *_: object, **told: Any) -> Vendor:
        if self.error is not None:
            raise self.error
        self.told |= told
        return self

    def __enter__(self) -> Vendor:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[bytes | None]:
        yield from (b"1", None, None, None, None)  # a claim's answer

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(SETTINGS.kafka_events_topic, 0)}


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Vendor:
    """Takes the place of redis-py and kafka-python in all adapters."""
    made = Vendor()
    monkeypatch.setattr(kafka_python, "open_client", lambda *_, **told: made(**told))
    monkeypatch.setattr(source, "PROOF_OF_LIFE_S", 0.0)
    monkeypatch.setattr(redis.Redis, "from_url", made)
    return made


def check(adapter: Any, calls: Calls, name: str, expected: type[Exception]) -> None:
    public = {method for method in vars(type(adapter)) if not method.startswith("_")}
    assert public == calls.keys()
    call = partial(getattr(adapter, name), *calls[name])
    if name in NEVER_RAISE:
        call()
    elif name == "seek":  # may wait for the next poll
        with suppress(expected):
            call()
    else:
        with pytest.raises(expected):
            call()


def each(adapter: Callable[..., Any], calls: Calls) -> list[Any]:
    title = getattr(adapter, "__name__", "")
    return [pytest.param(adapter, calls, name, id=f"{title}.{name}") for name in calls]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (kafka_errors.KafkaTimeoutError("no answer"), Unavailable),
        (kafka_errors.TopicAuthorizationFailedError("no right"), Misconfigured),
    ],
)
@pytest.mark.parametrize(
    ("adapter", "calls", "name"),
    [
        *each(source.KafkaPythonEventSource, EVENT_SOURCE),
        *each(outbox.KafkaPythonOutbox, OUTBOX),
        *each(meta_inits.KafkaPythonMetaInits, META_INITS),
        *each(aside.KafkaPythonReader, READER),
        *each(topics.KafkaTopics, TOPICS),
        *each(group_offsets.GroupOffsets, OFFSETS),
    ],
)
def test_none_of_kafka_pythons_escapes(
    vendor: Vendor,
    adapter: Callable[..., Any],
    calls: Calls,
    name: str,
    error: Exception,
    expected: type[Exception],
) -> None:
    opened = adapter(SETTINGS) if calls in (TOPICS, OFFSETS) else adapter(SETTINGS, "client")
    vendor.error = error
    check(opened, calls, name, expected)


def test_none_of_kafka_pythons_escapes_while_a_topic_is_read(vendor: Vendor) -> None:
    vendor.error = kafka_errors.KafkaTimeoutError("no answer")
    with pytest.raises(Unavailable):
        next(reader.read_topic(SETTINGS, "topic"))


@pytest.mark.parametrize("name", WINDOW_STORE)
def test_none_of_redis_pys_escapes(vendor: Vendor, name: str) -> None:
    store = windows.RedisWindowStore("redis://127.0.0.1", 1.0, LAYOUT)
    store.claim(0, 1)
    vendor.error = redis.ConnectionError("gone")
    check(store, WINDOW_STORE, name, Unavailable)


def test_none_of_redis_pys_escapes_from_a_look_at_the_server(vendor: Vendor) -> None:
    vendor.error = redis.ConnectionError("gone")
    with pytest.raises(Unavailable):
        info.describe("redis://127.0.0.1", 1.0)


@NO_LIBRDKAFKA
@pytest.mark.parametrize(
    ("code", "expected"),
    [("_TRANSPORT", Unavailable), ("TOPIC_AUTHORIZATION_FAILED", Misconfigured)],
)
@pytest.mark.parametrize(
    ("calls", "name"),
    [
        *[pytest.param(EVENT_SOURCE, name, id=f"source.{name}") for name in EVENT_SOURCE],
        *[pytest.param(OUTBOX, name, id=f"outbox.{name}") for name in OUTBOX],
    ],
)
def test_none_of_librdkafkas_escapes(
    monkeypatch: pytest.MonkeyPatch, calls: Calls, name: str, code: str, expected: type[Exception]
) -> None:
    import confluent_kafka

    from daemon.adapters.librdkafka import logs, outbox, source

    vendor = Vendor()
    for module, client in (
        (source, "Consumer"),
        (logs, "AdminClient"),
        (outbox, "Producer"),
    ):
        monkeypatch.setattr(module, client, lambda *_: vendor)
    monkeypatch.setattr(source, "PROOF_OF_LIFE_S", 0.0)
    adapter: Any
    if calls is OUTBOX:
        adapter = outbox.LibrdkafkaOutbox(SETTINGS, "client")
    else:
        adapter = source.LibrdkafkaEventSource(SETTINGS, "client", aside.KafkaPythonReader)
        vendor.told["on_assign"](vendor, [confluent_kafka.TopicPartition("topic", 0)])
        adapter.seek(0, 0)
    error = confluent_kafka.KafkaError(getattr(confluent_kafka.KafkaError, code))
    vendor.error = confluent_kafka.KafkaException(error)
    check(adapter, calls, name, expected)
