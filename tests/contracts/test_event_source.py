"""What every EventSource does: records as they are, positions as told, news of the group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from threading import Event
from typing import Protocol

import pytest
from kafka import KafkaProducer
from kafka import errors as vendor
from kafka.future import Future

from daemon.adapters.kafka_python.client import REFUSALS, kafka_errors_translated
from daemon.adapters.kafka_python.source import KafkaPythonEventSource
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.adapters.memory import MemoryEventSource, MemoryTopic
from daemon.config import Settings
from daemon.errors import Misconfigured, Refused, Unavailable
from daemon.turn.ports import Bounds, EventSource, Polled
from daemon.wire.record import Headers, Record
from daemon.wire.topics import TopicSpec
from daemon.worker.wiring import kafka_clients
from tests.contracts.conftest import CLIENTS, NO_LIBRDKAFKA

PARTITIONS = 2
PATIENCE_S = 40.0


class Backend(Protocol):
    """A topic of two partitions, and a group that members join."""

    def join(self) -> EventSource: ...
    def share(self) -> None:
        """Have the group give partition 1 of the first member to the second."""

    def produce(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> None: ...


class MemoryBackend:
    def __init__(self) -> None:
        self._topic = MemoryTopic(PARTITIONS)
        self._members: list[MemoryEventSource] = []

    def join(self) -> EventSource:
        self._members.append(MemoryEventSource(self._topic, [] if self._members else None))
        return self._members[-1]

    def share(self) -> None:
        self._members[0].revoke([1])
        self._members[1].assign([1])

    def produce(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> None:
        self._topic.produce(partition, key, value, headers=headers, timestamp_ms=1_234)


class KafkaBackend:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        topics = KafkaTopics(settings)
        topics.create(TopicSpec(settings.kafka_events_topic, PARTITIONS, 1, {}, 0))
        topics.close()
        self._producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)
        self._members: list[EventSource] = []

    def join(self) -> EventSource:
        open_source, _ = kafka_clients(self._settings)
        self._members.append(open_source(self._settings, f"member-{len(self._members)}"))
        return self._members[-1]

    def share(self) -> None:
        """The group does so by itself."""

    def produce(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> None:
        self._producer.send(
            self._settings.kafka_events_topic,
            key=key,
            value=value,
            headers=list(headers),
            partition=partition,
            timestamp_ms=1_234,
        ).get(10)

    def close(self) -> None:
        self._producer.close()
        for member in self._members:
            member.close()


@pytest.fixture(params=["memory", *CLIENTS])
def backend(
    request: pytest.FixtureRequest, kafka_settings: Callable[..., Settings]
) -> Iterator[Backend]:
    if request.param == "memory":
        yield MemoryBackend()
        return
    made = KafkaBackend(kafka_settings(request.param))
    yield made
    made.close()


def polls(*sources: EventSource) -> Iterator[list[Polled]]:
    """What each of the sources polls, round by round, until patience ends."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        yield [source.poll(0.1, 100) for source in sources]
    pytest.fail("what the test waits for did not come")


def assigned(source: EventSource) -> frozenset[int]:
    got: frozenset[int] = frozenset()
    for (polled,) in polls(source):
        got |= polled.assigned
        if len(got) == PARTITIONS:
            return got
    raise AssertionError


def records(source: EventSource, partition: int, count: int) -> list[Record]:
    read: list[Record] = []
    for (polled,) in polls(source):
        read += polled.records.get(partition, [])
        if len(read) >= count:
            return read
    raise AssertionError


def test_a_first_member_gets_every_partition(backend: Backend) -> None:
    source = backend.join()
    assert assigned(source) == {0, 1}
    assert source.joined()


def test_records_come_as_they_were_produced(backend: Backend) -> None:
    backend.produce(1, b"\xff", b"\x00", [("content-type", b"x"), ("y", b"\xff")])
    backend.produce(1, None, b"no key")
    backend.produce(1, b"no value", None)
    source = backend.join()
    assigned(source)
    source.seek(1, 0)
    first, second, third = records(source, 1, 3)
    assert (first.offset, first.timestamp, first.key, first.value) == (0, 1_234, b"\xff", b"\x00")
    assert list(first.headers) == [("content-type", b"x"), ("y", b"\xff")]
    assert (second.offset, second.key, second.value) == (1, None, b"no key")
    assert (third.offset, third.key, third.value) == (2, b"no value", None)


def test_a_seek_is_where_the_next_poll_begins(backend: Backend) -> None:
    for number in range(5):
        backend.produce(0, b"k", b"%d" % number)
    source = backend.join()
    assigned(source)
    for start in (3, 0, 4):
        source.seek(0, start)
        assert [r.offset for r in records(source, 0, 5 - start)] == list(range(start, 5))
    source.seek(7, 0)  # not ours: nothing happens


def test_the_bounds_of_a_partition_and_what_was_committed(backend: Backend) -> None:
    for number in range(5):
        backend.produce(0, b"k", b"%d" % number)
    source = backend.join()
    assigned(source)
    assert source.bounds([0, 1]) == {0: Bounds(0, 5, None), 1: Bounds(0, 0, None)}
    assert source.commit({0: 3}).result()
    assert source.commit({0: 2, 1: 0}).result()
    assert source.bounds([1, 0]) == {0: Bounds(0, 5, 2), 1: Bounds(0, 0, 0)}


def test_polls_go_on_while_a_commit_is_not_answered(backend: Backend) -> None:
    source = backend.join()
    assigned(source)
    source.seek(0, 0)
    for number in range(5):
        backend.produce(0, b"k", b"%d" % number)
        answer = source.commit({0: number})
        assert len(records(source, 0, 1)) == 1
        assert answer.result()
    assert source.bounds([0]) == {0: Bounds(0, 5, 4)}


def test_the_lag_is_what_is_still_to_be_polled(backend: Backend) -> None:
    source = backend.join()
    assigned(source)
    source.bounds([0, 1])
    for number in range(5):
        backend.produce(0, b"k", b"%d" % number)
    source.seek(0, 0)
    assert len(records(source, 0, 5)) == 5
    assert source.lag()[0] == 0
    source.seek(0, 2)
    assert source.lag()[0] == 3


def test_what_moves_to_another_member_is_told_to_both(backend: Backend) -> None:
    first = backend.join()
    assigned(first)
    second = backend.join()
    backend.share()
    lost: frozenset[int] = frozenset()
    gained: frozenset[int] = frozenset()
    for one, other in polls(first, second):
        lost = (lost | one.revoked) - one.assigned
        gained = (gained | other.assigned) - other.revoked
        assert not one.revoked & one.records.keys()
        if lost and lost == gained:
            break
    assert len(lost) == 1
    (moved,) = lost
    seen_by_first, seen_by_second = set[int](), set[int]()
    for one, other in polls(first, second):
        for partition in (0, 1):
            backend.produce(partition, b"k", b"v")
        seen_by_first |= one.records.keys()
        seen_by_second |= other.records.keys()
        if seen_by_first and seen_by_second:
            break
    assert (seen_by_first, seen_by_second) == ({1 - moved}, {moved})
    assert second.commit({moved: 1}).result()
    assert first.bounds([moved])[moved].committed == 1


def test_a_poll_brings_no_more_than_it_may_and_in_order(backend: Backend) -> None:
    for number in range(30):
        backend.produce(number % 2, b"k", b"%d" % number)
    source = backend.join()
    assigned(source)
    for partition in (0, 1):
        source.seek(partition, 0)
    read: dict[int, list[int]] = {0: [], 1: []}
    until = time.monotonic() + PATIENCE_S
    while sum(map(len, read.values())) < 30 and time.monotonic() < until:
        polled = source.poll(0.1, 7)
        assert sum(map(len, polled.records.values())) <= 7
        for partition, batch in polled.records.items():
            read[partition] += [record.offset for record in batch]
    assert read == {0: list(range(15)), 1: list(range(15))}


def test_a_member_that_is_given_nothing_has_joined_all_the_same(backend: Backend) -> None:
    members = [backend.join() for _ in range(PARTITIONS + 1)]
    until = time.monotonic() + 15
    while not all(member.joined() for member in members):
        assert time.monotonic() < until
        for member in members:
            member.poll(0.1, 100)
    members[-1].verify()


def test_a_service_that_answers_is_verified_and_closing_is_quiet(backend: Backend) -> None:
    source = backend.join()
    assigned(source)
    source.verify()
    source.close()


def vendor_errors() -> list[type[Exception]]:
    found = [e for e in vars(vendor).values() if isinstance(e, type)]
    errors = {e for e in found if issubclass(e, vendor.KafkaError)}
    return sorted(errors, key=lambda e: e.__name__)


@pytest.mark.parametrize("error", [*vendor_errors(), ConnectionResetError, TimeoutError, OSError])
def test_no_error_of_the_client_escapes(error: type[Exception]) -> None:
    expected: type[Exception] = Unavailable
    if issubclass(error, (*REFUSALS, vendor.KafkaConfigurationError)):
        expected = Misconfigured if error is vendor.KafkaConfigurationError else Refused
    with pytest.raises(expected, match="ask") as translation, kafka_errors_translated("ask"):
        raise error.__new__(error)  # some want arguments of their own
    assert isinstance(translation.value.__cause__, error)
    assert "\n" not in str(translation.value)


def test_a_bug_is_not_taken_for_an_unavailable_service() -> None:
    with pytest.raises(ZeroDivisionError), kafka_errors_translated("ask"):
        raise ZeroDivisionError


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_whatever_producers_compress_with_is_read(
    kafka_settings: Callable[..., Settings], codec: str, client: str
) -> None:
    real = KafkaBackend(kafka_settings(client))
    producer = KafkaProducer(
        bootstrap_servers=kafka_settings().kafka_bootstrap_servers, compression_type=codec
    )
    try:
        topic = real._settings.kafka_events_topic
        producer.send(topic, key=b"k", value=b"v" * 5_000, partition=0).get(10)
        source = real.join()
        (record,) = records(source, 0, 1)
        assert record.value == b"v" * 5_000
    finally:
        producer.close()
        real.close()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_turn_longer_than_the_session_costs_no_partition(
    kafka_settings: Callable[..., Settings], client: str
) -> None:
    """The heartbeats come from the client's own thread, whatever the loop's thread does."""
    settings = kafka_settings(client).model_copy(update={"kafka_session_timeout_ms": 6_000})
    real = KafkaBackend(settings)
    try:
        source = real.join()
        assigned(source)
        time.sleep(8.0)
        real.produce(0, b"k", b"v")
        assert source.commit({0: 0}).result()
        polled = [source.poll(0.1, 10) for _ in range(20)]
        assert not any(p.assigned or p.revoked for p in polled)
        assert [r.value for p in polled for r in p.records.get(0, [])] == [b"v"]
    finally:
        real.close()


# ---- kafka-python's own ways


@pytest.mark.services
@pytest.mark.parametrize(
    "error",
    [vendor.CoordinatorNotAvailableError(), vendor.KafkaConnectionError(), KeyError("node")],
)
def test_after_a_commit_that_failed_the_next_is_repeated_until_it_is_answered(
    kafka_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = KafkaBackend(kafka_settings("kafka-python"))
    try:
        source = real.join()
        assert isinstance(source, KafkaPythonEventSource)
        assigned(source)
        coordinator, errors = source._consumer._coordinator, [error]
        send = coordinator._send_offset_commit_request

        async def failing_first(marks: object) -> object:
            if errors:
                raise errors.pop()
            return await send(marks)

        monkeypatch.setattr(coordinator, "_send_offset_commit_request", failing_first)
        assert not source.commit({0: 3}).result()
        assert source.bounds([0])[0].committed is None
        errors.append(vendor.NotCoordinatorError())
        answer = source.commit({0: 4})  # waits, and is not put off by one more failure
        assert source.bounds([0])[0].committed == 4
        assert answer.result()
        assert source.commit({0: 5}).result()
        assert source.bounds([0])[0].committed == 5
    finally:
        real.close()


@pytest.mark.services
def test_a_commit_that_is_never_answered_is_given_up(
    kafka_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = kafka_settings("kafka-python").model_copy(update={"kafka_timeout_ms": 1_500})
    real = KafkaBackend(settings)
    try:
        source = real.join()
        assert isinstance(source, KafkaPythonEventSource)
        assigned(source)
        with monkeypatch.context() as patched:
            manager = source._consumer._coordinator._manager
            patched.setattr(manager, "call_soon", lambda *_: Future())
            answer = source.commit({0: 3})
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no answer in 1500 ms"):
            answer.result()
        assert time.monotonic() - began < 10
        source.commit({0: 4})  # waits
        assert source.bounds([0])[0].committed == 4
    finally:
        real.close()


# ---- librdkafka's own ways


def librdkafka_codes() -> list[int]:
    if find_spec("confluent_kafka") is None:
        return []
    from confluent_kafka import KafkaError

    codes = {code for code in vars(KafkaError).values() if isinstance(code, int)}
    return sorted(codes - {KafkaError.NO_ERROR})


@NO_LIBRDKAFKA
@pytest.mark.parametrize("code", librdkafka_codes())
def test_no_error_of_librdkafka_escapes(code: int) -> None:
    from confluent_kafka import KafkaError, KafkaException

    from daemon.adapters.librdkafka.client import IMPOSSIBLE, REFUSALS, Complaints

    expected: type[Exception] = Refused if code in REFUSALS else Unavailable
    if code in IMPOSSIBLE:
        expected = Misconfigured
    with pytest.raises(expected, match="ask") as translation, Complaints().translated("ask"):
        raise KafkaException(KafkaError(code, "two\nlines"))
    assert isinstance(translation.value.__cause__, KafkaException)
    assert "\n" not in str(translation.value)


@NO_LIBRDKAFKA
def test_what_librdkafka_says_between_calls_is_told_with_the_next() -> None:
    from confluent_kafka import KafkaError, KafkaException

    from daemon.adapters.librdkafka.client import Complaints

    complaints = Complaints()
    complaints.on_error(KafkaError(KafkaError._TRANSPORT, "connection refused"))
    refused = r"_TIMED_OUT.*connection refused"
    with pytest.raises(Unavailable, match=refused), complaints.translated("ask"):
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    complaints.on_error(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    with pytest.raises(Misconfigured, match="wrong password"), complaints.translated("ask"):
        pass


@NO_LIBRDKAFKA
@pytest.mark.services
def test_an_error_among_the_records_costs_none_of_them(
    kafka_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that says nothing of the record itself."""
    from confluent_kafka import KafkaError, Message

    from daemon.adapters.librdkafka.source import LibrdkafkaEventSource

    real = KafkaBackend(kafka_settings("librdkafka"))
    try:
        for number in range(6):
            real.produce(0, b"k", b"%d" % number)
        source = real.join()
        assert isinstance(source, LibrdkafkaEventSource)
        assigned(source)
        source.seek(0, 1)
        fetch = source._fetch

        def damaged(timeout_s: float, max_records: int) -> list[Message]:
            messages = fetch(timeout_s, max_records)
            error = KafkaError(KafkaError._FAIL, "no luck")
            bad = [Message("events", 0, m.offset(), error=error) for m in messages[2:3]]
            return messages[:2] + bad + messages[3:]

        monkeypatch.setattr(source, "_fetch", damaged)
        with pytest.raises(Unavailable, match=r"no luck \(partition 0\)"):
            records(source, 0, 5)
        monkeypatch.undo()
        assert [r.offset for r in records(source, 0, 5)] == [1, 2, 3, 4, 5]
    finally:
        real.close()


@NO_LIBRDKAFKA
def test_what_never_returns_is_not_waited_for() -> None:
    from daemon.adapters.librdkafka.client import BoundedCalls

    aside, stuck = BoundedCalls(), Event()
    with pytest.raises(TimeoutError, match="no answer"):
        aside.run(stuck.wait, 0.05)
    with pytest.raises(TimeoutError, match="before"):
        aside.run(list, 0.05)
    stuck.set()
    with pytest.raises(ZeroDivisionError):
        aside.run(lambda: 1 / 0, 1.0)
