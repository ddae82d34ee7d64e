"""What the fault tests share: events whose effect is known, real workers, and eyes on the result.

`Truth` says from the events alone what every window and every stream's newest mapping must be in
the end. `Installation` is one test's topics, group and Redis keys on real services, with a reader
that keeps the largest (epoch, version) for each stream. `Worker` is a real `adaptd run`.

D = source dim, E = target dim
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import redis
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import MemberToRemove
from kafka.errors import KafkaError
from numpy.typing import NDArray

from daemon.config import Settings
from daemon.local.process import GuardedProcess
from daemon.local.server import free_port
from daemon.wire import adapted_mapping
from daemon.wire.adapted_mapping import Facts
from daemon.wire.paired_event import PairedEvent, WirePair, encode_event, vector

SOURCE_DIM, TARGET_DIM, HIDDEN_DIM = 16, 8, 16
SUPPORT, QUERY, MIN_SUPPORT = 8, 2, 3
WINDOW = SUPPORT + QUERY

Vector = NDArray[np.float32]
LEARNED = ("adapted", "ridge")
"""Outcomes that reflect the window; the others are θ itself, which is published once."""
StreamPlace = tuple[int, str]
"""A partition, and a stream in it."""


class Entry(NamedTuple):
    """One pair as Redis keeps it."""

    id: str
    x: bytes
    y: bytes
    time_ms: int


class Shown(NamedTuple):
    """What a reader sees of a mapping; `epoch` and `version` order those of one stream."""

    epoch: int
    version: int
    outcome: str
    content_hash: str
    support_pairs: int


@dataclass(frozen=True)
class Raw:
    """A record as it is sent."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Pairs:
    """A good event still to be sent."""

    stream: str
    xs: tuple[Vector, ...]
    ys: tuple[Vector, ...]
    time_ms: int

    def raw(self) -> Raw:
        pairs = [WirePair(vector(x), vector(y)) for x, y in zip(self.xs, self.ys, strict=True)]
        return Raw(self.stream.encode(), encode_event(PairedEvent(pairs, time_ms=self.time_ms)))


class Spring:
    """An endless source of events: each stream has a linear map of its own, so adapting helps."""

    def __init__(self, seed: int = 0, dims: tuple[int, int] = (SOURCE_DIM, TARGET_DIM)) -> None:
        self._rng, self._dims = np.random.default_rng(seed), dims
        self._maps: dict[str, NDArray[np.float64]] = {}
        self._time_ms = 1_700_000_000_000

    def event(self, stream: str, pairs: int = 1, scale: float = 1.0) -> Pairs:
        self._time_ms += 7
        source_dim, target_dim = self._dims
        xs = [self._rng.standard_normal(source_dim) * scale for _ in range(pairs)]
        map_ED = self._maps.setdefault(
            stream, 2 * self._rng.standard_normal((target_dim, source_dim)) / source_dim**0.5
        )
        ys = [map_ED @ x + 1 for x in xs]
        to_vectors = [tuple(v.astype(np.float32) for v in vs) for vs in (xs, ys)]
        return Pairs(stream, to_vectors[0], to_vectors[1], self._time_ms)


@dataclass
class Truth:
    """The good events in the order and at the places Kafka has them."""

    entries: dict[StreamPlace, list[Entry]] = field(default_factory=dict)

    def saw(self, event: Pairs, partition: int, offset: int) -> None:
        entries = self.entries.setdefault((partition, event.stream), [])
        for place, (x, y) in enumerate(zip(event.xs, event.ys, strict=True)):
            entry_id = f"{offset + 1}-{place}"
            entries.append(Entry(entry_id, x.tobytes(), y.tobytes(), event.time_ms))

    def windows(self) -> dict[StreamPlace, list[Entry]]:
        """The newest WINDOW pairs of every stream."""
        return {
            place: sorted(entries, key=_order)[-WINDOW:] for place, entries in self.entries.items()
        }

    def last_offsets(self) -> dict[str, int]:
        return {stream: _order(w[-1])[0] - 1 for (_, stream), w in self.windows().items()}

    def mappings(self, theta: Path) -> dict[str, Shown]:
        """Each stream's newest mapping (epoch 0), computed stream by stream, undisturbed."""
        from daemon.wire.adapted_mapping import content_hash
        from model.serving.engine import Engine
        from model.theta.meta_init_file import load_meta_init
        from model.values.episode import Cut
        from model.values.gate import Outcome, judge

        engine = Engine(
            load_meta_init(theta), "cpu", support_capacity=SUPPORT, query_capacity=QUERY
        )
        shown: dict[str, Shown] = {}
        alone = engine.windows(1)
        for (_, stream), window in self.windows().items():
            if len(window) <= MIN_SUPPORT:
                continue
            x = [np.frombuffer(entry.x, "<f4") for entry in window]
            y = [np.frombuffer(entry.y, "<f4") for entry in window]
            alone.clear(0)
            alone.append([0] * len(window), x, y)
            n = len(window) - min(QUERY, len(window) - MIN_SUPPORT)
            adaptation = alone.adapt([Cut(0, n, len(window) - n)])[0]
            outcome = judge(adaptation)
            tensors = engine.theta_mapping() if outcome.is_fallback else adaptation.tensors
            if outcome is Outcome.RIDGE and adaptation.ridge is not None:
                tensors = adaptation.ridge
            version = _order(window[-1])[0] - 1
            shown[stream] = Shown(0, version, outcome.value, content_hash(tensors), len(window))
        return shown


def _order(entry: Entry) -> tuple[int, int]:
    offset, place = entry.id.split("-")
    return int(offset), int(place)


@dataclass
class Installation:
    """Topics, a group and Redis keys of one test; in `environment`, what a worker is told."""

    kafka: str
    redis_url: str
    theta: Path
    folder: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    partitions: int = 4
    name: str = field(default_factory=lambda: f"f{uuid.uuid4().hex[:10]}")
    truth: Truth = field(default_factory=Truth)

    def __post_init__(self) -> None:
        chosen = self.settings
        self.make_topic(chosen.kafka_events_topic)
        self.make_topic(chosen.kafka_dead_letters_topic)
        self.make_topic(chosen.kafka_mappings_topic, cleanup="compact")

    _producer: KafkaProducer | None = None

    def stop_producing(self) -> None:
        """Until the next `send`. kafka-python leaves a socket behind for each refused connection,
        so while Kafka is away nothing here should try."""
        if self._producer is not None:
            self._producer.close(10)
            self._producer = None

    @property
    def environment(self) -> dict[str, str]:
        plain = self.settings.model_dump(exclude_unset=True) | {"redis_url": self.redis_url}
        told = {f"ADAPTD_{name.upper()}": str(value) for name, value in plain.items()}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTD_")}
        return kept | told

    @property
    def settings(self) -> Settings:
        chosen: dict[str, Any] = {
            "kafka_bootstrap_servers": self.kafka,
            "kafka_group_id": self.name,
            "kafka_events_topic": f"{self.name}-events",
            "kafka_mappings_topic": f"{self.name}-mappings",
            "kafka_dead_letters_topic": f"{self.name}-dlq",
            "kafka_meta_inits_topic": f"{self.name}-meta-inits",
            "kafka_evidence_topic": f"{self.name}-evidence",
            "kafka_session_timeout_ms": 6_000,
            "kafka_timeout_ms": 3_000,
            "kafka_max_poll_records": 50,
            "redis_url": self.redis_url,
            "redis_prefix": self.name,
            "redis_timeout_ms": 1_000,
            "meta_init": self.theta,
            "device": "cpu",
            "torch_threads": 1,
            "support_size": SUPPORT,
            "query_size": QUERY,
            "min_support": MIN_SUPPORT,
            "max_wait_ms": 10,
            "publish_interval_ms": 50,
            "http_port": 0,
            "log_format": "json",
            "topic_partitions": self.partitions,
        }
        return Settings(**(chosen | dict(self.overrides)))

    def make_topic(self, name: str, cleanup: str = "delete") -> None:
        options = {"num_partitions": self.partitions, "configs": {"cleanup.policy": cleanup}}
        with KafkaAdminClient(bootstrap_servers=self.kafka) as admin:
            admin.create_topics({name: options | {"replication_factor": 1}})

    def make_topic_of_one(self, name: str) -> None:
        """A compacted topic of one partition, as that of θs is."""
        config = {"cleanup.policy": "compact"}
        options = {"num_partitions": 1, "replication_factor": 1, "configs": config}
        with KafkaAdminClient(bootstrap_servers=self.kafka) as admin:
            admin.create_topics({name: options})

    # ---- what goes in

    def send(self, events: Iterable[Pairs | Raw]) -> list[tuple[int, int]]:
        """Produce, and wait; where each came to lie. The good ones become part of the truth."""
        if self._producer is None:
            self._producer = KafkaProducer(bootstrap_servers=self.kafka, acks="all", linger_ms=5)
        sent = []
        for event in events:
            raw = event.raw() if isinstance(event, Pairs) else event
            topic = self.settings.kafka_events_topic
            headers = list(raw.headers)
            sent.append((event, self._producer.send(topic, raw.value, raw.key, headers)))
        places = []
        for event, future in sent:
            metadata = future.get(60)
            places.append((metadata.partition, metadata.offset))
            if isinstance(event, Pairs):
                self.truth.saw(event, *places[-1])
        return places

    # ---- what comes out

    def windows(self, group: str | None = None) -> dict[StreamPlace, list[Entry]]:
        """As they lie in Redis."""
        found: dict[StreamPlace, list[Entry]] = {}
        with redis.Redis.from_url(self.redis_url) as client:
            for key in client.scan_iter(match=f"{self.name}:{group or self.name}:*", count=1000):
                place, window, stream = key.decode().partition(":w:")
                if window:
                    partition = int(place.partition("}")[0].rpartition(":")[2])
                    found[partition, stream] = [_entry(*entry) for entry in client.xrange(key)]
        return found

    def records(self, topic: str) -> list[Any]:
        """Everything in a topic, partition after partition, each in its order."""
        with self._consumer() as consumer:
            tps = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
            ends = consumer.end_offsets(tps)
            consumer.assign(tps)
            consumer.seek_to_beginning(*tps)
            records: dict[TopicPartition, list[Any]] = {tp: [] for tp in tps}
            give_up_at = time.monotonic() + 20
            while any(consumer.position(tp) < ends[tp] for tp in tps):
                assert time.monotonic() < give_up_at, "the topic could not be read in 20 s"
                for tp, batch in consumer.poll(200).items():
                    records[tp] += batch
        return [record for batch in records.values() for record in batch]

    @contextmanager
    def _consumer(self) -> Iterator[Any]:
        consumer = KafkaConsumer(bootstrap_servers=self.kafka, enable_auto_commit=False)
        try:
            yield consumer
        finally:
            consumer.close(autocommit=False)

    def mappings(self, topic: str | None = None) -> list[Facts]:
        """Every mapping, in the order of its partition."""
        records = self.records(topic or self.settings.kafka_mappings_topic)
        return [adapted_mapping.decode_mapping(record.value).facts for record in records]

    def committed(self) -> dict[int, int]:
        """What the group has committed, where it has come any further than 0."""
        try:
            with KafkaAdminClient(bootstrap_servers=self.kafka) as admin:
                marks = admin.list_group_offsets(self.name)[self.name]
        except KafkaError:  # there is no group or no coordinator yet
            return {}
        return {tp.partition: mark.offset for tp, mark in marks.items() if mark.offset > 0}

    def ends(self) -> dict[int, int]:
        with self._consumer() as consumer:
            topic = self.settings.kafka_events_topic
            tps = [TopicPartition(topic, p) for p in range(self.partitions)]
            return {tp.partition: end for tp, end in consumer.end_offsets(tps).items() if end}

    def members(self) -> list[str]:
        """The ids of the group's members."""
        with KafkaAdminClient(bootstrap_servers=self.kafka) as admin:
            return [
                m["member_id"] for m in admin.describe_groups([self.name])[self.name]["members"]
            ]

    def remove_dead_members(self) -> None:
        """Removes all members of the group. By itself the broker would drop a killed worker only
        when its session times out."""
        gone = [MemberToRemove(member_id=member) for member in self.members()]
        if gone:
            with KafkaAdminClient(bootstrap_servers=self.kafka) as admin:
                admin.remove_group_members(self.name, gone)

    def wait_until_done(self, timeout_s: float = 60) -> float:
        """Until the group has committed every event; how long it took."""
        start, ends = time.monotonic(), self.ends()
        eventually(
            lambda: self.committed() == ends, timeout_s, lambda: f"{self.committed()}, {ends}"
        )
        return time.monotonic() - start

    def close(self) -> None:
        """Delete everything that bears our name."""
        self.stop_producing()
        with KafkaAdminClient(bootstrap_servers=self.kafka) as admin:
            admin.delete_topics([t for t in admin.list_topics() if t.startswith(self.name)])
        with redis.Redis.from_url(self.redis_url) as client:
            for key in client.scan_iter(match=f"{self.name}:*", count=1000):
                client.delete(key)

    # ---- workers

    @contextmanager
    def worker(self, stderr: int | None = None, **overrides: Any) -> Iterator[Worker]:
        """A real one, which logs to a file or to the descriptor `stderr`; at the end it is killed
        if it still runs."""
        port = free_port()
        more = {f"ADAPTD_{name.upper()}": str(value) for name, value in overrides.items()}
        log = self.folder / f"worker-{port}.jsonl"
        with (
            log.open("wb") as out,
            GuardedProcess(
                [sys.executable, "-m", "daemon", "run"],
                env=self.environment | {"ADAPTD_HTTP_PORT": str(port)} | more,
                stdout=out,
                stderr=out if stderr is None else stderr,
                grace_s=0.0,
            ) as process,
        ):
            yield Worker(process, f"http://127.0.0.1:{port}", log)


def _entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    return Entry(entry_id.decode(), fields[b"x"], fields[b"y"], int(fields[b"t"]))


@dataclass(frozen=True)
class Worker:
    """A running `adaptd run`."""

    process: GuardedProcess
    url: str
    log: Path

    def get(self, path: str) -> tuple[int, str]:
        """Status code and body; code 0 when nobody listens (yet)."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def status(self) -> dict[str, Any]:
        code, body = self.get("/status")
        return dict(json.loads(body)) if code == 200 else {}

    def wait_until_ready(self, partitions: int | None = None, timeout_s: float = 40) -> float:
        """Also, if given, until it has so many partitions; how long it took."""
        start = time.monotonic()

        def ready() -> bool:
            assert self.process.poll() is None, f"it ended:\n{self.tail()}"
            assigned = self.status().get("assigned_partitions")
            return self.get("/readyz")[0] == 200 and partitions in (None, assigned)

        eventually(ready, timeout_s, self.tail)
        return time.monotonic() - start

    def lines(self) -> list[dict[str, Any]]:
        """Its log; every line must be JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def tail(self) -> str:
        return "\n".join(self.log.read_text().splitlines()[-15:])

    def stop(self, timeout_s: float = 10.0, codes: tuple[int, ...] = (0,)) -> float:
        """SIGTERM; it must exit with one of the codes within the time; how long it took."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout_s) in codes, self.tail()
        return time.monotonic() - start


def kept_by_reader(mappings: Sequence[Facts], may_go_back: bool = False) -> dict[str, Shown]:
    """What a reader holds in the end that keeps the largest (epoch, version). Its version of a
    stream must never become smaller on the way, unless windows had to be rebuilt."""
    kept: dict[str, Shown] = {}
    for facts in mappings:
        before = kept.get(facts.stream)
        if before is None or (facts.epoch, facts.version) >= before[:2]:
            if before is not None and not may_go_back:
                assert facts.version >= before.version, f"the reader of {facts.stream} went back"
            kept[facts.stream] = Shown(
                *(facts.epoch, facts.version, facts.outcome.value, facts.content_hash),
                facts.support_pairs,
            )
    return kept


def assert_newest(kept: Mapping[str, Shown], truth: Mapping[str, Shown]) -> None:
    """Equal but for the epoch; of a fallback, which is published once, only that it is one."""
    assert kept.keys() == truth.keys()
    for stream, wanted in truth.items():
        found = kept[stream]
        if wanted.outcome in LEARNED:
            assert found[1:] == wanted[1:], stream
        else:
            assert found.outcome not in LEARNED, stream
            assert found.content_hash == wanted.content_hash, stream
            assert found.version <= wanted.version, stream


def assert_windows(found: Mapping[StreamPlace, list[Entry]], truth: Truth) -> None:
    """Every window complete, in order, to the bit."""
    wanted = truth.windows()
    assert found.keys() == wanted.keys()
    for place, entries in wanted.items():
        assert [e.id for e in found[place]] == [e.id for e in entries], place
        assert found[place] == entries, place


def eventually(
    condition: Callable[[], bool], timeout_s: float = 20, why: Callable[[], str] = lambda: ""
) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {timeout_s} s: {why()}")
        time.sleep(0.2)
