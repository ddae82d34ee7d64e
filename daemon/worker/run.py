"""`adaptd run`: runs turns until it is told to stop, and ends in good order."""

from __future__ import annotations

import gc
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TypeVar

import torch

from daemon.backoff import Backoff
from daemon.canary.follow import (
    CanaryFollower,
    CandidateGone,
    CandidateReady,
    CandidateRefused,
)
from daemon.config import Settings
from daemon.errors import Refused, Unavailable
from daemon.thetas.follow import Follower, Ready
from daemon.turn.loop import Loop
from daemon.turn.ports import Ports
from daemon.turn.report import TurnReport
from daemon.worker import logs
from daemon.worker.build import build_facts
from daemon.worker.health import Health, Snapshot
from daemon.worker.http import HttpServer
from daemon.worker.log_sink import LogSink
from daemon.worker.logs import TurnLog
from daemon.worker.metrics import Metrics
from daemon.worker.observers import Observers, engine_facts
from daemon.worker.stopping import Stop
from daemon.worker.timed_ports import timed
from daemon.worker.wiring import (
    Successor,
    candidate_shadow,
    followers,
    load_engine,
    loop_policy,
    message_builder,
    on_cpu,
    open_ports,
    open_tracing,
    require_redis,
    traced,
)
from model.serving.engine import Engine
from model.values.errors import DeviceLost

BACKOFF = Backoff(first_s=0.1, longest_s=2.0)
"""Between tries while Kafka or Redis does not answer."""

T = TypeVar("T")


def serve(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT, and returns the exit code. Raises Misconfigured."""
    stop = Stop()
    stop.listen()
    instance = settings.instance or f"{socket.gethostname()}-{os.getpid()}-{int(time.time()):x}"
    sink = LogSink(sys.stderr)
    logger = logs.configure(settings.log_level, settings.log_format, instance, sink)
    logs.adopt_libraries(logger)
    engine = load_engine(settings)
    metrics = _metrics(settings, engine, sink)
    health = Health(_snapshot(instance, engine), settings.liveness_max_age_s, time.monotonic())
    metrics.watch_ready(lambda: health.ready()[0])
    within_s = settings.stop_timeout_s
    stop.enforce(within_s, lambda: logger.warning("stopped_unfinished", after_s=within_s))
    with ExitStack() as stack:
        tracing = stack.enter_context(open_tracing(settings, instance))
        observers = Observers(logger, TurnLog(logger), metrics, health, tracing)
        http = HttpServer(settings.http_host, settings.http_port, metrics.registry, health)
        stack.callback(http.close)
        logger.info("starting", http=http.url, **engine_facts(engine))
        following, canaries = _followers(settings, engine, instance, stack)
        if following and _retried(following.poll_catalogue, observers, stop) is not None:
            engine = _first_engine(following, engine, observers)
        redis = _retried(lambda: require_redis(settings), observers, stop)
        ports = _retried(
            lambda: stack.enter_context(open_ports(settings, engine, instance)), observers, stop
        )
        ports = ports and _timed(ports, metrics)
        if ports is not None and redis is not None:
            told = {"redis": redis.version, "evicts": redis.eviction}
            logger.info("connected", topic=settings.kafka_events_topic, **told)
            messages = message_builder(settings, engine)
            policy = loop_policy(settings, engine)
            loop = Loop(policy, traced(ports, tracing), messages, instance)
            worker = Worker(loop, ports, engine, settings, metrics, canaries)
            if canaries:
                canaries.led_by(lambda: loop.owns(0))
                canaries.serves(engine.theta)
            if following:
                following.start(engine.theta)
            _spare_the_garbage_collector()
            _turn_until_stopped(worker, following, observers, stop)
        health.stopping()
        logger.info("stopping")
    logger.info("stopped")
    return 0


def _retried(connect: Callable[[], T], observers: Observers, stop: Stop) -> T | None:
    """Connects, however long the services take to come up. Returns None when a stop is requested
    first."""
    failures = 0
    while not stop.requested:
        try:
            return connect()
        except Unavailable as e:
            failures += 1
            retry_in_s = BACKOFF.wait_s(failures, random.random())
            observers.gave_up(e, retry_in_s)
            stop.wait(retry_in_s)
    return None


def _timed(ports: Ports, metrics: Metrics) -> Ports:
    """Returns the ports, whose calls are counted."""
    return replace(
        ports,
        source=timed(ports.source, "kafka", metrics),
        store=timed(ports.store, "redis", metrics),
        outbox=timed(ports.outbox, "kafka", metrics),
    )


def _spare_the_garbage_collector() -> None:
    """Makes searches for reference cycles rare. A turn makes tens of thousands of objects that
    reference counting frees, and a few for each stream that stay; by default the collector would
    look at all of those after every 700. What the start made is never looked at again. Cycles come
    only from faults, after which the collector is called."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


# ---- turns


@dataclass(slots=True)
class Worker:
    """The loop, and what it runs on."""

    loop: Loop
    ports: Ports
    engine: Engine
    settings: Settings
    metrics: Metrics
    canaries: CanaryFollower[Engine] | None = None

    def change_to(self, successor: Successor) -> None:
        """Serves another engine from the next turn on. It has no candidate beside it yet."""
        store = timed(successor.store, "redis", self.metrics)
        self.loop.serve(successor.engine, store, successor.messages).close()
        self.engine = successor.engine
        if self.canaries:
            self.canaries.serves(successor.engine.theta)

    def judge(self, ready: CandidateReady[Engine]) -> None:
        """Judges a candidate from the next turn on, if it is to be judged beside what is served."""
        if ready.canary.against_hash == self.engine.theta.content_hash:
            found = candidate_shadow(self.settings, ready.canary, self.engine, ready.engine)
            self.loop.shadow(found)


def _turn_until_stopped(
    worker: Worker, following: Follower[Successor] | None, observers: Observers, stop: Stop
) -> None:
    failures = 0
    while not stop.requested:
        try:
            if following:
                _change_over(following, worker, observers)
            _follow_canaries(worker, observers)
            report = _turn(worker, observers)
        except (Unavailable, Refused) as e:  # a right that was withdrawn may be given back
            failures += 1
            retry_in_s = BACKOFF.wait_s(failures, random.random())
            observers.gave_up(e, retry_in_s)
            worker.loop.recover()
            gc.collect()  # clients that are thrown away hold sockets in cycles
            stop.wait(retry_in_s)
        else:
            failures = 0
            if report is not None:
                observers.finished(report, joined=worker.ports.source.joined())
                if report.shadow.fault and worker.canaries:
                    worker.canaries.failed()
    with suppress(Unavailable, Refused):  # what is not committed is read again
        worker.loop.finish()


def _turn(worker: Worker, observers: Observers) -> TurnReport | None:
    """Runs one turn. Returns None when the device is lost: the CPU then starts from what Kafka and
    Redis have, as after any fault."""
    try:
        return worker.loop.turn()
    except DeviceLost as e:
        observers.lost_device(worker.engine.device, e)
    worker.change_to(on_cpu(worker.settings, worker.engine))
    observers.serves(worker.engine, swapped=False)
    return None


# ---- the θ that is active in the meta-inits topic


def _followers(
    settings: Settings, engine: Engine, instance: str, stack: ExitStack
) -> tuple[Follower[Successor] | None, CanaryFollower[Engine] | None]:
    if not settings.follow_meta_inits:
        return None, None
    following, canaries = followers(settings, engine, instance)
    if canaries:
        stack.callback(canaries.close)
    stack.callback(following.close)
    return following, canaries


def _first_engine(
    following: Follower[Successor], configured: Engine, observers: Observers
) -> Engine:
    """Returns the engine of the active θ if it can be served, or else the configured one."""
    engine = configured
    for news in following.news():
        if isinstance(news, Ready):
            engine = news.successor.engine
            observers.serves(engine, swapped=False)
        else:
            observers.on_news(news)
    return engine


def _change_over(following: Follower[Successor], worker: Worker, observers: Observers) -> None:
    """Changes, between two turns, to a θ that has become active and is ready."""
    for news in following.news():
        if isinstance(news, Ready):
            worker.change_to(news.successor)
            observers.serves(worker.engine, swapped=True)
        else:
            observers.on_news(news)


def _follow_canaries(worker: Worker, observers: Observers) -> None:
    """Judges, between two turns, a candidate that is ready, or stops to."""
    if worker.canaries is None:
        return
    for news in worker.canaries.news():
        match news:
            case CandidateReady():
                worker.judge(news)
            case CandidateGone() | CandidateRefused():
                worker.loop.shadow(None)
        observers.on_canary(news)


# ---- what metrics and /status begin with


def _metrics(settings: Settings, engine: Engine, sink: LogSink) -> Metrics:
    metrics = Metrics(build_facts(settings.kafka_client))
    metrics.watch_log(lambda: sink.lost_lines)
    metrics.serves(engine.theta, engine.device)
    if engine.device.startswith("cuda"):
        device = engine.device  # not the engine, which may be followed by another one
        memory = int(torch.cuda.get_device_properties(device).total_memory)
        metrics.watch_gpu(lambda: float(torch.cuda.memory_allocated(device)), memory)
    return metrics


def _snapshot(instance: str, engine: Engine) -> Snapshot:
    return Snapshot(
        instance=instance,
        version=version("adaptd"),
        meta_init=engine.theta.version,
        meta_init_hash=engine.theta.content_hash,
        device=engine.device,
        started_at=time.time(),
    )
