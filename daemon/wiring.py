"""Which parts make a worker: θ's engine, the ports, the policy, as the settings say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import torch

from daemon.adapters.kafka_outbox import KafkaOutbox
from daemon.adapters.kafka_source import KafkaSource
from daemon.adapters.kafka_topics import KafkaTopics
from daemon.adapters.redis_windows import RedisWindows, WindowLayout
from daemon.batching import BatchPolicy
from daemon.clock import SystemClock
from daemon.config import Settings
from daemon.errors import Misconfigured
from daemon.loop import LoopPolicy, Ports
from daemon.ownership import StartPolicy
from daemon.publishing import Outlet, Topics
from daemon.topics import TopicInfo, faults, mapping_bytes, specs
from daemon.window import WindowShape
from daemon.wire.paired_event import EventLimits
from model.engine import Engine
from model.episode import Episode
from model.errors import BadMetaInit
from model.meta_init import load, shipped


def load_engine(settings: Settings) -> Engine:
    """θ on its device. Raises Misconfigured when it is not what the settings say."""
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    try:
        engine = Engine(
            load(settings.meta_init or shipped()),
            settings.device,
            support_capacity=settings.support_size,
            query_capacity=settings.query_size,
        )
    except BadMetaInit as e:
        raise Misconfigured(f"ADAPTD_META_INIT: {e}") from e
    except ValueError as e:
        raise Misconfigured(f"ADAPTD_DEVICE = {settings.device!r}: {e}") from e
    _refuse_other_dimensions(settings, engine)
    _warm(engine)
    return engine


def _refuse_other_dimensions(settings: Settings, engine: Engine) -> None:
    for name in ("source_modality", "target_modality", "source_dim", "target_dim"):
        wanted, has = getattr(settings, name), getattr(engine, name)
        if wanted not in (None, has):
            raise Misconfigured(
                f"ADAPTD_{name.upper()} = {wanted!r}: θ {engine.meta_init_version} has {has!r}"
            )


def _warm(engine: Engine) -> None:
    """torch's first call takes a second; better now than in the first turn."""
    x_1D = np.zeros((1, engine.source_dim), np.float32)
    y_1E = np.zeros((1, engine.target_dim), np.float32)
    engine.adapt([Episode(x_1D, y_1E, x_1D, y_1E)])


@contextmanager
def connect(settings: Settings, engine: Engine, instance: str) -> Iterator[Ports]:
    """The loop's ports, closed in the order that loses nothing: what was produced is flushed
    before the group hears that we leave. Raises Unavailable, Misconfigured."""
    events_topic = require_topics(settings, engine)
    layout = WindowLayout(
        prefix=settings.redis_prefix,
        group=settings.kafka_group_id,
        incarnation=events_topic.incarnation,
        encoder_version=engine.encoder_version,
        window_size=settings.support_size + settings.query_size,
        source_dim=engine.source_dim,
        target_dim=engine.target_dim,
        window_ttl_s=settings.window_ttl_s,
    )
    url, timeout_s = settings.redis_url.get_secret_value(), settings.redis_timeout_ms / 1000
    with ExitStack() as stack:
        store = RedisWindows(url, timeout_s, layout)
        stack.callback(store.close)
        source = KafkaSource(settings, instance)
        stack.callback(source.close)
        outbox = KafkaOutbox(settings, instance)
        stack.callback(outbox.close)
        yield Ports(source, store, outbox, engine, SystemClock())


def require_topics(settings: Settings, engine: Engine) -> TopicInfo:
    """The events topic. Raises Misconfigured when a topic is missing or made wrongly."""
    size = mapping_bytes(engine.source_dim, engine.hidden_dim, engine.target_dim)
    wanted = specs(settings, size)
    topics = KafkaTopics(settings)
    try:
        found = topics.describe(spec.name for spec in wanted)
    finally:
        with suppress(Exception):  # a broken connection must not hide what broke it
            topics.close()
    for fault in faults(wanted, found):
        raise Misconfigured(fault)
    return found[settings.kafka_events_topic]


def loop_policy(settings: Settings, engine: Engine) -> LoopPolicy:
    """The settings, as the loop needs them."""
    return LoopPolicy(
        shape=WindowShape(
            support_size=settings.support_size,
            query_size=settings.query_size,
            min_support=settings.min_support,
            source_dim=engine.source_dim,
            target_dim=engine.target_dim,
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
        max_resident_streams=settings.max_resident_streams,
        verify_interval_s=2.0,
    )


def outlet(settings: Settings, engine: Engine) -> Outlet:
    topics = Topics(
        settings.kafka_events_topic,
        settings.kafka_mappings_topic,
        settings.kafka_dead_letters_topic,
    )
    return Outlet(topics, engine, settings.dead_letter_max_bytes)
