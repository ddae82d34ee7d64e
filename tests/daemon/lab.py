"""The loop on in-memory ports, a small engine and a clock that tests hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.adapters.memory import (
    MemoryEventSource,
    MemoryOutbox,
    MemoryShelf,
    MemoryTopic,
    MemoryWindowStore,
)
from daemon.turn.batching import BatchPolicy
from daemon.turn.loop import Loop
from daemon.turn.messages import MessageBuilder, Topics
from daemon.turn.ownership import StartPolicy
from daemon.turn.policy import LoopPolicy
from daemon.turn.ports import (
    AdaptationEngine,
    EventSource,
    Outbox,
    Ports,
    Side,
    Windows,
    WindowStore,
)
from daemon.turn.publishing import SLICE_BYTES
from daemon.turn.report import TurnReport
from daemon.turn.window import WindowShape
from daemon.wire import adapted_mapping, paired_event
from daemon.wire.adapted_mapping import AdaptedMapping
from daemon.wire.paired_event import EventLimits, PairedEvent, WirePair
from daemon.wire.record import Message
from model.encoders.vector_check import check_vector
from model.serving.windows import EpisodeWindows, RawWindows
from model.theta.info import ThetaInfo
from model.values.arrays import FloatArray, HalfArray
from model.values.episode import Adaptation, Candidate, Episode, QueryEvidence

D, E = 4, 3


class LinearEngine:
    """Vectors to vectors by ridge regression; θ maps all to zero. Without torch, so quick."""

    largest_window: int = 8

    theta = ThetaInfo(
        version="zero",
        content_hash="0" * 64,
        source_modality="vector",
        target_modality="vector",
        source_dim=D,
        hidden_dim=0,
        target_dim=E,
        activation="none",
        output_activation="none",
        encoder_version="identity",
        generator="mlp",
        learner="ridge",
        loss="mse",
    )

    def prepare(self, side: Side, modality: str, content: object) -> NDArray[Any]:
        return check_vector(content, D if side == "source" else E, side)

    def encode(self, side: Side, prepared: Sequence[NDArray[Any]]) -> FloatArray:
        return np.stack(prepared)

    def theta_mapping(self) -> Mapping[str, FloatArray]:
        return {"w": np.zeros((D, E), np.float32)}

    def to_half(self, numbers: FloatArray) -> HalfArray:
        return numbers.astype(np.float16)

    def windows(self, capacity: int) -> Windows:
        raw = RawWindows(capacity, self.largest_window, D, E)
        return EpisodeWindows(raw, lambda episodes, _: self.adapt(episodes))

    def adapt(self, episodes: Sequence[Episode]) -> list[Adaptation]:
        with np.errstate(over="ignore", invalid="ignore"):
            return [_fit(episode) for episode in episodes]


def _fit(episode: Episode) -> Adaptation:
    x_SD, y_SE = episode.x_support_SD, episode.y_support_SE
    gram_DD = x_SD.T @ x_SD + np.float32(0.1) * np.eye(D, dtype=np.float32)
    finite = bool(np.isfinite(gram_DD).all())
    w_DE = np.linalg.solve(gram_DD, x_SD.T @ y_SE) if finite else np.full((D, E), np.nan)
    x_QD, y_QE = episode.x_query_QD, episode.y_query_QE
    before, after = float((y_QE**2).mean()), float(((x_QD @ w_DE - y_QE) ** 2).mean())
    return Adaptation(
        tensors={"w": w_DE.astype(np.float32)},
        support_loss_before=float((y_SE**2).mean()),
        support_loss_after=float(((x_SD @ w_DE - y_SE) ** 2).mean()),
        query_loss_before=before,
        query_loss_after=after,
        finite=finite,
        winner=winner_by(before, after),
        judged_pairs=len(y_QE),
        evidence=evidence_of(x_QD @ w_DE if after <= before else 0 * y_QE, y_QE, y_SE.mean(0)),
    )


def evidence_of(o_QE: FloatArray, y_QE: FloatArray, mean_E: FloatArray) -> QueryEvidence:
    """What a judge measures of these outputs, padded to the largest query."""
    padding = (0, 4 - len(y_QE))
    o_QE, y_QE = o_QE - mean_E, y_QE - mean_E
    cosine_Q = 1 - (o_QE * y_QE).sum(1) / np.sqrt((o_QE**2).sum(1) * (y_QE**2).sum(1))
    return QueryEvidence(
        np.pad(((o_QE - y_QE) ** 2).sum(1), padding).astype(np.float32),
        np.pad(cosine_Q, padding).astype(np.float32),
        np.pad(np.ones(len(y_QE), np.bool_), padding),
    )


def winner_by(before: float, after: float) -> Candidate:
    """θ′ where its loss is no larger than θ's."""
    return Candidate.ADAPTED if after <= before else Candidate.THETA


LINEAR = LinearEngine()
POLICY = LoopPolicy(
    shape=WindowShape(support_size=6, query_size=2, min_support=2, source_dim=D, target_dim=E),
    batch=BatchPolicy(max_batch=8, max_wait_s=0.0),
    limits=EventLimits(max_event_bytes=10_000, max_pairs=4),
    start=StartPolicy(offset_reset="earliest", rebuild_windows=True, reclaim_after_s=10.0),
    publish_interval_s=0.0,
    max_poll_records=100,
    max_resident_streams=100,
    verify_interval_s=1e9,
)
TOPICS = Topics("events", "mappings", "letters")


@dataclass
class HeldClock:
    """Time stands still until a test moves it."""

    at: float = 1_000.0

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds

    def wall_ms(self) -> int:
        return int(self.at * 1_000)


@dataclass
class World:
    """What outlives a worker: the events, the store, what was published."""

    topic: MemoryTopic = field(default_factory=lambda: MemoryTopic(2))
    shelf: MemoryShelf = field(default_factory=MemoryShelf)
    outbox: MemoryOutbox = field(default_factory=MemoryOutbox)
    clock: HeldClock = field(default_factory=HeldClock)

    def feed(self, key: str, count: int = 1, seed: int = 0, scale: float = 1.0) -> None:
        """Events of one pair each; what they hold depends on the stream, the offset and the seed.

        The pairs of a stream lie on a map of its own that θ can be adapted to.
        """
        partition = partition_of(key)
        for _ in range(count):
            offset = len(self.topic.log[partition])
            self.produce(key, event(pair_of(key, offset + 1_000 * seed, scale)))

    def produce(self, key: str, value: bytes | None) -> None:
        self.topic.produce(
            partition_of(key), key.encode(), value, timestamp_ms=self.clock.wall_ms()
        )

    def of(self, topic: str) -> list[Message]:
        """Messages sent to one topic, oldest first."""
        return [message for message in self.outbox.sent if message.topic == topic]

    def mappings(self, key: str | None = None) -> list[AdaptedMapping]:
        """Every mapping published, of one stream or of all."""
        sent = [m for m in self.of(TOPICS.mappings) if key is None or m.key == key.encode()]
        return [adapted_mapping.decode_mapping(message.value or b"") for message in sent]

    def newest(self) -> dict[str, AdaptedMapping]:
        """What a reader ends with: the largest (epoch, version) of each stream."""
        ranked = sorted(self.mappings(), key=lambda m: (m.facts.epoch, m.facts.version))
        return {mapping.facts.stream: mapping for mapping in ranked}


class Worker:
    """One loop on the world, its ports wrapped by whoever wants to disturb them."""

    def __init__(
        self,
        world: World,
        policy: LoopPolicy = POLICY,
        *,
        engine: AdaptationEngine = LINEAR,
        partitions: Sequence[int] | None = None,
        shelf: MemoryShelf | None = None,
        source: Callable[[EventSource], EventSource] = lambda port: port,
        store: Callable[[WindowStore], WindowStore] = lambda port: port,
        outbox: Callable[[Outbox], Outbox] = lambda port: port,
        name: str = "w",
    ) -> None:
        self.world = world
        self._policy, self._wrap = policy, store
        self.source = MemoryEventSource(world.topic, partitions)
        self.store = MemoryWindowStore(policy.shape.size, shelf or world.shelf)
        ports = Ports(
            source(self.source), store(self.store), outbox(world.outbox), engine, world.clock
        )
        self.loop = Loop(
            policy, ports, MessageBuilder(TOPICS, engine, dead_letter_max_bytes=900), name
        )

    def turn(self, after_s: float = 0.0) -> TurnReport:
        self.world.clock.at += after_s
        return self.loop.turn()

    def serve(self, engine: AdaptationEngine, shelf: MemoryShelf | None = None) -> None:
        """Another θ; with a shelf, its features have windows there."""
        self.store = MemoryWindowStore(self._policy.shape.size, shelf or self.store.shelf)
        messages = MessageBuilder(TOPICS, engine, dead_letter_max_bytes=900)
        self.loop.serve(engine, self._wrap(self.store), messages)

    def begin(self) -> None:
        """The first turn only claims."""
        report = self.turn()
        assert report.claimed
        assert not report.offsets

    def drain_for(self, turns: int) -> list[TurnReport]:
        """So many turns, also where something waits for longer."""
        return [self.turn(after_s=0.01) for _ in range(turns)]

    def drain(self) -> list[TurnReport]:
        """Turns until nothing is left to do."""
        reports = [self.turn(after_s=0.01)]
        while not at_rest(reports[-1]):
            reports.append(self.turn(after_s=0.01))
            assert len(reports) < 500, "the loop never comes to rest"
        return reports


def at_rest(report: TurnReport) -> bool:
    held = report.holdings
    return report.idle and not (held.changed or held.deferred or held.renewals)


def partition_of(key: str) -> int:
    return sum(key.encode()) % 2


def pair_of(key: str, number: int, scale: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """The pair of that number on the stream's own linear map."""
    map_DE = np.random.default_rng(sum(key.encode())).standard_normal((D, E))
    x_D = np.random.default_rng(number).standard_normal(D) * scale
    return x_D.astype(np.float32), (x_D @ map_DE).astype(np.float32)


def event(*pairs: tuple[FloatArray, FloatArray]) -> bytes:
    wire = [WirePair(paired_event.vector(x_D), paired_event.vector(y_E)) for x_D, y_E in pairs]
    return paired_event.encode_event(PairedEvent(wire))


def policy(
    max_wait_s: float = 0.0,
    max_batch: int = 8,
    publish_interval_s: float = 0.0,
    max_resident_streams: int = 100,
    verify_interval_s: float = 1e9,
    max_poll_records: int = 100,
    adapt_every: int = 1,
    adapt_latest_s: float = 1.0,
    turn_interval_s: float = 0.0,
    publish_slice_bytes: int = SLICE_BYTES,
) -> LoopPolicy:
    return replace(
        POLICY,
        batch=BatchPolicy(max_batch, max_wait_s),
        publish_interval_s=publish_interval_s,
        max_resident_streams=max_resident_streams,
        verify_interval_s=verify_interval_s,
        max_poll_records=max_poll_records,
        adapt_every=adapt_every,
        adapt_latest_s=adapt_latest_s,
        turn_interval_s=turn_interval_s,
        publish_slice_bytes=publish_slice_bytes,
    )
