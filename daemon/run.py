"""`adaptd run`: put the parts together, turn until told to stop, and end in good order."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from threading import Event, Thread
from types import FrameType
from typing import TypeVar

import numpy as np
import torch
from structlog.stdlib import BoundLogger

from daemon import logs
from daemon.adapters.http import HttpServer
from daemon.adapters.kafka_outbox import KafkaOutbox
from daemon.adapters.kafka_source import KafkaSource
from daemon.adapters.kafka_topics import KafkaTopics
from daemon.adapters.redis_windows import RedisWindows, WindowLayout
from daemon.batching import BatchPolicy
from daemon.clock import SystemClock
from daemon.config import Settings
from daemon.errors import Misconfigured, Unavailable
from daemon.health import Health, Snapshot
from daemon.loop import Loop, LoopPolicy, Ports
from daemon.metrics import Metrics
from daemon.ownership import StartPolicy
from daemon.publishing import Outlet, Topics
from daemon.topics import TopicInfo, faults, mapping_bytes, specs
from daemon.window import WindowShape
from daemon.wire.paired_event import EventLimits
from model.engine import Engine
from model.episode import Episode
from model.errors import BadMetaInit
from model.meta_init import load, shipped

FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 2.0
LONGEST_STOP_S = 8.0
"""From the signal to the end: a supervisor waits 10 s, and Kafka may hold a turn for longer."""


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises Misconfigured before any polling."""
    instance = settings.instance or f"{socket.gethostname()}-{os.getpid()}-{int(time.time()):x}"
    logger = logs.configure(settings.log_level, settings.log_format, instance)
    engine = load_engine(settings)
    metrics = _metrics(engine)
    health = Health(_snapshot(instance, engine), settings.liveness_max_age_s)
    metrics.watch_ready(lambda: health.ready()[0])
    stop, ended = _stop_on_signals(), Event()
    Thread(target=_end_in_time, args=(stop, ended, logger), name="stop", daemon=True).start()
    with ExitStack() as stack:
        stack.callback(ended.set)
        http = HttpServer(settings.http_host, settings.http_port, metrics.registry, health)
        stack.callback(http.close)
        logger.info("starting", http=http.url, **_facts(engine))
        ports = _insist(
            lambda: stack.enter_context(connect(settings, engine, instance)),
            Observers(logger, metrics, health, stop),
        )
        if ports is not None:
            logger.info("connected", topic=settings.kafka_events_topic)
            loop = Loop(loop_policy(settings, engine), ports, _outlet(settings, engine), instance)
            _serve(loop, ports, Observers(logger, metrics, health, stop))
        health.stopping()
        logger.info("stopping")
    logger.info("stopped")
    return 0


@dataclass(frozen=True, slots=True)
class Observers:
    """Who hears of each turn, and who may end them."""

    logger: BoundLogger
    metrics: Metrics
    health: Health
    stop: Event

    def gave_up(self, error: Unavailable, retry_in_s: float) -> None:
        """A turn, or the start, ended early."""
        self.metrics.gave_up(error.service)
        self.health.gave_up(error, time.time())
        logs.TurnLog(self.logger).gave_up(error, retry_in_s)


def _serve(loop: Loop, ports: Ports, observers: Observers) -> None:
    turn_log = logs.TurnLog(observers.logger)
    retry_in_s = FIRST_RETRY_S
    while not observers.stop.is_set():
        try:
            report = loop.turn()
        except Unavailable as e:
            observers.gave_up(e, retry_in_s)
            loop.recover()
            observers.stop.wait(retry_in_s)
            retry_in_s = min(2 * retry_in_s, LONGEST_RETRY_S)
        else:
            retry_in_s = FIRST_RETRY_S
            now = time.time()
            observers.metrics.record(report, now)
            observers.health.finished(report, joined=ports.source.joined(), at=now)
            turn_log.finished(report)


T = TypeVar("T")


def _insist(connect: Callable[[], T], observers: Observers) -> T | None:
    """Connect, however long the services take to come up; None when told to stop meanwhile."""
    retry_in_s = FIRST_RETRY_S
    while not observers.stop.is_set():
        try:
            return connect()
        except Unavailable as e:
            observers.gave_up(e, retry_in_s)
            observers.stop.wait(retry_in_s)
            retry_in_s = min(2 * retry_in_s, LONGEST_RETRY_S)
    return None


def _stop_on_signals() -> Event:
    """Set by the first SIGTERM or SIGINT; the second ends the process as it stands."""
    stop = Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return stop


def _end_in_time(stop: Event, ended: Event, logger: BoundLogger) -> None:
    """What is cut short here the next worker repeats, as after any crash."""
    stop.wait()
    if not ended.wait(LONGEST_STOP_S):
        logger.warning("stopped_unfinished", after_s=LONGEST_STOP_S)
        os._exit(1)


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


def _outlet(settings: Settings, engine: Engine) -> Outlet:
    topics = Topics(
        settings.kafka_events_topic,
        settings.kafka_mappings_topic,
        settings.kafka_dead_letters_topic,
    )
    return Outlet(topics, engine, settings.dead_letter_max_bytes)


def _metrics(engine: Engine) -> Metrics:
    metrics = Metrics()
    metrics.serves(engine, engine.device)
    if engine.device.startswith("cuda"):
        metrics.watch_gpu(lambda: float(torch.cuda.memory_allocated(engine.device)))
    return metrics


def _snapshot(instance: str, engine: Engine) -> Snapshot:
    return Snapshot(
        instance=instance,
        version=version("adaptd"),
        meta_init=engine.meta_init_version,
        device=engine.device,
        started_at=time.time(),
    )


def _facts(engine: Engine) -> dict[str, object]:
    return {
        "meta_init": engine.meta_init_version,
        "encoder": engine.encoder_version,
        "maps": f"{engine.source_modality} ({engine.source_dim}) -> "
        f"{engine.target_modality} ({engine.target_dim})",
        "device": engine.device,
        "torch_threads": torch.get_num_threads(),
    }
