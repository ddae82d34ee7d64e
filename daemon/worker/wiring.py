"""Makes the parts of a worker as the settings say: the engine, the ports, the policy.

D = source dim, E = target dim
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import torch

from daemon.adapters.kafka_python.aside import KafkaPythonReader
from daemon.adapters.kafka_python.evidence import KafkaPythonEvidence
from daemon.adapters.kafka_python.meta_inits import KafkaPythonMetaInits
from daemon.adapters.kafka_python.outbox import KafkaPythonOutbox
from daemon.adapters.kafka_python.source import KafkaPythonEventSource
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.adapters.redis.info import RedisInfo, describe
from daemon.adapters.redis.keys import WindowLayout
from daemon.adapters.redis.windows import RedisWindowStore
from daemon.canary.assignment import shadows
from daemon.canary.follow import CanaryFollower
from daemon.config import Settings
from daemon.errors import Misconfigured, RefusedMetaInit
from daemon.thetas.active import signature_of
from daemon.thetas.follow import Follower
from daemon.turn.batching import BatchPolicy
from daemon.turn.messages import MessageBuilder, Topics
from daemon.turn.ownership import StartPolicy
from daemon.turn.policy import LoopPolicy
from daemon.turn.ports import EventSource, Outbox, Ports, WindowStore
from daemon.turn.shadow import Shadow
from daemon.turn.window import WindowShape
from daemon.wire.canary import Canary
from daemon.wire.mapping_body import MappingForm
from daemon.wire.paired_event import EventLimits
from daemon.wire.topics import TopicInfo, faults, group_faults, mapping_bytes, specs
from daemon.worker.cgroup import Cgroup
from daemon.worker.clock import SystemClock
from daemon.worker.memory import require_memory
from model.serving.engine import Engine
from model.theta.info import ThetaInfo
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import load_meta_init, shipped
from model.values.episode import Cut
from model.values.errors import BadMetaInit
from model.values.outside import described

if TYPE_CHECKING:
    from daemon.adapters.tracing import Tracing  # imports OpenTelemetry, which is an extra

T_co = TypeVar("T_co", covariant=True)


class Opens(Protocol[T_co]):
    """Makes one end of a Kafka client, an EventSource or an Outbox, and connects it. Raises
    Unavailable, Misconfigured."""

    def __call__(self, settings: Settings, client_id: str) -> T_co: ...


@dataclass(frozen=True, slots=True)
class Successor:
    """What `Loop.serve` takes to serve another θ: its engine, the store with windows of its
    features, and the builder of its messages."""

    engine: Engine
    store: WindowStore
    messages: MessageBuilder


def load_engine(settings: Settings) -> Engine:
    """Returns an engine with the configured θ on its device. Raises Misconfigured when θ or the
    device is not what the settings say."""
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    try:
        engine = engine_of(settings, load_meta_init(settings.meta_init or shipped()))
    except BadMetaInit as e:
        raise Misconfigured(f"ADAPTD_META_INIT: {e}") from e
    except OSError as e:
        folder = settings.window_spill_dir
        raise Misconfigured(f"ADAPTD_WINDOW_SPILL_DIR = '{folder}': {e}") from e
    except ValueError as e:
        raise Misconfigured(f"ADAPTD_DEVICE = {settings.device!r}: {e}") from e
    except Exception as e:  # a θ comes from outside, and may break its engine in any way
        detail = f"cannot be served on {settings.device!r}: {described(e)}"
        raise Misconfigured(f"ADAPTD_META_INIT: {settings.meta_init}: {detail}") from e
    _require_dimensions(settings, engine.theta)
    theta = engine.theta
    size = mapping_bytes(theta.source_dim, theta.hidden_dim, theta.target_dim)
    require_memory(settings, size, Cgroup().memory_limit())
    return engine


def engine_of(settings: Settings, theta: MetaInit, device: str | None = None) -> Engine:
    """Returns an engine that serves θ as the settings say, and has adapted once. Raises whatever a
    θ from outside breaks in it."""
    engine = Engine(
        theta,
        device or settings.device,
        support_capacity=settings.support_size,
        query_capacity=settings.query_size,
        extra_steps=settings.extra_steps,
        ridge=settings.gate_ridge,
        spill_dir=settings.window_spill_dir,
    )
    _warm(engine)
    return engine


def _require_dimensions(settings: Settings, theta: ThetaInfo) -> None:
    for name in ("source_modality", "target_modality", "source_dim", "target_dim"):
        wanted, has = getattr(settings, name), getattr(theta, name)
        if wanted not in (None, has):
            raise Misconfigured(
                f"ADAPTD_{name.upper()} = {wanted!r}: θ {theta.version} has {has!r}"
            )


def followers(
    settings: Settings, engine: Engine, instance: str
) -> tuple[Follower[Successor], CanaryFollower[Engine] | None]:
    """Returns a follower of the meta-inits topic, not started, and the follower of canaries that it
    calls, unless those are off. `engine` serves the configured θ.

    An active θ must map what the settings say, or what the θ maps that the settings name; the
    shipped θ does not bind an active one.
    """
    wanted = signature_of(engine.theta if settings.meta_init else settings)
    topic = KafkaPythonMetaInits(settings, f"{instance}-meta-inits")
    canaries = None
    if settings.canary != "off":
        canaries = CanaryFollower(
            (topic, KafkaPythonEvidence(settings, f"{instance}-evidence")),
            lambda theta: candidate_engine(settings, theta),
            SystemClock().wall_ms,
            f"canary@{instance}" if settings.canary == "auto" else None,
        )
    following = Follower(
        topic,
        lambda theta: successor(settings, theta),
        wanted,
        engine.theta.content_hash,
        canaries.poll if canaries else lambda _: None,
    )
    return following, canaries


def candidate_engine(settings: Settings, theta: MetaInit) -> Engine:
    """Makes a candidate ready to be judged. Raises RefusedMetaInit, Unavailable."""
    engine = _usable_engine(settings, theta)
    _require_fit_topics(settings, engine)
    return engine


def candidate_shadow(settings: Settings, canary: Canary, serving: Engine, ours: Engine) -> Shadow:
    """Returns what judges a canary's candidate, which `ours` serves, beside the served θ."""
    return Shadow(
        canary,
        partial(shadows, canary),
        (serving, ours),
        loop_policy(settings, serving).shape,
        settings.kafka_evidence_topic,
    )


def successor(settings: Settings, theta: MetaInit) -> Successor:
    """Makes another θ ready to be served. Raises RefusedMetaInit, Unavailable."""
    engine = _usable_engine(settings, theta)
    events_topic = _require_fit_topics(settings, engine)
    store = open_store(settings, engine, events_topic.incarnation)
    return Successor(engine, store, message_builder(settings, engine))


def _usable_engine(settings: Settings, theta: MetaInit) -> Engine:
    try:
        return engine_of(settings, theta)
    except Exception as e:  # whatever a θ from outside breaks, the θ before is served on
        detail = f"θ {theta.version}: {type(e).__name__}: {e}"
        raise RefusedMetaInit("unusable", detail) from e


def _require_fit_topics(settings: Settings, engine: Engine) -> TopicInfo:
    try:
        return require_topics(settings, engine)
    except Misconfigured as e:
        raise RefusedMetaInit("unfit_topics", f"θ {engine.theta.version}: {e}") from e


def on_cpu(settings: Settings, lost: Engine) -> Successor:
    """Makes the same θ ready on the CPU, when its device is lost. Raises Unavailable,
    Misconfigured."""
    engine = engine_of(settings, lost.meta_init, "cpu")
    events_topic = require_topics(settings, engine)
    store = open_store(settings, engine, events_topic.incarnation)
    return Successor(engine, store, message_builder(settings, engine))


def _warm(engine: Engine) -> None:
    """Adapts once: torch's first call takes a second, which the first turn would have to wait."""
    x_D = np.zeros(engine.theta.source_dim, np.float32)
    y_E = np.zeros(engine.theta.target_dim, np.float32)
    windows = engine.windows(1)
    windows.append([0, 0], [x_D, x_D], [y_E, y_E])
    windows.adapt([Cut(0, 1, 1)])


@contextmanager
def open_tracing(settings: Settings, instance: str) -> Iterator[Tracing | None]:
    """Sends spans for the block where the settings ask for it, and imports OpenTelemetry only then.
    Raises Misconfigured when it is not installed."""
    if not settings.tracing:
        yield None
        return
    try:
        from daemon.adapters.tracing import exported
    except ImportError as e:
        raise Misconfigured(
            f"ADAPTD_TRACING = True: {e}; run pip install '.[tracing]' in the folder that adaptd "
            "was installed from"
        ) from e
    with exported(instance, settings.kafka_mappings_topic) as tracing:
        yield tracing


def traced(ports: Ports, tracing: Tracing | None) -> Ports:
    """Returns the ports with a source and an outbox that carry trace contexts on."""
    if tracing is None:
        return ports
    from daemon.adapters.tracing import TracedEventSource, TracedOutbox

    source, outbox = TracedEventSource(ports.source, tracing), TracedOutbox(ports.outbox, tracing)
    return replace(ports, source=source, outbox=outbox)


@contextmanager
def open_ports(settings: Settings, engine: Engine, instance: str) -> Iterator[Ports]:
    """Opens the loop's ports, and closes them in the order that loses nothing: the last appends end
    and the outbox stops before the worker leaves the group, and the store closes last. Raises
    Unavailable, Misconfigured."""
    events_topic = require_topics(settings, engine)
    with ExitStack() as stack:
        store = open_store(settings, engine, events_topic.incarnation)
        stack.callback(store.close)
        open_source, open_outbox = kafka_clients(settings)
        source = open_source(settings, instance)
        stack.callback(source.close)
        outbox = open_outbox(settings, instance)
        stack.callback(outbox.close)
        # one thread, so that appends end in the order in which they were submitted
        executor = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="store"))
        yield Ports(source, store, outbox, engine, SystemClock(), executor)


def kafka_clients(settings: Settings) -> tuple[Opens[EventSource], Opens[Outbox]]:
    """Returns the classes that read events and write mappings with the client that the settings
    name; imports librdkafka only then. Raises Misconfigured when it is not installed."""
    if settings.kafka_client == "kafka-python":
        return KafkaPythonEventSource, KafkaPythonOutbox
    try:
        from daemon.adapters.librdkafka.outbox import LibrdkafkaOutbox
        from daemon.adapters.librdkafka.source import LibrdkafkaEventSource
    except ImportError as e:
        raise Misconfigured(
            f"ADAPTD_KAFKA_CLIENT = 'librdkafka': {e}; run pip install "
            "'.[librdkafka]' in the folder that adaptd was installed from"
        ) from e
    return partial(LibrdkafkaEventSource, open_reader=KafkaPythonReader), LibrdkafkaOutbox


def open_store(settings: Settings, engine: Engine, incarnation: str) -> RedisWindowStore:
    """Returns the store of windows with this engine's features, of the topic of this incarnation.
    It connects when it is first used."""
    layout = WindowLayout(
        prefix=settings.redis_prefix,
        group=settings.kafka_group_id,
        incarnation=incarnation,
        encoder_version=engine.theta.encoder_version,
        window_size=settings.support_size + settings.query_size,
        source_dim=engine.theta.source_dim,
        target_dim=engine.theta.target_dim,
        window_ttl_s=settings.window_ttl_s,
        topic=settings.kafka_events_topic,
    )
    timeout_s = settings.redis_timeout_ms / 1000
    return RedisWindowStore(settings.redis_url.get_secret_value(), timeout_s, layout)


def require_redis(settings: Settings) -> RedisInfo:
    """Returns what Redis says of itself. Raises Misconfigured when it evicts windows, Refused when
    it refuses us, and Unavailable. Where it does not say what it evicts, nothing is concluded."""
    url = settings.redis_url.get_secret_value()
    info = describe(url, settings.redis_timeout_ms / 1000)
    if fault := eviction_fault(info, settings):
        raise Misconfigured(fault)
    return info


def eviction_fault(info: RedisInfo, settings: Settings) -> str | None:
    """Returns in a line what is wrong with the keys that Redis evicts."""
    if info.eviction in (None, "noeviction") or settings.redis_allow_eviction:
        return None
    return (
        f"redis: maxmemory-policy is {info.eviction}: it may drop windows; use noeviction, or "
        "insist with --allow-eviction (ADAPTD_REDIS_ALLOW_EVICTION=true)"
    )


def require_topics(settings: Settings, engine: Engine) -> TopicInfo:
    """Returns what Kafka says of the events topic. Raises Misconfigured when a topic is missing or
    has the wrong configuration, and Unavailable."""
    theta = engine.theta
    size = mapping_bytes(theta.source_dim, theta.hidden_dim, theta.target_dim)
    wanted = specs(settings, size)
    topics = KafkaTopics(settings)
    try:
        found = topics.describe(spec.name for spec in wanted)
        group = topics.group_rights(settings.kafka_group_id)
    finally:
        with suppress(Exception):  # a broken connection must not hide what broke it
            topics.close()
    for fault in chain(faults(wanted, found), group_faults(settings, group)):
        raise Misconfigured(f"kafka: {fault}")
    return found[settings.kafka_events_topic]


def loop_policy(settings: Settings, engine: Engine) -> LoopPolicy:
    """Returns the settings in the form that the loop takes."""
    return LoopPolicy(
        shape=WindowShape(
            support_size=settings.support_size,
            query_size=settings.query_size,
            min_support=settings.min_support,
            source_dim=engine.theta.source_dim,
            target_dim=engine.theta.target_dim,
        ),
        batch=BatchPolicy(settings.max_batch, settings.max_wait_ms / 1000),
        limits=EventLimits(settings.max_event_bytes, settings.max_pairs_per_event),
        start=StartPolicy(
            offset_reset=settings.kafka_offset_reset,
            rebuild_windows=settings.rebuild_windows,
            reclaim_after_s=settings.kafka_session_timeout_ms / 1000,
        ),
        publish_interval_s=settings.publish_interval_ms / 1000,
        max_poll_records=settings.kafka_max_poll_records,
        max_resident_streams=_most_resident(settings, engine),
        turn_interval_s=settings.turn_interval_ms / 1000,
        adapt_every=settings.adapt_every,
        adapt_latest_s=settings.adapt_latest_ms / 1000,
        prequential_streams=settings.prequential_streams,
        drift=settings.drift,
    )


def _most_resident(settings: Settings, engine: Engine) -> int:
    if not settings.window_memory_mib:
        return settings.max_resident_streams
    fit = settings.window_memory_mib * 2**20 // engine.windows(1).bytes_per_stream
    return max(1, min(fit, settings.max_resident_streams))


def message_builder(settings: Settings, engine: Engine) -> MessageBuilder:
    """Returns the builder of messages of this engine's θ, in the form that the settings name."""
    topics = Topics(
        settings.kafka_events_topic,
        settings.kafka_mappings_topic,
        settings.kafka_dead_letters_topic,
    )
    form = MappingForm(settings.mapping_encoding, settings.mapping_dtype)
    return MessageBuilder(topics, engine, settings.dead_letter_max_bytes, form)
