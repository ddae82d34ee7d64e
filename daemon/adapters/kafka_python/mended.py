"""Mends of kafka-python. All private parts of it that this project touches stand here, in
links.py, offsets.py, unreadable.py and unsent.py.

Each mend names the symptom without it and the versions in which that was seen. For each,
tests/contracts/test_kafka_python_mended.py holds a test in two halves: the installed version still
has the fault, and the mend heals it. When upstream repairs a fault, the first half fails: then the
mend, its test and its callers' use of it go. requirements.lock pins the version; whoever raises it
runs these tests first.

How kafka-python 3 works, as far as the mends need it. Each client has a network of its own (a
`NetworkSelector`: an event loop with sockets), run by one IO thread: the consumer's and the admin
client's is named `kafka-io-<client id>`, the producer's is its sender. Heartbeats, fetches and
rebalance listeners are tasks on it. A consumer's `poll` asks its group coordinator whether it needs
to join; if so, it begins a task that joins (`_join_task`) and awaits it, within the poll's time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.coordinator.base import MemberState
from kafka.errors import KafkaConnectionError, KafkaError
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import create_connection
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.serializer import Serializer
from kafka.structs import OffsetAndMetadata

from daemon.wire.record import Message


class SocketClosingNetClient(KafkaNetClient):  # type: ignore[misc]  # kafka-python has no types
    """A client's network whose `close` closes every socket, and where a failed handshake does.

    Symptom 1: now and then `ResourceWarning: unclosed <socket.socket ... raddr=...>`, long after a
    client was closed. A socket that is still connecting, or that still has bytes to write, when the
    client is closed belongs to a task that waits for the network; the network ends by cancelling
    its tasks, and neither task closes its socket then.

    Symptom 2: the same warning, once for each attempt, while a broker's TLS handshake fails: nobody
    closes the socket then.

    Symptom 3: `RuntimeError: cannot join thread before it is started` instead of the signal's own
    exception, where a signal came while the client was opened, between making the IO thread and
    starting it.

    All seen in 3.0.12.
    """

    def __init__(self, **configs: Any) -> None:
        super().__init__(**configs)
        self._manager._build_transport = self._transport_to

    async def _transport_to(self, node: Any, timeout_at: float | None = None) -> Any:
        """As upstream's, but for the `close`."""
        config = self._manager.config
        socket = await create_connection(
            self._net,
            node.host,
            node.port,
            config["socket_options"],
            proxy_url=config["proxy_url"],
            timeout_at=timeout_at,
        )
        try:
            transport = self._transport_over(socket, node.host)
            socket = transport._sock
            await transport.handshake()
        except Exception as e:
            socket.close()
            raise KafkaConnectionError(f"Handshake failed: {e}") from e
        return transport

    def _transport_over(self, socket: Any, host: str) -> Any:
        if not self._manager.ssl_enabled:
            return KafkaTCPTransport(self._net, socket, host=host)
        config = self._manager.config
        tls = {key: value for key, value in config.items() if key.startswith("ssl_")}
        return KafkaSSLTransport(self._net, socket, host=host, **tls)

    def close(self, node_id: Any = None) -> None:
        """Closes one connection, or (without `node_id`) all of them and the network itself."""
        if node_id is not None or self._net._closed:
            super().close(node_id)
            return
        self._manager.close()
        io_thread = self._net._io_thread
        if io_thread is not None and io_thread.ident is None:
            self._net._io_thread = None
        self._net.stop()
        self._net.drain()  # as upstream does next; from here on no task begins to wait
        waited_for = [key.fileobj for key in self._net._selector.get_map().values()]
        super().close()
        for socket in waited_for:
            socket.close()


def open_client(client: Callable[..., Any], **arguments: Any) -> Any:
    """Returns `client(**arguments)`, a consumer, producer or admin client whose sockets are closed
    with it. Raises what its constructor raises, and then leaves nothing behind.

    Symptom: after a constructor that failed, for instance because no broker answered, the IO thread
    that it had started stays alive for ever, with its file descriptors: one more for each attempt.
    Seen in 3.0.12.
    """
    networks: list[SocketClosingNetClient] = []

    def open_network(**configs: Any) -> SocketClosingNetClient:
        networks.append(SocketClosingNetClient(**configs))
        return networks[-1]

    try:
        return client(kafka_client=open_network, **arguments)
    except BaseException:
        for network in networks:
            network.close()
        raise


class _UnfinishedJoin:
    """A join in flight that never looks done, so that the coordinator awaits it to the end."""

    is_done = False

    def __init__(self, join: Future) -> None:
        self._join = join

    def __getattr__(self, name: str) -> Any:
        return getattr(self._join, name)

    def __await__(self) -> Any:
        return self._join.__await__()


def keep_join(consumer: KafkaConsumer) -> None:
    """Has the next poll take in a join of the group that the last poll has left in flight. To be
    called after every poll, on the same thread.

    Symptom 1: the worker has no partitions and sends no heartbeats, for ever. A join that a change
    of metadata began (at the start, or when the topic gets more partitions) clears its own cause;
    if it outlasts the poll, the next poll sees no need to join and never looks at it again. So the
    need is kept up.

    Symptom 2: groups that rebalance again and again. A join that ends between two polls is thrown
    away and begun anew, which has every other member join anew as well. So the next poll must take
    it for unfinished: it then awaits it, and has its result at once.

    Both seen in 3.0.12.
    """
    coordinator = consumer._coordinator
    if coordinator._join_task is not None:
        coordinator.request_rejoin()
        if not isinstance(coordinator._join_task, _UnfinishedJoin):
            coordinator._join_task = _UnfinishedJoin(coordinator._join_task)


def is_member(consumer: KafkaConsumer) -> bool:
    """Returns whether the consumer has joined its group and been given an assignment, which may be
    empty.

    Symptom: a member that is given no partitions never learns that it has joined; with the
    cooperative protocol the rebalance listener is called only for partitions that were added, and
    `assignment()` is as empty as before. Seen in 3.0.12.
    """
    return consumer._coordinator.state is MemberState.STABLE


def send_commit(
    consumer: KafkaConsumer, offsets: Mapping[TopicPartition, OffsetAndMetadata]
) -> Future:
    """Sends a commit from the client's IO thread and returns at once; the future fails when the
    broker refuses it, or when the group's coordinator is not known.

    Symptom: a commit that was never sent counts as done. Where the coordinator is not known,
    `commit_async` returns the future of the search for it, which succeeds when one is found,
    whatever becomes of the commit. It also searches on the caller's thread, among values that the
    IO thread may change meanwhile (a `KeyError` was seen). Seen in 3.0.12.
    """
    coordinator = consumer._coordinator
    return coordinator._manager.call_soon(coordinator._send_offset_commit_request, offsets)


def close_at_once(producer: KafkaProducer, timeout_s: float) -> None:
    """Closes a producer and drops what it has not sent. Never raises, and returns within about
    twice `timeout_s`.

    Symptom: a producer that was closed while its broker was away sends its old messages once the
    broker is back, behind newer ones. `close` flushes first, and where that times out it raises and
    closes nothing, so the sender's thread lives on. Seen in 3.0.12.
    """
    with suppress(KafkaError, OSError):
        producer._sender.force_close()
        producer.close(timeout_s)


class WholeMessages(Serializer):  # type: ignore[misc]  # kafka-python has no types
    """The value serializer that `send_whole` needs: it takes a message for a value."""

    def serialize(self, topic: str, headers: list[Any], data: Message) -> bytes | None:
        """Returns the message's value, and fills in the record's headers."""
        headers += data.headers
        return data.value


class _Headers(list[tuple[str, bytes | None]]):
    """Headers whose sizes kafka-python does not add up."""

    def __bool__(self) -> bool:
        return False


def send_whole(producer: KafkaProducer, message: Message) -> Any:
    """Sends a message whatever is null in it, and returns the future. The producer was opened with
    `value_serializer=WholeMessages()`.

    Symptom: records that Kafka takes, and that other clients write, cannot be sent. `send` raises
    TypeError for a header without a value and ValueError for a record with neither key nor value.
    Both are checked before the value is serialized, so the serializer puts them in. Two sums over
    the headers' lengths, for callers that want to know them, fail too; they are left out for
    headers that are false. Seen in 3.0.12.
    """
    return producer.send(message.topic, value=message, key=message.key, headers=_Headers())
