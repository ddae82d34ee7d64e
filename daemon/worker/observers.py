"""Who is told what the worker does: the log, the metrics and the health."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from structlog.stdlib import BoundLogger

from daemon.canary.follow import (
    CanaryActed,
    CanaryJudged,
    CanaryNews,
    CandidateGone,
    CandidateReady,
    CandidateRefused,
)
from daemon.errors import Outage
from daemon.thetas.follow import Agreement, Refusal, Silence
from daemon.turn.report import TurnReport
from daemon.worker.health import Health
from daemon.worker.logs import TurnLog
from daemon.worker.metrics import Metrics
from model.serving.engine import Engine
from model.values.errors import DeviceLost

if TYPE_CHECKING:
    from daemon.adapters.tracing import Tracing  # imports OpenTelemetry, which is an extra


@dataclass(frozen=True, slots=True)
class Observers:
    """Passes each occurrence on to the log, the metrics and the health."""

    logger: BoundLogger
    turns: TurnLog
    metrics: Metrics
    health: Health
    tracing: Tracing | None = None

    def gave_up(self, error: Outage, retry_in_s: float) -> None:
        """A turn, or the start, ended early."""
        self.metrics.gave_up(error)
        with self._stalls_told():
            self.health.gave_up(error, time.monotonic())
        self.turns.gave_up(error, retry_in_s)

    @contextmanager
    def _stalls_told(self) -> Iterator[None]:
        """Tells when recovery begins to get the worker no further, and when that is over."""
        before = self.health.snapshot.stalled
        yield
        now = self.health.snapshot.stalled
        self.metrics.stalled(now is not None)
        if now is not None and before is None:
            self.logger.error("recovery_stalled", why=now)
        elif now is None and before is not None:
            self.logger.info("recovery_goes_on")

    def lost_device(self, device: str, error: DeviceLost) -> None:
        """The GPU no longer computes, and the CPU takes over."""
        self.metrics.device_lost()
        self.logger.error("device_lost", device=device, detail=str(error), going_on="cpu")

    def serves(self, engine: Engine, *, swapped: bool) -> None:
        """Another engine serves than before; `swapped`: it serves another θ."""
        theta = engine.theta
        self.metrics.serves(theta, engine.device)
        if swapped:
            self.metrics.swapped()
        self.health.serves(theta.version, theta.content_hash, engine.device)
        self.logger.info("meta_init_served", **engine_facts(engine))

    def on_news(self, news: Refusal | Agreement | Silence) -> None:
        """The meta-inits topic has news that change nothing about what is served."""
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

    def on_canary(self, news: CanaryNews[Engine]) -> None:
        """A candidate θ, or what is known about it, has news; what is served does not change."""
        match news:
            case CandidateReady():
                shown = {"version": news.canary.version, "against": news.canary.against}
                self.logger.info("canary_begins", **shown, watch=news.canary.watch)
            case CandidateGone():
                self.logger.info("canary_ends")
            case CandidateRefused():
                self.metrics.candidate_refused(news.reason)
                self.logger.error("canary_refused", **asdict(news))
            case CanaryJudged():
                self.metrics.canary_judged(news.canary, news.standing)
                self.health.canary(news.canary, news.standing)
            case CanaryActed():
                self.metrics.canary_acted(news.action)
                self.logger.warning("canary_acted", **asdict(news))

    def finished(self, report: TurnReport, *, joined: bool) -> None:
        """A turn was finished. `joined`: whether the group has assigned partitions."""
        at = time.time()
        self.metrics.record(report, at)
        with self._stalls_told():
            self.health.finished(report, joined=joined, now=time.monotonic(), at=at)
        self.turns.finished(report)
        if self.tracing is not None:
            self.tracing.turn_ended(report, at)
        if report.shadow.fault:
            self.metrics.candidate_refused(report.shadow.reason)
            detail = {"reason": report.shadow.reason, "detail": report.shadow.fault}
            self.logger.error("canary_refused", **detail)


def engine_facts(engine: Engine) -> dict[str, object]:
    """Returns what a line of the log says of an engine."""
    return {
        "meta_init": engine.theta.version,
        "hash": engine.theta.content_hash[:12],
        "encoder": engine.theta.encoder_version,
        "maps": engine.theta.maps,
        "device": engine.device,
        "torch_threads": torch.get_num_threads(),
    }
