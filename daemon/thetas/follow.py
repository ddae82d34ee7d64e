"""Following the meta-inits topic, on a thread of its own: the loop turns on while a θ is fetched
and made ready, which takes seconds, and hears of it between two turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Generic, TypeVar

from daemon.errors import Misconfigured, RefusalReason, RefusedMetaInit, Unavailable
from daemon.thetas.port import MetaInits
from daemon.thetas.publish import ThetaSignature, active_theta, signature_of
from daemon.wire.catalogue import Active, Catalogue, PublishedTheta
from model.theta.meta_init import MetaInit

LOOK_EVERY_S = 1.0
LONGEST_WAIT_S = 15.0
"""Between looks while Kafka does not answer."""
CLOSE_TIMEOUT_S = 2.0

T = TypeVar("T")
Question = tuple[Active | None, PublishedTheta | None, str | None]
"""What is active, what is published under its version, and why the former cannot be read."""


@dataclass(frozen=True, slots=True)
class Ready(Generic[T]):
    """The active θ, ready to be served."""

    successor: T


@dataclass(frozen=True, slots=True)
class Refusal:
    """The active θ cannot be served; the one before serves on."""

    version: str
    reason: RefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """What is active is what is served, or none is active: an earlier refusal is settled."""


@dataclass(frozen=True, slots=True)
class Silence:
    """The topic cannot be followed at the moment; what is served serves on."""

    detail: str


News = Ready[T] | Refusal | Agreement | Silence


class Follower(Generic[T]):
    """Has `prepare` make each θ ready that becomes active; tells each thing once.

    `prepare` raises RefusedMetaInit or Unavailable. `maps` is what a θ must map.
    """

    def __init__(
        self,
        topic: MetaInits,
        prepare: Callable[[MetaInit], T],
        maps: ThetaSignature,
        serving_hash: str,
    ) -> None:
        self._topic = topic
        self._prepare = prepare
        self._maps = maps
        self._serving_hash = serving_hash
        self._answered: Question | None = None
        self._silent = False
        self._news: list[News[T]] = []
        self._lock = Lock()
        self._broken: Exception | None = None
        self._closing = Event()
        self._thread = Thread(target=self._follow, name="meta-inits", daemon=True)

    def start(self, serving: object) -> None:
        """Follow from now on. `serving` is what serves: only its dimensions may follow it."""
        self._maps = signature_of(serving)
        self._thread.start()

    def news(self) -> Sequence[News[T]]:
        """What happened since the last call, oldest first; never waits."""
        if self._broken is not None:
            raise self._broken  # a bug: it must not go unnoticed on a thread
        with self._lock:
            news, self._news = self._news, []
        return news

    def look(self) -> bool:
        """Compare what is active with what is served, once; False where that cannot be, for the
        topic is not there or not ours to read. Raises Unavailable."""
        try:
            catalogue = self._topic.catalogue()
        except Misconfigured as e:
            return self._hear(False, str(e))
        self._compare(catalogue)
        return self._hear(catalogue.exists, "no such topic: nothing is published yet")

    def _compare(self, catalogue: Catalogue) -> None:
        question = _question(catalogue)
        if question == self._answered:
            return
        try:
            self._tell(self._answer(catalogue))
        except RefusedMetaInit as e:
            version = catalogue.active.version if catalogue.active else "?"
            self._tell(Refusal(version, e.reason, e.detail))
        self._answered = question

    def _answer(self, catalogue: Catalogue) -> News[T]:
        active = catalogue.active
        if active is not None and active.content_hash == self._serving_hash:
            return Agreement()
        theta = active_theta(self._topic, catalogue)
        if theta is None:
            return Agreement()
        self._maps.refuse_others(theta)
        successor = self._prepare(theta)
        self._serving_hash = theta.content_hash
        return Ready(successor)

    def _follow(self) -> None:
        wait_s = LOOK_EVERY_S
        while not self._closing.wait(wait_s):
            try:
                self.look()
                wait_s = LOOK_EVERY_S
            except Unavailable as e:
                self._hear(False, str(e))
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            except Exception as e:
                self._broken = e
                return

    def _hear(self, something: bool, otherwise: str) -> bool:
        """Tell once that there is nothing to be heard, until there is again."""
        if not something and not self._silent:
            self._tell(Silence(otherwise))
        self._silent = not something
        return something

    def _tell(self, news: News[T]) -> None:
        with self._lock:
            self._news.append(news)

    def close(self) -> None:
        """Stop following. A θ that is being made ready is left to the end of the process."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            with suppress(Exception):
                self._topic.close()


def _question(catalogue: Catalogue) -> Question:
    active = catalogue.active
    published = catalogue.published.get(active.version) if active else None
    return active, published, catalogue.fault
