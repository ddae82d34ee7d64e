"""Each fault of kafka-python that daemon/adapters/kafka_python/mended.py mends, with and without.

Every test runs twice. Unmended it shows that the installed version still has the fault: when that
fails, upstream has repaired it, and the mend can go. Mended it shows that the mend heals it.
"""

from __future__ import annotations

import gc
import resource
import select
import socket
import ssl
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import lz4.frame
import pytest
import snappy
import zstandard
from kafka import (
    ConsumerRebalanceListener,
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    TopicPartition,
)
from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import CommitFailedError, CorruptRecordError, KafkaTimeoutError
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.net.transport import KafkaTCPTransport
from kafka.record import MemoryRecords
from kafka.record.util import calc_crc32c
from kafka.structs import OffsetAndMetadata

from daemon.adapters.kafka_python.mended import (
    SocketClosingNetClient,
    WholeMessages,
    close_at_once,
    is_member,
    keep_join,
    open_client,
    send_commit,
    send_whole,
)
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.adapters.kafka_python.unreadable import _PatientRecords
from daemon.config import Settings
from daemon.local.services import Services
from daemon.wire.record import Message
from daemon.wire.topics import TopicSpec
from tests.daemon.test_record_batch import built

PATIENCE_S = 20.0
BOTH = pytest.mark.parametrize("mended", [False, True], ids=["unmended", "mended"])


def eventually(done: Callable[[], bool], meanwhile: Callable[[], object] = lambda: None) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < give_up_at
        meanwhile()
        time.sleep(0.01)


# ---- sockets and threads


@pytest.fixture
def silent_broker() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def network_at(address: str, mended: bool) -> Any:
    return (SocketClosingNetClient if mended else KafkaNetClient)(bootstrap_servers=address)


def readable(server: socket.socket) -> bool:
    return bool(select.select([server], [], [], 0)[0])


@BOTH
def test_a_socket_whose_handshake_fails_is_closed(mended: bool) -> None:
    """The server speaks no TLS."""
    client = SocketClosingNetClient if mended else KafkaNetClient
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        network = client(bootstrap_servers=address, security_protocol="SSL")
        node = network.cluster.bootstrap_brokers()[0].node_id
        connection = network._manager.get_connection(node)
        eventually(lambda: readable(server), lambda: network.poll(timeout_ms=10))
        with server.accept()[0] as taken:
            taken.sendall(b"what?" * 10)
            eventually(lambda: connection.init_future.is_done, lambda: network.poll(timeout_ms=10))
        network.close()
    sockets = [each for each in gc.get_objects() if issubclass(type(each), ssl.SSLSocket)]
    unclosed = [each for each in sockets if each.fileno() != -1]
    for each in unclosed:
        each.close()
    assert bool(unclosed) is not mended


@BOTH
def test_a_socket_that_still_connects_is_closed_with_its_client(
    silent_broker: str, mended: bool
) -> None:
    gc.collect()
    with warnings.catch_warnings(record=True) as unclosed:
        warnings.simplefilter("always", ResourceWarning)
        network = network_at(silent_broker, mended)
        network.maybe_connect(network.cluster.bootstrap_brokers()[0].node_id)
        network.close()
        del network
        gc.collect()
    assert bool(unclosed) is not mended
    assert all("raddr=" in str(warning.message) for warning in unclosed)


@BOTH
def test_a_socket_with_bytes_to_write_is_closed_with_its_client(
    silent_broker: str, mended: bool
) -> None:
    host, port = silent_broker.split(":")
    network = network_at(silent_broker, mended)
    with socket.create_connection((host, int(port))) as connected:
        connected.setblocking(False)
        transport = KafkaTCPTransport(network._net, connected)
        transport.write(b"request")
        transport.close()
        network.close()
        assert (connected.fileno() == -1) is mended


@BOTH
def test_a_network_whose_thread_was_not_started_can_be_closed(
    silent_broker: str, mended: bool
) -> None:
    """As a signal leaves it that comes between the two."""
    network = network_at(silent_broker, mended)
    network._net._io_thread = threading.Thread()
    if not mended:
        with pytest.raises(RuntimeError, match="before it is started"):
            network._net.stop()
        network._net._io_thread, network._net._stop = None, False
    network.close()


@BOTH
@pytest.mark.parametrize("client", [KafkaConsumer, KafkaAdminClient])
def test_a_client_that_cannot_be_opened_leaves_no_thread(
    silent_broker: str, client: Callable[..., Any], mended: bool
) -> None:
    before = set(threading.enumerate())
    arguments: dict[str, Any] = {
        "bootstrap_servers": silent_broker,
        "bootstrap_timeout_ms": 200,
    }
    with ExitStack() as stack:

        def network(**configs: Any) -> Any:
            made = KafkaNetClient(**configs)
            stack.callback(made.close)
            return made

        arguments |= {} if mended else {"kafka_client": network}
        with pytest.raises(KafkaTimeoutError):
            open_client(client, **arguments) if mended else client(**arguments)
        assert bool(set(threading.enumerate()) - before) is not mended


@BOTH
def test_a_producer_whose_flush_times_out_leaves_no_thread(
    services: Services, monkeypatch: pytest.MonkeyPatch, mended: bool
) -> None:
    producer = KafkaProducer(bootstrap_servers=services.kafka_bootstrap_servers)

    def flush(timeout: float | None = None) -> None:
        raise KafkaTimeoutError("the broker is away")

    monkeypatch.setattr(producer, "flush", flush)
    sender = producer._sender
    if mended:
        close_at_once(producer, 1.0)
        sender.join(PATIENCE_S)
    else:
        with suppress(KafkaTimeoutError):
            producer.close(1.0)
        sender.join(1.0)
    assert sender.is_alive() is not mended
    sender.force_close()
    sender.join(PATIENCE_S)


# ---- what is null


@BOTH
@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [(None, None, ()), (b"k", b"v", (("a", None), ("b", b"x")))],
    ids=["neither key nor value", "header without value"],
)
def test_a_record_with_nulls_is_sent(
    kafka_settings: Callable[..., Settings],
    mended: bool,
    key: bytes | None,
    value: bytes | None,
    headers: tuple[tuple[str, bytes | None], ...],
) -> None:
    settings = kafka_settings()
    topics = KafkaTopics(settings)
    topics.create(TopicSpec(settings.kafka_events_topic, 1, 1, {}, 0))
    topics.close()
    message = Message(settings.kafka_events_topic, key, value, headers)
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        value_serializer=WholeMessages() if mended else None,
    )
    try:
        if mended:
            assert send_whole(producer, message).get(PATIENCE_S).offset == 0
        else:
            with pytest.raises((TypeError, ValueError)):
                producer.send(message.topic, value, key, headers=list(headers))
    finally:
        close_at_once(producer, 1.0)


# ---- the group


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    def __init__(self) -> None:
        self.calls = 0

    def on_partitions_assigned(self, assigned: object) -> None:
        self.calls += 1

    def on_partitions_revoked(self, revoked: object) -> None: ...
    def on_partitions_lost(self, lost: object) -> None: ...


Open = Callable[..., KafkaConsumer]


@pytest.fixture
def opened(kafka_settings: Callable[..., Settings]) -> Iterator[Open]:
    """Opens members of one group on a topic of one partition."""
    settings = kafka_settings()
    topics = KafkaTopics(settings)
    topics.create(TopicSpec(settings.kafka_events_topic, 1, 1, {}, 0))
    topics.close()
    made: list[KafkaConsumer] = []

    def member(listener: object = None) -> KafkaConsumer:
        consumer = KafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap_servers,
            group_id=settings.kafka_group_id,
            enable_auto_commit=False,
            partition_assignment_strategy=(CooperativeStickyAssignor(),),
        )
        made.append(consumer)
        consumer.subscribe([settings.kafka_events_topic], listener=listener)
        return consumer

    yield member
    for consumer in made:
        consumer.close(timeout_ms=2_000)


def poll(*consumers: KafkaConsumer) -> None:
    for consumer in consumers:
        consumer.poll(50)
        keep_join(consumer)


def join(consumer: KafkaConsumer) -> None:
    eventually(lambda: bool(consumer.assignment()), lambda: poll(consumer))


class HeldJoins:
    """Joins that end when the test says so; the broker has answered them before."""

    def __init__(self, consumer: KafkaConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
        self._coordinator = consumer._coordinator
        self._gate = Future()
        self._join = self._coordinator._do_join_and_sync_async
        self.answered = 0
        monkeypatch.setattr(self._coordinator, "_do_join_and_sync_async", self._held)

    async def _held(self) -> Any:
        assignment = await self._join()  # raises where the broker asks for a second try
        self.answered += 1
        await self._gate
        return assignment

    def release(self) -> None:
        held = self._coordinator._join_task
        self._coordinator._net.call_soon_threadsafe(lambda: self._gate.success(None))
        eventually(held.succeeded)


@BOTH
def test_a_join_for_new_metadata_that_outlasts_a_poll_is_taken_in(
    opened: Open, monkeypatch: pytest.MonkeyPatch, mended: bool
) -> None:
    consumer = opened()
    join(consumer)
    coordinator = consumer._coordinator
    joins = HeldJoins(consumer, monkeypatch)
    coordinator._assignment_snapshot = {"what the leader assigned": "other partitions"}
    eventually(lambda: joins.answered == 1, lambda: consumer.poll(50))
    assert coordinator._join_task is not None
    if mended:
        keep_join(consumer)
    joins.release()
    for _ in range(5):
        consumer.poll(50)
    assert (coordinator._join_task is None) is mended
    assert coordinator._heartbeat_enabled is mended
    assert joins.answered == 1


@BOTH
def test_a_join_that_ends_between_two_polls_is_not_begun_anew(
    opened: Open, monkeypatch: pytest.MonkeyPatch, mended: bool
) -> None:
    consumer = opened()
    join(consumer)
    joins = HeldJoins(consumer, monkeypatch)
    consumer._coordinator.request_rejoin()
    eventually(lambda: joins.answered == 1, lambda: consumer.poll(50))
    if mended:
        keep_join(consumer)
    joins.release()
    eventually(lambda: not consumer._coordinator.need_rejoin(), lambda: consumer.poll(50))
    assert joins.answered == (1 if mended else 2)


def test_a_member_that_is_given_no_partitions_is_told_nothing(opened: Open) -> None:
    first = opened()
    join(first)
    listener = Listener()
    second = opened(listener)
    assert not is_member(second)
    eventually(lambda: is_member(second), lambda: poll(first, second))
    assert listener.calls == 0


@BOTH
def test_the_answer_to_a_commit_is_the_commits_own(
    opened: Open, monkeypatch: pytest.MonkeyPatch, mended: bool
) -> None:
    consumer = opened()
    join(consumer)

    async def refused(offsets: object) -> None:
        raise CommitFailedError("the group went on")

    monkeypatch.setattr(consumer._coordinator, "_send_offset_commit_request", refused)
    consumer._coordinator.coordinator_dead("it moved")
    (partition,) = consumer.assignment()
    assert isinstance(partition, TopicPartition)
    offsets = {partition: OffsetAndMetadata(1, "", -1)}
    answer = send_commit(consumer, offsets) if mended else consumer.commit_async(offsets)
    eventually(lambda: bool(answer.is_done))
    assert answer.failed() is mended


# ---- what cannot be parsed


def fetched(data: bytes, mended: bool) -> Any:
    """What a fetch of partition 0 from offset 0 on has brought, as the consumer keeps it."""
    kind = _PatientRecords if mended else Fetcher.PartitionRecords
    return kind(0, TopicPartition("events", 0), MemoryRecords(data))


def sound_batch(first_offset: int) -> bytes:
    batch = bytearray(built([(1, b"k", b"v", [])] * 2))
    struct.pack_into(">q", batch, 0, first_offset)
    return bytes(batch)


@BOTH
def test_after_a_batch_that_cannot_be_parsed_the_next_is_read(mended: bool) -> None:
    """Unmended, what is left of the fetch is asked for ever and never comes to an end."""
    damaged = bytearray(sound_batch(2))
    damaged[-1] ^= 1
    records = fetched(sound_batch(0) + bytes(damaged) + sound_batch(4), mended)
    assert [record.offset for record in records.take(2)] == [0, 1]
    if not mended:
        with pytest.raises(CorruptRecordError):
            records.take(10)
        assert [records.take(10) for _ in range(3)] == [[], [], []]
        assert records
        return
    fault, *good = records.take(10)
    assert (fault.offset, fault.last_offset) == (2, 3)
    assert [record.offset for record in good] == [4, 5]
    assert not records
    assert records.next_fetch_offset == 6


def test_a_fetch_of_ten_thousand_damaged_batches_is_passed() -> None:
    damaged = bytearray(sound_batch(0))
    damaged[-1] ^= 1
    log = bytearray()
    for number in range(10_000):
        struct.pack_into(">q", damaged, 0, 2 * number)
        log += damaged
    records = fetched(bytes(log), mended=True)
    taken = []
    while records:
        taken += records.take(20_000)
    assert [record.offset for record in taken] == list(range(0, 20_000, 2))
    assert records.next_fetch_offset == 20_000


def test_bytes_in_which_no_batch_can_be_told_apart_are_an_error() -> None:
    broken = bytearray(sound_batch(0))
    struct.pack_into(">i", broken, 8, -12)
    with pytest.raises(CorruptRecordError, match="told apart"):
        fetched(bytes(broken), mended=True)


@pytest.mark.parametrize("framed", [False, True])
def test_snappy_that_asks_for_gigabytes_is_not_tried(framed: bool) -> None:
    """In a test process that may have no more than it has: the decoder would end it."""
    claim = b"\xff\xff\xff\xff\x0f"
    header = b"\x82SNAPPY\x00" + bytes([0, 0, 0, 1, 0, 0, 0, 1])
    payload = header + (len(claim)).to_bytes(4, "big") + claim if framed else claim
    batch = bytearray(sound_batch(0)[:61] + payload)
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    batch[22] |= 2
    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
    records = fetched(bytes(batch) + sound_batch(2), mended=True)
    fault, *good = records.take(10)
    assert "4294967295 bytes" in fault.fault
    assert (fault.offset, fault.last_offset) == (0, 1)
    assert [record.offset for record in good] == [2, 3]


def gzip_of_zeros(size: int) -> bytes:
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(bytes(2**24)) for _ in range(size // 2**24)]
    return b"".join((*parts, packer.flush()))


def zstd_of_zeros(size: int) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()  # which does not tell the size in advance
    parts = [packer.compress(bytes(2**24)) for _ in range(size // 2**24)]
    return b"".join((*parts, packer.flush()))


def lz4_of_zeros(size: int) -> bytes:
    packer = lz4.frame.LZ4FrameCompressor()
    parts: list[bytes] = [packer.begin()]
    parts += [packer.compress(bytes(2**24)) for _ in range(size // 2**24)]
    return b"".join((*parts, packer.flush()))


def snappy_of_zeros(size: int) -> bytes:
    block: bytes = snappy.compress(bytes(2**24))
    framed = len(block).to_bytes(4, "big") + block
    return b"\x82SNAPPY\x00" + bytes([0, 0, 0, 1, 0, 0, 0, 1]) + framed * (size // 2**24)


@pytest.mark.parametrize(
    ("number", "zeros"),
    [(1, gzip_of_zeros), (2, snappy_of_zeros), (3, lz4_of_zeros), (4, zstd_of_zeros)],
    ids=["gzip", "snappy", "lz4", "zstd"],
)
def test_a_batch_that_unpacks_to_more_than_memory_holds_is_a_fault(
    number: int, zeros: Callable[[int], bytes]
) -> None:
    """A gigabyte stands for the hundreds that as few bytes of zstd can be."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batch = bytearray(sound_batch(0)[:61] + zeros(2**30))
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    batch[22] |= number
    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
    records = fetched(bytes(batch) + sound_batch(2), mended=True)
    fault, *good = records.take(10)
    assert "more than 268435456" in fault.fault
    assert (fault.offset, fault.last_offset) == (0, 1)
    assert [record.offset for record in good] == [2, 3]
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 700 * 1024
