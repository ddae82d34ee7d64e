"""Real servers: what they keep over a restart, a pause and a kill, and that they leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from kafka import (  # type: ignore[import-untyped, unused-ignore]
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    TopicPartition,
)

from daemon.local.server import Server, free_port, is_free
from daemon.local.services import Services
from daemon.local.valkey import redis_url, start_valkey

Alive = Callable[[int], bool]
Eventually = Callable[[Callable[[], bool]], None]
Command = Callable[[Server], None]


def kill_and_start(server: Server) -> None:
    server.kill()
    assert not server.running
    server.start()


def pause_and_resume(server: Server) -> None:
    server.pause()
    time.sleep(0.2)
    server.resume()


FAULTS: list[Command] = [Server.restart, kill_and_start, pause_and_resume]


@pytest.fixture
def kafka(private_services: Services) -> Server:
    assert private_services.kafka is not None
    return private_services.kafka


@pytest.fixture
def valkey(private_services: Services) -> Server:
    assert private_services.redis is not None
    return private_services.redis


@pytest.mark.parametrize("fault", FAULTS)
def test_kafka_keeps_topics_records_and_offsets(kafka: Server, fault: Command) -> None:
    name = getattr(fault, "__name__", "fault")
    place = TopicPartition(f"kept-{name}", 0)
    with KafkaAdminClient(bootstrap_servers=kafka.address) as admin:
        admin.create_topics({place.topic: {"num_partitions": 1, "replication_factor": 1}})
    _produce_and_commit(kafka.address, place)
    fault(kafka)
    consumer = _consumer(kafka.address, group="readers")
    consumer.assign([place])
    assert consumer.committed(place) == 2
    consumer.seek(place, 0)
    assert _values(consumer, 3) == [b"0", b"1", b"2"]
    consumer.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_redis_keeps_its_keys(valkey: Server, fault: Command) -> None:
    with redis.Redis.from_url(redis_url(valkey)) as client:
        client.set("kept", getattr(fault, "__name__", "fault"))
    fault(valkey)
    with redis.Redis.from_url(redis_url(valkey)) as client:
        assert client.get("kept") == getattr(fault, "__name__", "fault").encode()


def test_a_paused_redis_answers_nothing_and_then_again(valkey: Server) -> None:
    with redis.Redis.from_url(redis_url(valkey), socket_timeout=0.2) as client:
        client.ping()
        valkey.pause()
        assert valkey.running
        with pytest.raises(redis.TimeoutError):
            client.ping()
        valkey.resume()
        client.ping()


def test_messages_of_several_mib_are_taken(kafka: Server) -> None:
    with KafkaAdminClient(bootstrap_servers=kafka.address) as admin:
        admin.create_topics({"large": {"num_partitions": 1, "replication_factor": 1}})
    producer = KafkaProducer(bootstrap_servers=kafka.address, max_request_size=8 << 20)
    producer.send("large", bytes(7 << 20)).get(30)
    producer.close()


def test_two_side_by_side_share_nothing(valkey: Server) -> None:
    with start_valkey(appendfsync="always") as other:
        assert other.address != valkey.address
        with redis.Redis.from_url(redis_url(other)) as client:
            assert client.dbsize() == 0
    assert valkey.running


def test_closing_deletes_the_data_and_frees_the_port(alive: Alive) -> None:
    server = start_valkey()
    pid, port = server.process.pid, int(server.address.rpartition(":")[2])
    server.kill()
    server.close()
    server.close()
    assert not server.folder.exists()
    assert not alive(pid)
    assert is_free(port)


def test_a_killed_guard_is_no_reason_to_leave_anything(alive: Alive) -> None:
    with start_valkey() as server:
        pid = server.process.pid
        os.kill(server.process.guard_pid, signal.SIGKILL)
        assert server.process.wait(10) == -signal.SIGKILL
        server.start()
    assert not alive(pid)
    assert not server.folder.exists()


UP = """
import sys
from daemon.local.foreground import run_local_services
sys.exit(run_local_services(lambda line: print(line, flush=True)))
"""


@pytest.fixture(scope="module")
def start_up() -> Iterator[Callable[[], tuple[subprocess.Popen[str], list[int], list[Path]]]]:
    """`adaptd up` in a process of its own, with its servers' ids and folders."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], list[int], list[Path]]:
        one = subprocess.Popen([sys.executable, "-c", UP], stdout=subprocess.PIPE, text=True)
        started.append(one)
        assert one.stdout is not None
        lines = iter(one.stdout.readline, "")
        assert any(line.startswith("export ADAPTD_REDIS_URL=redis://127.0.0.1:") for line in lines)
        return one, *_descendants(one.pid)

    yield start
    for one in started:
        one.kill()
        one.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.services
def test_up_leaves_nothing(
    number: signal.Signals,
    private_services: Services,
    start_up: Callable[[], tuple[subprocess.Popen[str], list[int], list[Path]]],
    alive: Alive,
    eventually: Eventually,
) -> None:
    up, pids, folders = start_up()
    assert len(pids) == 4  # two servers, two guards
    assert len(folders) == 2
    up.send_signal(number)
    assert up.wait(20) == (-number if number == signal.SIGKILL else 0)
    eventually(lambda: not any(map(alive, pids)))
    eventually(lambda: not any(folder.exists() for folder in folders))
    assert private_services.kafka is not None
    assert private_services.kafka.running  # and what others started goes on


@pytest.mark.services
def test_up_ends_with_an_error_when_a_server_dies(
    start_up: Callable[[], tuple[subprocess.Popen[str], list[int], list[Path]]],
) -> None:
    up, pids, _folders = start_up()
    valkey = next(pid for pid in pids if _command(pid).startswith("valkey-server"))
    os.kill(valkey, signal.SIGKILL)
    assert up.wait(20) == 1
    assert up.stdout is not None
    assert "Valkey ended by itself (code -9)" in up.stdout.read()


@pytest.mark.services
def test_up_keeps_what_it_is_told_to_keep_on_the_ports_it_is_given(
    tmp_path: Path, private_services: Services
) -> None:
    ports = free_port(), free_port()
    place = TopicPartition("kept", 0)
    for run in range(2):
        with _up(ports, tmp_path / "data") as said:
            kafka, cache = (f"127.0.0.1:{port}" for port in ports)
            assert f"export ADAPTD_KAFKA_BOOTSTRAP_SERVERS={kafka}\n" in said
            assert f"export ADAPTD_REDIS_URL=redis://{cache}/0\n" in said
            with redis.Redis.from_url(f"redis://{cache}/0") as client:
                assert client.incr("runs") == run + 1
            if run == 0:
                with KafkaAdminClient(bootstrap_servers=kafka) as admin:
                    topic = {"num_partitions": 1, "replication_factor": 1}
                    admin.create_topics({place.topic: topic})
                _produce_and_commit(kafka, place)
                again = _refused(None, tmp_path / "data")
                assert "is in use by another run" in again
                assert f"port {ports[1]} of 127.0.0.1 is in use" in _refused(ports, None)
            consumer = _consumer(kafka, group="readers")
            consumer.assign([place])
            assert consumer.committed(place) == 2
            consumer.close()
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"kafka", "valkey"}


def _up_command(ports: tuple[int, int] | None, data: Path | None) -> list[str]:
    words = [sys.executable, "-m", "daemon", "up"]
    words += ["--ports", f"{ports[0]},{ports[1]}"] if ports else []
    return words + (["--data", str(data)] if data else [])


@contextmanager
def _up(ports: tuple[int, int], data: Path) -> Iterator[list[str]]:
    """`adaptd up` in a process of its own, until the block ends; yields what it said."""
    with subprocess.Popen(_up_command(ports, data), stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        said: list[str] = []
        for line in one.stdout:
            said.append(line)
            if line.startswith("Ctrl-C ends both; their data stay in "):
                break
        try:
            assert one.poll() is None, said
            yield said
        finally:
            one.send_signal(signal.SIGINT)
            one.communicate(timeout=30)
    assert one.returncode == 0


def _refused(ports: tuple[int, int] | None, data: Path | None) -> str:
    words = _up_command(ports, data)
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("adaptd: ")
    return ended.stderr


def _produce_and_commit(address: str, place: TopicPartition) -> None:
    producer = KafkaProducer(bootstrap_servers=address, acks="all")
    for number in range(3):
        producer.send(place.topic, str(number).encode()).get(30)
    producer.close()
    consumer = _consumer(address, group="readers")
    consumer.assign([place])
    consumer.seek(place, 0)
    assert consumer.poll(timeout_ms=10_000, max_records=2)
    consumer.commit()
    consumer.close()


def _consumer(address: str, group: str) -> KafkaConsumer:
    return KafkaConsumer(bootstrap_servers=address, group_id=group, enable_auto_commit=False)


def _values(consumer: KafkaConsumer, count: int) -> list[bytes]:
    values: list[bytes] = []
    give_up_at = time.monotonic() + 20
    while len(values) < count and time.monotonic() < give_up_at:
        for records in consumer.poll(timeout_ms=500).values():
            values += [record.value for record in records]
    return values


def _descendants(pid: int) -> tuple[list[int], list[Path]]:
    """Every process under `pid`, and the folders the servers among them run in."""
    found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    folders = [Path(f"/proc/{child}/cwd").readlink() for child in found]
    for child in list(found):
        found += _descendants(child)[0]
    return found, folders


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text()
