"""Follows the adapted mappings of many streams, and applies each stream's newest.

    with MappingSubscriber("kafka:9092", streams="camera-") as mappings:
        mappings.wait_until_current(timeout_s=30)
        y = mappings.predict("camera-7", x).values

Theory of operation: one thread reads the topic from its beginning, or from where a snapshot was
written, and puts each stream's newest good mapping in place. Calls of `predict` read what is in
place and wait for nothing. Whatever goes wrong in that thread is counted and logged, the mappings
stay, and it tries again: nothing is raised into it or out of it. docs/sdk.md lists the failures.

R = rows (inputs), D = source dim, E = target dim
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Literal, Self

from numpy.typing import ArrayLike
from prometheus_client import CollectorRegistry

from daemon.backoff import Backoff
from daemon.client.changes import Changes
from daemon.client.follower import LogFollower
from daemon.client.metrics import FollowedState, SubscriberMetrics
from daemon.client.newest import Gap, NewestMappings, PassedOver, Swapped, selection
from daemon.client.served import ServedMapping
from daemon.client.thetas import read_thetas
from daemon.config import Settings
from daemon.errors import AdaptdError
from model.values.arrays import FloatArray
from model.values.gate import Outcome
from model.values.outside import described

BACKOFF = Backoff(first_s=0.2, longest_s=10.0)
"""Between two tries while Kafka does not answer."""
STOPPED_WITHIN_S = 10.0

ServedBy = Literal["adapted", "linear", "theta", "unknown_stream"]
"""What answered a prediction: θ′; a linear map; θ, because the worker found nothing better for the
stream; θ, because the stream has no mapping here."""

log = getLogger("adaptd.client")


class NoMapping(LookupError):
    """The stream has no mapping here, and no θ is known that could stand in."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a stream's mapping gave, and which mapping it was."""

    values: FloatArray
    """Target features (E,) or (R, E)."""
    served_by: ServedBy
    mapping: ServedMapping | None
    """None where θ stood in."""
    meta_init: str
    """The version of θ."""

    @property
    def is_fallback(self) -> bool:
        """Whether θ stood in, because the stream has no mapping here."""
        return self.served_by == "unknown_stream"


@dataclass(frozen=True, slots=True)
class SubscriberStatus:
    """Where a subscriber stands."""

    connected: bool
    current: bool
    """Whether it has read up to the topic's end once since it was started."""
    streams: int
    lag: int
    """Records not yet read, as far as is known."""
    detail: str
    """What it waits for, or what went wrong last; empty when all is well."""
    passed_over: Mapping[PassedOver, int]
    """Records that changed nothing, by reason."""
    gaps: Mapping[Gap, int]


class MappingSubscriber:
    """The newest adapted mapping of every stream that is followed. See the head of this file.

    Any number of threads may call its methods.
    """

    def __init__(
        self,
        kafka: str | Settings,
        *,
        streams: str | Collection[str] | None = None,
        thetas: Sequence[Path | str] = (),
        snapshot: Path | str | None = None,
        snapshot_every_s: float = 60.0,
        multiplied_out: bool = True,
        registry: CollectorRegistry | None = None,
        client_id: str = "adaptd-subscriber",
    ) -> None:
        """Reads the snapshot, if there is one. It connects when it is started.

        `kafka` is an address, or settings where more is needed (TLS, passwords, topics of other
        names). `streams` names the streams to follow, or is what their names begin with; None
        follows all. `thetas` are files of θs to know besides those of the topic of θs; the first
        serves unknown streams until the topic names an active one. `snapshot` is a file to go on
        from after a restart, written every `snapshot_every_s` and at the end. `multiplied_out`
        keeps compact mappings ready to apply once they were: more memory, and less time.

        Raises BadMetaInit for a file that is no θ.
        """
        settings = kafka if isinstance(kafka, Settings) else Settings(kafka_bootstrap_servers=kafka)
        followed = selection(streams)
        given = read_thetas(map(Path, thetas))
        self._newest = NewestMappings(followed, given, keeps=multiplied_out)
        self._standing_in = given[0] if given else None
        self._follower = LogFollower(
            settings,
            client_id,
            self._newest,
            followed,
            Path(snapshot) if snapshot else None,
            snapshot_every_s,
        )
        self._failures: Counter[str] = Counter()
        self._detail = "not started"
        self._readers: list[Changes] = []
        self._lock, self._stopping, self._current = Lock(), Event(), Event()
        self._thread = Thread(target=self._follow, name=client_id, daemon=True)
        self.metrics = SubscriberMetrics(
            self._newest, self._state, followed.streams or frozenset(), registry
        )
        self._counted_by = {
            by: self.metrics.predictions.labels(by)
            for by in ("adapted", "linear", "theta", "unknown_stream")
        }

    # ---- life

    def start(self) -> Self:
        """Begins to follow, and returns at once. What a snapshot held is served already."""
        self._follower.restore_snapshot()
        self._detail = self._follower.detail
        self._thread.start()
        return self

    def close(self) -> None:
        """Stops to follow, and writes the snapshot. What was read is served on. Never raises."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(STOPPED_WITHIN_S)
        with self._lock:
            readers, self._readers = self._readers, []
        for reader in readers:
            reader.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def wait_until_current(self, timeout_s: float) -> None:
        """Waits until the topic was read up to the end that it had at the start. Raises
        TimeoutError, which says what it waits for."""
        if not self._current.wait(timeout_s):
            raise TimeoutError(f"not current after {timeout_s:g} s: {self.status().detail}")

    # ---- mappings

    def predict(self, stream: str, x: ArrayLike) -> Prediction:
        """Maps source features (D,) or (R, D) by the stream's newest mapping; arrays of torch and
        JAX are taken too. A stream without one is served by the active θ, and the prediction says
        so. Raises NoMapping where no θ is known either, ValueError for x of another shape."""
        mapping = self._newest.get(stream)
        if mapping is None:
            return self._by_theta(stream, x)
        served_by = _served_by(mapping)
        values = mapping(x)
        self._counted_by[served_by].inc()
        return Prediction(values, served_by, mapping, mapping.facts.meta_init)

    def _by_theta(self, stream: str, x: ArrayLike) -> Prediction:
        theta = self._follower.active_theta or self._standing_in
        if theta is None:
            raise NoMapping(f"{stream!r} has no mapping here, and no θ is known to stand in")
        if not theta.serves_unknown:
            why = f"θ {theta.version} makes a mapping only from pairs"
            raise NoMapping(f"{stream!r} has no mapping here, and {why}")
        values = theta(x)
        self._counted_by["unknown_stream"].inc()
        return Prediction(values, "unknown_stream", None, theta.version)

    def get(self, stream: str) -> ServedMapping | None:
        """Returns the stream's newest mapping, None where it has none. It stays as it is; whoever
        keeps it applies it on when a newer one has come."""
        return self._newest.get(stream)

    def streams(self) -> list[str]:
        """Returns the streams that have a mapping, as of now."""
        return [stream for stream, _ in self._newest.items()]

    def age_s(self, stream: str) -> float | None:
        """Returns for how long the stream's newest pair has been in its mapping, by this machine's
        clock: seconds since it happened. None for a stream without a mapping."""
        mapping = self._newest.get(stream)
        return None if mapping is None else time.time() - mapping.facts.event_time_ms / 1000

    def changes(self, timeout_s: float | None = None) -> Iterator[Swapped]:
        """Returns each change of a stream from this call on, until `close`, or until none comes for
        `timeout_s`. A slow reader gets the newest of a stream and not those before."""
        return self._each(self.open_changes(Changes()), timeout_s)

    def _each(self, changes: Changes, timeout_s: float | None) -> Iterator[Swapped]:
        try:
            while (change := changes.take(timeout_s)) is not None:
                yield change
        finally:
            self.close_changes(changes)

    def open_changes(self, changes: Changes) -> Changes:
        """Hands every change from now on to this reader too."""
        with self._lock:
            self._readers.append(changes)
        if self._stopping.is_set():
            changes.close()
        return changes

    def close_changes(self, changes: Changes) -> None:
        """Hands it no more."""
        with self._lock:
            self._readers = [each for each in self._readers if each is not changes]

    # ---- what it says of itself

    def status(self) -> SubscriberStatus:
        """Returns where it stands."""
        return SubscriberStatus(
            connected=self._follower.connected,
            current=self._current.is_set(),
            streams=len(self._newest),
            lag=self._follower.lag,
            detail=self._detail,
            passed_over=dict(self._newest.passed_over),
            gaps=dict(self._newest.gaps),
        )

    def _state(self) -> FollowedState:
        follower = self._follower
        current = self._current.is_set()
        return FollowedState(
            follower.connected,
            current,
            follower.lag,
            dict(self._failures),
            follower.snapshot_written_ms / 1000,
        )

    # ---- the thread

    def _follow(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                for change in self._follower.step(time.time):
                    self._on_change(change)
                failures, self._detail = 0, self._follower.detail
                if self._follower.current and not self._current.is_set():
                    self._current.set()
            except Exception as e:  # nothing may end this thread but `close`
                failures += 1
                self._on_failure(e)
                self._stopping.wait(BACKOFF.wait_s(failures, random.random()))
        try:
            self._follower.close()
        except Exception as e:
            self._on_failure(e)

    def _on_change(self, change: Swapped) -> None:
        if change.mapping is not None and self._current.is_set():
            age_s = time.time() - change.mapping.facts.published_at_ms / 1000
            self.metrics.swap_seconds.observe(max(0.0, age_s))
        with self._lock:
            readers = list(self._readers)
        for reader in readers:
            reader.put(change)

    def _on_failure(self, e: Exception) -> None:
        expected = isinstance(e, AdaptdError | OSError)
        self._failures[type(e).__name__] += 1
        detail = str(e) if expected else described(e)
        if self._detail != detail:
            log.warning("following fails: %s", detail, exc_info=None if expected else e)
        self._detail = detail
        self._follower.disconnect()


def _served_by(mapping: ServedMapping) -> ServedBy:
    outcome = mapping.facts.outcome
    if outcome.is_fallback:
        return "theta"
    return "linear" if outcome is Outcome.RIDGE else "adapted"
