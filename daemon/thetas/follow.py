"""Follows the meta-inits topic on its own thread: it takes seconds to fetch a θ and make it ready,
and the loop must not wait for that. The loop asks for news between two turns."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Generic, TypeVar

from daemon.backoff import Backoff
from daemon.errors import Misconfigured, RefusalReason, RefusedMetaInit, Unavailable
from daemon.thetas.active import Mapper, ThetaSignature, active_theta, signature_of
from daemon.thetas.port import MetaInits
from daemon.wire.catalogue import Active, Catalogue, PublishedTheta
from model.theta.meta_init import MetaInit

POLL_INTERVAL_S = 1.0
BACKOFF = Backoff(first_s=2.0, longest_s=15.0)
"""Between polls while Kafka does not answer."""
CLOSE_TIMEOUT_S = 2.0

T = TypeVar("T")
Question = tuple[Active | None, PublishedTheta | None, str | None]
"""What decides whether there are news: the active record, the θ published under its version, and
why the active record cannot be read."""


@dataclass(frozen=True, slots=True)
class Ready(Generic[T]):
    """The active θ is ready to be served."""

    successor: T


@dataclass(frozen=True, slots=True)
class Refusal:
    """The active θ cannot be served; the θ before is served on."""

    version: str
    reason: RefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """The active θ is the one that is served, or none is active: no refusal holds any longer."""


@dataclass(frozen=True, slots=True)
class Silence:
    """The topic cannot be followed at the moment; what is served is served on."""

    detail: str


News = Ready[T] | Refusal | Agreement | Silence


class Follower(Generic[T]):
    """Has each θ that becomes active prepared to be served, and reports each change once."""

    def __init__(
        self,
        topic: MetaInits,
        prepare: Callable[[MetaInit], T],
        signature: ThetaSignature,
        serving_hash: str,
        beside: Callable[[Catalogue], None] = lambda _: None,
    ) -> None:
        """`prepare` makes a θ ready, and raises RefusedMetaInit or Unavailable. `signature` is
        what an active θ must map, and `serving_hash` the content hash of the θ that is served.
        `beside` is given what the topic says at each poll of the thread, and raises Unavailable."""
        self._topic = topic
        self._prepare = prepare
        self._signature = signature
        self._serving_hash = serving_hash
        self._beside = beside
        self._answered: Question | None = None
        self._silent = False
        self._news: list[News[T]] = []
        self._lock = Lock()
        self._bug: Exception | None = None
        self._closing = Event()
        self._thread = Thread(target=self._follow, name="meta-inits", daemon=True)

    def start(self, serving: Mapper) -> None:
        """Follows the topic from now on, for θs that map what `serving` maps."""
        self._signature = signature_of(serving)
        self._thread.start()

    def news(self) -> Sequence[News[T]]:
        """Returns what happened since the last call, oldest first, without waiting. Raises what
        ended the thread, which is a bug that must not go unnoticed."""
        if self._bug is not None:
            raise self._bug
        with self._lock:
            news, self._news = self._news, []
        return news

    def poll_catalogue(self) -> bool:
        """Compares the active θ with the one that is served, once. Returns False when it cannot:
        the topic does not exist. Raises Unavailable, and Misconfigured when it may not be read."""
        catalogue = self._topic.catalogue()
        self._compare(catalogue)
        self._beside(catalogue)
        if catalogue.exists:
            self._silent = False
        else:
            self._on_silence("no such topic: nothing is published yet")
        return catalogue.exists

    def _compare(self, catalogue: Catalogue) -> None:
        question = _question(catalogue)
        if question == self._answered:
            return
        try:
            self._emit(self._answer(catalogue))
        except RefusedMetaInit as e:
            version = catalogue.active.version if catalogue.active else "?"
            self._emit(Refusal(version, e.reason, e.detail))
        self._answered = question

    def _answer(self, catalogue: Catalogue) -> News[T]:
        active = catalogue.active
        if active is not None and active.content_hash == self._serving_hash:
            return Agreement()
        theta = active_theta(self._topic, catalogue)
        if theta is None:
            return Agreement()
        self._signature.require(theta, theta.version)
        successor = self._prepare(theta)
        self._serving_hash = theta.content_hash
        return Ready(successor)

    def _follow(self) -> None:
        wait_s, failures = POLL_INTERVAL_S, 0
        while not self._closing.wait(wait_s):
            try:
                self.poll_catalogue()
                wait_s, failures = POLL_INTERVAL_S, 0
            except (Unavailable, Misconfigured) as e:  # a right may come back
                self._on_silence(str(e))
                failures += 1
                wait_s = BACKOFF.wait_s(failures, random.random())
            except Exception as e:
                self._bug = e
                return

    def _on_silence(self, detail: str) -> None:
        """Reports once that the topic cannot be followed, until it can be again."""
        if not self._silent:
            self._emit(Silence(detail))
        self._silent = True

    def _emit(self, news: News[T]) -> None:
        with self._lock:
            self._news.append(news)

    def close(self) -> None:
        """Stops to follow. A θ that is being prepared is left to the end of the process."""
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
