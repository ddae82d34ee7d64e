"""What a client cannot parse comes as a fault in its place; all around it is read as ever."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from daemon.adapters.librdkafka.detours import STALL_S
from daemon.config import Settings
from daemon.local.services import Services
from daemon.offline.record import record_topic
from daemon.turn.ports import EventSource
from daemon.wire.record import RawRecord, Record
from daemon.worker.wiring import kafka_clients
from tests.contracts import damage as damages
from tests.contracts.conftest import CLIENTS

Named = list[tuple[str, str | bytes | None]]
Join = Callable[[], EventSource]
PER_BATCH, BATCHES = 4, 3
END = PER_BATCH * BATCHES
PATIENCE_S = 20.0
BOUND_S = STALL_S + 3.0
"""No batch holds its partition up for longer."""


@pytest.fixture(params=CLIENTS)
def settings(request: pytest.FixtureRequest, private_services: Services) -> Iterator[Settings]:
    name = f"t{uuid.uuid4().hex[:12]}"
    kafka = private_services.kafka_bootstrap_servers
    with KafkaAdminClient(bootstrap_servers=kafka) as admin:
        admin.create_topics({name: {"num_partitions": 2, "replication_factor": 1}})
        yield Settings(
            kafka_client=request.param,
            kafka_bootstrap_servers=kafka,
            kafka_events_topic=name,
            kafka_group_id=name,
        )
        admin.delete_topics([name])


@pytest.fixture
def join(settings: Settings) -> Iterator[Join]:
    """Joins the group as its one member."""
    with ExitStack() as opened:

        def make() -> EventSource:
            source = kafka_clients(settings)[0](settings, "member")
            opened.callback(source.close)
            return source

        yield make


def produce(settings: Settings, compression: str | None = None) -> None:
    """Three batches of four records in each of two partitions."""
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        linger_ms=500,
        compression_type=compression,
    )
    for batch in range(BATCHES):
        for number in range(PER_BATCH):
            offset = PER_BATCH * batch + number
            for partition in (0, 1):
                producer.send(
                    settings.kafka_events_topic,
                    key=b"key-%d" % offset,
                    value=b"value-%d" % offset,
                    headers=[("name", b"n")],
                    partition=partition,
                )
        producer.flush()
    producer.close()


def damaged(services: Services, settings: Settings, how: str) -> bytes:
    """Damages the middle batch of partition 0."""
    assert services.kafka is not None
    file = damages.segment(services.kafka.folder, settings.kafka_events_topic, 0)
    assert len(damages.batches(file.read_bytes())) == BATCHES
    change, right_checksum = DAMAGES[how]
    return damages.damage(file, 1, change, right_checksum=right_checksum)


DAMAGES: dict[str, tuple[damages.Damage, bool]] = {
    "a failed checksum": (damages.flipped_bit, False),
    "an unknown codec": (damages.codec(6), True),
    "no gzip": (damages.codec(1), True),
    "no snappy": (damages.codec(2), True),
    "no lz4": (damages.codec(3), True),
    "no zstd": (damages.codec(4), True),
    "a record's length": (damages.record_length, True),
    "a key's length": (damages.key_length, True),
    "a header's name": (damages.header_name, True),
    "the number of records": (damages.record_count, True),
}
LOST = {
    "a record's length": range(4, 8),
    "a key's length": [4],
    "a header's name": [7],
    "the number of records": [],
}
"""The offsets that cannot be read; of all other damages, the whole batch."""


def read(source: EventSource, start: int, max_records: int = 100) -> dict[int, list[Record]]:
    """All records from an offset on, until the source stands at the end of both partitions."""
    claimed: set[int] = set()
    got: dict[int, list[Record]] = {0: [], 1: []}
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        polled = source.poll(0.1, max_records)
        for partition, records in polled.records.items():
            got[partition] += records if partition in claimed else []
        for partition in polled.assigned:
            source.seek(partition, start)
            claimed.add(partition)
        if polled.assigned:
            continue
        if {p: polled.positions.get(p) for p in claimed} == {0: END, 1: END}:
            return got
    pytest.fail(f"the end was not reached: {got}, {source.lag()}")


def faults(records: list[Record]) -> list[RawRecord]:
    return [r for r in records if isinstance(r, RawRecord) and r.fault is not None]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_batch_that_cannot_be_parsed_costs_itself_only(
    settings: Settings, join: Join, private_services: Services, how: str
) -> None:
    produce(settings)
    data = damaged(private_services, settings, how)
    source = join()
    began = time.monotonic()
    got = read(source, 0)
    took_s = time.monotonic() - began
    for _ in range(10):
        assert not source.poll(0.1, 100).records

    lost = list(LOST.get(how, range(4, 8)))
    bad = faults(got[0])
    assert [r.offset for r in bad] == lost[: len(bad)]
    assert sum((r.last_offset or r.offset) - r.offset + 1 for r in bad) == len(lost)
    good = [r for r in got[0] if r not in bad]
    assert [r.offset for r in good] == [o for o in range(END) if o not in lost]
    assert [r.value for r in good] == [b"value-%d" % r.offset for r in good]
    assert [list(r.headers) for r in good] == [[("name", b"n")]] * len(good)
    assert [r.offset for r in got[1]] == list(range(END))
    if bad and bad[0].value_is == "batch":
        assert bad[0].value == data
    assert took_s < BOUND_S + 3.0  # joining the group takes a moment


def test_a_header_name_that_is_not_utf8_costs_its_record_only(
    settings: Settings, join: Join, private_services: Services
) -> None:
    produce(settings, compression="gzip")
    with_bad_name(settings)
    source = join()
    claimed, got, until = False, list[Record](), time.monotonic() + PATIENCE_S
    while len(got) < END + 3 and time.monotonic() < until:
        polled = source.poll(0.1, 5)
        got += polled.records.get(0, []) if claimed else []
        if 0 in polled.assigned:
            source.seek(0, 0)
            claimed = True
    assert [r.offset for r in got] == list(range(END + 3))
    (bad,) = faults(got)
    assert (bad.offset, bad.key, bad.value) == (END + 1, b"k", b"v")
    assert list(bad.headers) == [("a", b"1"), ("\\xff\\xfe", b"2"), ("", b"")]
    assert "header 1" in (bad.fault or "")


class NotUtf8(str):
    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


def with_bad_name(settings: Settings) -> None:
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers, linger_ms=500, compression_type="gzip"
    )
    for headers in ([("a", b"1")], [("a", b"1"), (NotUtf8("x"), b"2"), ("", b"")], []):
        producer.send(settings.kafka_events_topic, b"v", b"k", headers=headers, partition=0)
    producer.flush()
    producer.close()


@pytest.mark.parametrize("start", [4, 6, 7])
def test_a_restart_within_what_cannot_be_parsed_goes_on(
    settings: Settings, join: Join, private_services: Services, start: int
) -> None:
    produce(settings)
    damaged(private_services, settings, "a failed checksum")
    source = join()
    got = read(source, start, max_records=3)
    bad, *others = faults(got[0])
    assert others == []
    assert (bad.offset, bad.last_offset) == (start, 7)
    assert [r.offset for r in got[0] if r is not bad] == list(range(8, END))


def test_where_every_batch_is_damaged_all_are_passed(
    settings: Settings, join: Join, private_services: Services
) -> None:
    produce(settings)
    assert private_services.kafka is not None
    file = damages.segment(private_services.kafka.folder, settings.kafka_events_topic, 0)
    for number in range(BATCHES):
        damages.damage(file, number, damages.flipped_bit, right_checksum=False)
    source = join()
    got = read(source, 0)
    assert [(r.offset, r.last_offset) for r in faults(got[0])] == [(0, 3), (4, 7), (8, 11)]
    assert len(got[1]) == END


OF_KAFKA_PYTHON = pytest.mark.parametrize("settings", ["kafka-python"], indirect=True)


@pytest.mark.services
@OF_KAFKA_PYTHON
def test_a_recording_goes_past_what_cannot_be_parsed(
    settings: Settings, private_services: Services, tmp_path: Path
) -> None:
    produce(settings)
    damaged(private_services, settings, "a failed checksum")
    told: list[object] = []
    out = tmp_path / "events.jsonl"
    found = record_topic(settings, out, None, None, told.append)
    assert found.malformed["unreadable"] == 1
    assert found.malformed.total() == 2 * END - PER_BATCH + 1  # none of these is an event


@pytest.mark.services
def test_odd_records_that_are_whole_come_as_they_are(settings: Settings, join: Join) -> None:
    """Relatives of what cannot be parsed."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    many: Named = [(f"h{number % 7}", b"%d" % number) for number in range(3_000)]
    sent: list[tuple[bytes | None, bytes | None, Named]] = [
        (None, None, []),
        (b"", b"", [("", b"")]),
        (b"\xff\xfe", b"v", [("a", None), ("a", b""), ("a", b"1")]),
        (b"k", b"v", many),
        (b"k" * 100_000, b"v", [("é" * 500, b"\x00" * 1_000)]),
    ]
    for key, value, headers in sent:
        producer.produce(
            settings.kafka_events_topic, value, key, partition=0, headers=[*headers], timestamp=1
        )
        producer.flush(10)
    source = join()
    claimed, got, until = False, list[Record](), time.monotonic() + PATIENCE_S
    while len(got) < len(sent) and time.monotonic() < until:
        polled = source.poll(0.1, 100)
        got += polled.records.get(0, []) if claimed else []
        if 0 in polled.assigned:
            source.seek(0, 0)
            claimed = True
    assert faults(got) == []
    assert [(r.key, r.value, list(r.headers)) for r in got] == sent
