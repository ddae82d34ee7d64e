"""`adaptd run`: turn until told to stop, and end in good order."""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TypeVar

import torch
from structlog.stdlib import BoundLogger

from daemon.config import Settings
from daemon.errors import Unavailable
from daemon.thetas.follow import Agreement, Follower, Ready, Refusal, Silence
from daemon.turn.loop import Loop
from daemon.turn.ports import Ports
from daemon.turn.report import TurnReport
from daemon.worker import logs
from daemon.worker.health import Health, Snapshot
from daemon.worker.http import HttpServer
from daemon.worker.metrics import Metrics
from daemon.worker.stopping import Stop
from daemon.worker.wiring import (
    Successor,
    follower,
    load_engine,
    loop_policy,
    message_builder,
    on_cpu,
    open_ports,
)
from model.serving.engine import Engine
from model.values.errors import DeviceLost

FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 2.0

T = TypeVar("T")


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises Misconfigured."""
    stop = Stop()
    stop.listen()
    instance = settings.instance or f"{socket.gethostname()}-{os.getpid()}-{int(time.time()):x}"
    logger = logs.configure(settings.log_level, settings.log_format, instance)
    engine = load_engine(settings)
    metrics = _metrics(engine)
    health = Health(_snapshot(instance, engine), settings.liveness_max_age_s)
    metrics.watch_ready(lambda: health.ready()[0])
    within_s = settings.stop_timeout_s
    stop.enforce(within_s, lambda: logger.warning("stopped_unfinished", after_s=within_s))
    observers = Observers(logger, metrics, health)
    with ExitStack() as stack:
        http = HttpServer(settings.http_host, settings.http_port, metrics.registry, health)
        stack.callback(http.close)
        logger.info("starting", http=http.url, **_facts(engine))
        following = _follow(settings, engine, instance, stack)
        if following and _insist(following.look, observers, stop) is not None:
            engine = _first(following, engine, observers)
        ports = _insist(
            lambda: stack.enter_context(open_ports(settings, engine, instance)), observers, stop
        )
        if ports is not None:
            logger.info("connected", topic=settings.kafka_events_topic)
            loop = Loop(
                loop_policy(settings, engine), ports, message_builder(settings, engine), instance
            )
            if following:
                following.start(engine)
            _leave_garbage_alone()
            worker = Worker(loop, ports, engine, settings)
            _turn_until_stopped(worker, following, observers, stop)
        health.stopping()
        logger.info("stopping")
    logger.info("stopped")
    return 0


def _leave_garbage_alone() -> None:
    """A turn makes ten thousands of short-lived objects that reference counting frees, beside one
    for each stream that lives on: a search for cycles at every 700 would look at those over and
    over. What the start made is never looked at again. Faults leave cycles, and collect them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@dataclass(frozen=True, slots=True)
class Observers:
    """Who hears of each turn."""

    logger: BoundLogger
    metrics: Metrics
    health: Health

    def gave_up(self, error: Unavailable, retry_in_s: float) -> None:
        """A turn, or the start, ended early."""
        self.metrics.gave_up(error.service)
        self.health.gave_up(error, time.time())
        logs.TurnLog(self.logger).gave_up(error, retry_in_s)

    def lost_device(self, device: str, error: DeviceLost) -> None:
        """The GPU does not compute any more."""
        self.metrics.device_lost()
        self.logger.error("device_lost", device=device, detail=str(error), going_on="cpu")

    def serves(self, engine: Engine, *, swapped: bool) -> None:
        """Another θ than the one before, or than the configured one."""
        self.metrics.serves(engine, engine.device)
        if swapped:
            self.metrics.swapped()
        self.health.serves(engine.meta_init_version, engine.meta_init_hash, engine.device)
        self.logger.info("meta_init_served", **_facts(engine))

    def heard(self, news: Refusal | Agreement | Silence) -> None:
        """Of the meta-inits topic; whatever serves goes on."""
        match news:
            case Refusal():
                self.metrics.refused(news.reason)
                self.health.refused(asdict(news))
                self.logger.error("meta_init_refused", **asdict(news))
            case Agreement():
                self.metrics.settled()
                self.health.refused(None)
            case Silence():
                self.logger.warning("meta_inits_not_followed", detail=news.detail)

    def finished(self, report: TurnReport, *, joined: bool) -> None:
        """A turn went through."""
        now = time.time()
        self.metrics.record(report, now)
        self.health.finished(report, joined=joined, at=now)
        logs.TurnLog(self.logger).finished(report)


@dataclass(slots=True)
class Worker:
    """The loop, and what it runs on."""

    loop: Loop
    ports: Ports
    engine: Engine
    settings: Settings

    def change_to(self, next: Successor) -> None:
        """Between two turns."""
        self.loop.serve(next.engine, next.store, next.messages).close()
        self.engine = next.engine


def _turn_until_stopped(
    worker: Worker, following: Follower[Successor] | None, observers: Observers, stop: Stop
) -> None:
    retry_in_s = FIRST_RETRY_S
    while not stop.asked:
        try:
            if following:
                _change_over(following, worker, observers)
            report = _turn(worker, observers)
        except Unavailable as e:
            observers.gave_up(e, retry_in_s)
            worker.loop.recover()
            gc.collect()  # clients that are thrown away hold sockets in cycles
            stop.wait(retry_in_s)
            retry_in_s = min(2 * retry_in_s, LONGEST_RETRY_S)
        else:
            retry_in_s = FIRST_RETRY_S
            if report is not None:
                observers.finished(report, joined=worker.ports.source.joined())
    with suppress(Unavailable):  # what is not committed is read again
        worker.loop.finish()


def _turn(worker: Worker, observers: Observers) -> TurnReport | None:
    """None when the device is gone: the CPU goes on from what is durable, as after any fault."""
    try:
        return worker.loop.turn()
    except DeviceLost as e:
        observers.lost_device(worker.engine.device, e)
    worker.change_to(on_cpu(worker.settings, worker.engine))
    observers.serves(worker.engine, swapped=False)
    return None


def _follow(
    settings: Settings, engine: Engine, instance: str, stack: ExitStack
) -> Follower[Successor] | None:
    if not settings.follow_meta_inits:
        return None
    following = follower(settings, engine, instance)
    stack.callback(following.close)
    return following


def _first(following: Follower[Successor], configured: Engine, observers: Observers) -> Engine:
    """What to begin with: the active θ if it can be served, else the configured one."""
    engine = configured
    for news in following.news():
        if isinstance(news, Ready):
            engine = news.successor.engine
            observers.serves(engine, swapped=False)
        else:
            observers.heard(news)
    return engine


def _change_over(following: Follower[Successor], worker: Worker, observers: Observers) -> None:
    """Between two turns: serve the θ that became active and is ready, if there is one."""
    for news in following.news():
        if isinstance(news, Ready):
            worker.change_to(news.successor)
            observers.serves(worker.engine, swapped=True)
        else:
            observers.heard(news)


def _insist(connect: Callable[[], T], observers: Observers, stop: Stop) -> T | None:
    """Connect, however long the services take to come up; None when told to stop meanwhile."""
    retry_in_s = FIRST_RETRY_S
    while not stop.asked:
        try:
            return connect()
        except Unavailable as e:
            observers.gave_up(e, retry_in_s)
            stop.wait(retry_in_s)
            retry_in_s = min(2 * retry_in_s, LONGEST_RETRY_S)
    return None


def _metrics(engine: Engine) -> Metrics:
    metrics = Metrics()
    metrics.serves(engine, engine.device)
    if engine.device.startswith("cuda"):
        device = engine.device  # not the engine, which may be followed by another one
        metrics.watch_gpu(lambda: float(torch.cuda.memory_allocated(device)))
    return metrics


def _snapshot(instance: str, engine: Engine) -> Snapshot:
    return Snapshot(
        instance=instance,
        version=version("adaptd"),
        meta_init=engine.meta_init_version,
        meta_init_hash=engine.meta_init_hash,
        device=engine.device,
        started_at=time.time(),
    )


def _facts(engine: Engine) -> dict[str, object]:
    return {
        "meta_init": engine.meta_init_version,
        "hash": engine.meta_init_hash[:12],
        "encoder": engine.encoder_version,
        "maps": f"{engine.source_modality} ({engine.source_dim}) -> "
        f"{engine.target_modality} ({engine.target_dim})",
        "device": engine.device,
        "torch_threads": torch.get_num_threads(),
    }
