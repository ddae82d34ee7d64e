"""Follows canaries for a worker, on the thread that follows the meta-inits topic: makes candidates
ready to be judged, reads the evidence of all workers, and acts on the verdict where it may.

    @candidate -> ready, or refused -> evidence -> standing -> (auto) activated, rejected, put back

Nothing here changes what is served: that follows from `@active`, which is written as an operator
would. Everything is computed anew from the two topics, so a worker that dies loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Generic, Literal, TypeVar

from daemon.canary.judge import CanaryJudge, CanaryStanding
from daemon.canary.operate import (
    begin_watch,
    end_canary,
    is_unfinished,
    judged_canary,
    promote,
    roll_back,
    running_canary,
)
from daemon.canary.port import EvidenceLog
from daemon.errors import Misconfigured, RefusalReason, RefusedMetaInit
from daemon.thetas.active import read_theta, require_candidate
from daemon.thetas.port import MetaInits
from daemon.wire.canary import Canary
from daemon.wire.catalogue import Catalogue
from model.theta.info import ThetaInfo
from model.theta.meta_init import MetaInit

EARLIER_MS = 600_000
"""The clocks of whoever began the canary and of the brokers may differ by as much."""
RETRY_MS = 60_000
"""After so long a candidate that could not be judged is tried again."""

Action = Literal["promoted", "rejected", "rolled_back", "held"]
ACTIONS: Mapping[tuple[bool, str], Action] = {
    (False, "won"): "promoted",
    (False, "lost"): "rejected",
    (True, "won"): "held",
    (True, "lost"): "rolled_back",
}
"""What follows from a verdict, by whether the canary is a watch."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CandidateReady(Generic[T]):
    """A candidate is ready to be judged beside the θ that is served."""

    canary: Canary
    engine: T


@dataclass(frozen=True, slots=True)
class CandidateGone:
    """No candidate is to be judged any more."""


@dataclass(frozen=True, slots=True)
class CandidateRefused:
    """A candidate cannot be judged by this worker; what is served is served on."""

    version: str
    reason: RefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class CanaryJudged:
    """The evidence of all workers has changed."""

    canary: Canary | None
    """None: there is none any more."""
    standing: CanaryStanding | None = None


@dataclass(frozen=True, slots=True)
class CanaryActed:
    """This worker has acted on a verdict, as the setting allows it to."""

    version: str
    action: Action


CanaryNews = CandidateReady[T] | CandidateGone | CandidateRefused | CanaryJudged | CanaryActed


class CanaryFollower(Generic[T]):
    """Has each candidate made ready that can be judged, and reports each change once."""

    def __init__(
        self,
        topics: tuple[MetaInits, EvidenceLog],
        prepare: Callable[[MetaInit], T],
        wall_ms: Callable[[], int],
        acts_as: str | None,
    ) -> None:
        """`prepare` makes a θ ready, and raises RefusedMetaInit or Unavailable. `acts_as`: in whose
        name the verdict is acted on; None where that is left to people."""
        self._topic, self._log = topics
        self._prepare, self._wall_ms, self._acts_as = prepare, wall_ms, acts_as
        self._serving: ThetaInfo | None = None
        self._leads: Callable[[], bool] = lambda: False
        self._shadowed: tuple[int, str] | None = None
        """The canary's epoch, and the hash that was served, of the candidate that was made ready or
        refused last."""
        self._retry_at_ms: int | None = None
        self._canary: Canary | None = None
        self._judge: CanaryJudge | None = None
        self._told: CanaryStanding | None = None
        self._news: list[CanaryNews[T]] = []
        self._lock = Lock()

    def serves(self, theta: ThetaInfo) -> None:
        """Notes what this worker serves from now on. Called by the loop's thread."""
        self._serving, self._shadowed = theta, None

    def led_by(self, leads: Callable[[], bool]) -> None:
        """`leads` says whether this worker is the one of its group that acts on verdicts."""
        self._leads = leads

    def news(self) -> Sequence[CanaryNews[T]]:
        """Returns what happened since the last call, oldest first, without waiting."""
        with self._lock:
            news, self._news = self._news, []
        return news

    def failed(self) -> None:
        """Notes that the loop has given the candidate up; it is tried again in a while."""
        self._retry_at_ms = self._wall_ms() + RETRY_MS

    def poll(self, catalogue: Catalogue) -> None:
        """Compares the newest canary with what this worker does. Raises Unavailable."""
        now_ms, serving = self._wall_ms(), self._serving
        if serving is None:
            return
        self._follow_evidence(judged_canary(catalogue, now_ms))
        running = running_canary(catalogue, now_ms)
        over = self._told is not None and self._told.verdict != "open"
        if running is None or over or running.against_hash != serving.content_hash:
            self._leave()
        else:
            self._shadow(catalogue, running, serving, now_ms)
        if self._acts_as and self._canary and self._leads():
            self._act(catalogue, self._canary, self._acts_as)

    # ---- the candidate

    def _shadow(
        self, catalogue: Catalogue, canary: Canary, serving: ThetaInfo, now_ms: int
    ) -> None:
        if self._retry_at_ms is not None and now_ms >= self._retry_at_ms:
            self._shadowed = self._retry_at_ms = None
        wanted = (canary.epoch, serving.content_hash)
        if self._shadowed == wanted:
            return
        try:
            engine = self._made_ready(catalogue, canary, serving)
            news: CanaryNews[T] = CandidateReady(canary, engine)
        except RefusedMetaInit as e:
            news = CandidateRefused(canary.version, e.reason, e.detail)
            self._retry_at_ms = now_ms + RETRY_MS if e.reason == "no_evidence" else None
        self._shadowed = wanted
        self._emit(news)

    def _made_ready(self, catalogue: Catalogue, canary: Canary, serving: ThetaInfo) -> T:
        try:
            fault = self._log.fault()
        except Misconfigured as e:
            fault = str(e)
        if fault:
            raise RefusedMetaInit("no_evidence", fault)
        theta = read_theta(self._topic, catalogue, canary.version)
        if theta.content_hash != canary.content_hash:
            raise RefusedMetaInit("wrong_hash", f"θ {canary.version} is not the one on trial")
        require_candidate(theta, serving)
        return self._prepare(theta)

    def _leave(self) -> None:
        if self._shadowed is not None:
            self._emit(CandidateGone())
        self._shadowed = self._retry_at_ms = None

    # ---- the evidence

    def _follow_evidence(self, canary: Canary | None) -> None:
        if canary != self._canary:
            self._canary, self._judge, self._told = canary, None, None
            self._log.close()  # until there is something to read
            self._emit(CanaryJudged(canary))
        if canary is None:
            return
        try:
            read = self._log.read(canary.since_ms - EARLIER_MS)
        except Misconfigured:  # told by whoever wants to write to it
            return
        if read.begins or self._judge is None:
            self._judge = CanaryJudge(canary)
        for record in read.records:
            self._judge.observe(record)
        standing = self._judge.standing()
        before, self._told = self._told, standing
        if before is None or before.counts != standing.counts:
            self._emit(CanaryJudged(canary, standing))

    def _act(self, catalogue: Catalogue, canary: Canary, by: str) -> None:
        """Acts on the verdict. What a worker had begun that died then is finished."""
        now_ms, verdict = self._wall_ms(), self._told.verdict if self._told else "open"
        runs, topic = running_canary(catalogue, now_ms) == canary, self._topic
        if not (runs and verdict != "open") and not is_unfinished(catalogue, canary):
            return
        action, done = ACTIONS.get((canary.watch, verdict)), False
        try:
            match action:
                case "rolled_back":
                    done = roll_back(topic, canary, by=by, now_ms=now_ms)
                case "promoted" if runs:
                    done = promote(topic, canary, by=by, now_ms=now_ms)
                case "rejected" | "held" if runs:
                    done = end_canary(topic, canary, action, now_ms=now_ms)
                case _:
                    begin_watch(topic, by=by, now_ms=now_ms)
        except Misconfigured as e:  # such as a right that is missing: people can still do it
            self._emit(CandidateRefused(canary.version, "unusable", f"not acted upon: {e}"))
            self._acts_as = None
            return
        if action and done:
            self._emit(CanaryActed(canary.against if canary.watch else canary.version, action))

    def _emit(self, news: CanaryNews[T]) -> None:
        with self._lock:
            self._news.append(news)

    def close(self) -> None:
        """Closes the connection to the topic of evidence. Never raises."""
        self._log.close()
