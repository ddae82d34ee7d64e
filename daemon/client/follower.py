"""The steps of a subscriber's thread: connect, read, look for θs, compare the log, keep a snapshot.

It remembers how far it has read in each partition, so that it goes on there after an outage and,
by a snapshot, after a restart. Where the log turns out to be another one, or shorter than what was
read, or where the snapshot is so old that tombstones may be gone, it reads the topic from its
beginning, and erases what is no longer there at the end. Meanwhile all is served as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from logging import getLogger
from pathlib import Path

from daemon.client.newest import Ignored, NewestMappings, Result, Selection, Swapped, Waiting
from daemon.client.served import ServedTheta
from daemon.client.snapshot import BadSnapshot, SnapshotHeader, read_snapshot, write_snapshot
from daemon.client.thetas import ThetaTopic
from daemon.client.topic import LogRange, MappingsTopic
from daemon.config import Settings
from daemon.errors import AdaptdError
from daemon.turn.cadence import Allowance, Cadence

POLL_S = 0.2
COMPARE_EVERY_S = 5.0
"""Between two comparisons of the log with what was read, which also tell the lag and notice that no
broker answers."""
THETAS_EVERY_S = 5.0
THETAS_WANTED_EVERY_S = 0.5
"""While a mapping waits for its θ."""
SNAPSHOT_GOOD_FOR_MS = 12 * 3_600_000
"""Kafka keeps tombstones for a day by default (delete.retention.ms)."""
SNAPSHOT_RENEWED_MS = 3_600_000
"""A snapshot so old is written again though nothing was read."""
LINES_PER_S, LINES_SAVED_S = 1.0, 20.0
"""Of the log, on records that were passed over."""

log = getLogger("adaptd.client")


class LogFollower:
    """Follows the topic of mappings. One thread calls; attributes may be read by any."""

    def __init__(
        self,
        settings: Settings,
        client_id: str,
        newest: NewestMappings,
        followed: Selection,
        snapshot: Path | None,
        snapshot_every_s: float,
    ) -> None:
        self._settings, self._client_id = settings, client_id
        self._newest, self._followed, self._snapshot = newest, followed, snapshot
        self._topic: MappingsTopic | None = None
        self._thetas: ThetaTopic | None = None
        self._topic_id = ""
        self._positions: dict[int, int] = {}
        self._ends: Mapping[int, int] = {}
        """The ends up to which the topic must be read to be current."""
        self._reading_again = False
        self._saved: Mapping[int, int] = {}
        now = time.monotonic()
        self._comparing, self._saving = (
            Cadence(COMPARE_EVERY_S, now),
            Cadence(snapshot_every_s, now),
        )
        self._looking = Cadence(THETAS_EVERY_S, now)
        self._looking_for = Cadence(THETAS_WANTED_EVERY_S, now)
        self._lines = Allowance(LINES_PER_S, LINES_SAVED_S)
        self.connected, self.current, self.lag, self.detail = False, False, 0, "not connected yet"
        self.active_theta: ServedTheta | None = None
        self.snapshot_written_ms = 0

    def step(self, wall_s: Callable[[], float]) -> Iterator[Swapped]:
        """Does what is next: reads for POLL_S at most. Yields each change. Raises what goes wrong;
        then call `disconnect`, and the next step connects again."""
        if self._topic is None:
            self._connect()
            self._look_for_thetas()
        assert self._topic is not None
        now = time.monotonic()
        if self._comparing.left_s(now) <= 0:
            self._comparing.mark(now)
            self._compare(*self._topic.describe())
        wanted = self._newest.wanted_thetas
        if (self._looking_for if wanted else self._looking).left_s(now) <= 0:
            self._look_for_thetas()
            yield from self._noted(self._newest.retry())
        for record in self._topic.poll(POLL_S):
            yield from self._noted([self._newest.take(record)])
        self._positions = dict(self._topic.positions)
        yield from self._reached_end()
        if self._saving.left_s(time.monotonic()) <= 0:
            self.save_snapshot(wall_s())

    # ---- the log

    def _connect(self) -> None:
        topic = MappingsTopic(self._settings, self._client_id)
        try:
            topic_id, ranges = topic.describe()
        except BaseException:
            topic.close()
            raise
        self._topic, self.connected = topic, True
        self._compare(topic_id, ranges)

    def _compare(self, topic_id: str, ranges: Mapping[int, LogRange]) -> None:
        """Compares the log with what was read of it, and reads on where that is right."""
        assert self._topic is not None
        another = topic_id != (self._topic_id or topic_id)
        shorter = any(self._positions.get(p, 0) > at.end for p, at in ranges.items())
        if another or shorter or self._positions.keys() - ranges.keys():
            self._newest.gaps["log"] += 1
            log.warning("the log of mappings is another one, or shorter: it is read again")
            self._read_again()
        removed = {p for p, at in ranges.items() if self._positions.get(p, at.begin) < at.begin}
        if removed:
            self._newest.gaps["log"] += len(removed)
            log.warning("mappings were removed from partitions %s unread", sorted(removed))
        self._topic_id = topic_id
        self._positions = {p: max(self._positions.get(p, 0), at.begin) for p, at in ranges.items()}
        self._ends = self._ends or {p: at.end for p, at in ranges.items()}
        self.lag = sum(at.end - self._positions[p] for p, at in ranges.items())
        if self._topic.positions != self._positions:
            self._topic.seek(self._positions)

    def _read_again(self) -> None:
        """Reads the topic from its beginning, and erases at its end what is not in it any more."""
        self._positions, self._ends, self._reading_again = {}, {}, True
        if self._topic is not None:
            self._topic.positions = {}  # or a failure now would go on from where the other log was
        self._newest.begin_again()

    def _reached_end(self) -> Iterator[Swapped]:
        if self.current and not self._reading_again:
            return
        behind = {p: end for p, end in self._ends.items() if self._positions.get(p, 0) < end}
        if behind:
            self.detail = f"reads the topic: {len(behind)} partitions are not at their end yet"
            return
        if self._reading_again:
            self._reading_again = False
            yield from self._newest.erase_unseen()
        self.current, self.detail = True, ""

    def _noted(self, results: list[Result]) -> Iterator[Swapped]:
        for result in results:
            if isinstance(result, Swapped):
                yield result
            elif isinstance(result, Ignored) and result.reason not in ("repeated", "older"):
                if self._lines.take(time.monotonic()):
                    log.warning("a record is passed over: %s: %s", result.reason, result.detail)
            elif isinstance(result, Waiting) and self._lines.take(time.monotonic()):
                log.info("the mapping of %r waits for θ %s", result.stream, result.theta)

    # ---- θs

    def _look_for_thetas(self) -> None:
        """Reads what is new in the topic of θs. Where that fails, mappings are read on."""
        now = time.monotonic()
        self._looking.mark(now)
        self._looking_for.mark(now)
        if not self._settings.follow_meta_inits:
            return
        if self._thetas is None:
            self._thetas = ThetaTopic(self._settings, f"{self._client_id}-thetas")
        try:
            active = self._thetas.read_on()
            for wanted in {*self._newest.wanted_thetas, *([active] if active else [])}:
                if wanted not in self._newest.thetas and (theta := self._thetas.fetch(wanted)):
                    self._newest.add_theta(theta, active)
        except AdaptdError as e:
            if self._lines.take(now):
                log.warning("the topic of θs cannot be read: %s", e)
            return
        self.active_theta = self._newest.thetas.get(active) if active else None

    # ---- the snapshot

    def restore_snapshot(self) -> None:
        """Serves what the snapshot holds and reads on from there. Where it does not fit, it is
        told, and the topic is read from its beginning."""
        if self._snapshot is None:
            return
        try:
            header, entries = read_snapshot(self._snapshot)
            for entry in entries:
                if isinstance(entry, ServedTheta):
                    self._newest.thetas[entry.content_hash] = entry
                else:
                    self._newest.restore(entry)
        except FileNotFoundError:
            return
        except (BadSnapshot, ValueError) as e:
            log.warning("the snapshot cannot be used: %s", e)
            self._read_again()
            return
        self.active_theta = self._newest.thetas.get(header.active_theta)
        age_ms = time.time() * 1000 - header.written_at_ms
        same = (header.topic, header.streams, header.prefix) == self._scope()
        if same and 0 <= age_ms <= SNAPSHOT_GOOD_FOR_MS:
            self._topic_id, self._positions = header.topic_id, dict(header.positions)
        else:
            self._read_again()

    def _scope(self) -> tuple[str, list[str] | None, str]:
        named = self._followed.streams
        streams = None if named is None else sorted(named)
        return self._settings.kafka_mappings_topic, streams, self._followed.prefix

    def save_snapshot(self, wall_s: float) -> None:
        """Writes the snapshot, if there is to be one and something was read since. Where that
        fails, it is told, and the one before stays."""
        self._saving.mark(time.monotonic())
        if self._snapshot is None or not self.current or self._reading_again:
            return
        fresh = wall_s * 1000 - self.snapshot_written_ms < SNAPSHOT_RENEWED_MS
        if self._positions == self._saved and fresh:
            return
        topic, streams, prefix = self._scope()
        header = SnapshotHeader(
            topic=topic,
            topic_id=self._topic_id,
            positions=self._positions,
            streams=streams,
            prefix=prefix,
            written_at_ms=int(wall_s * 1000),
            active_theta=self.active_theta.content_hash if self.active_theta else "",
        )
        try:
            write_snapshot(
                self._snapshot, header, self._newest.thetas.values(), self._newest.kept()
            )
        except OSError as e:
            log.warning("the snapshot cannot be written: %s", e)
            return
        self._saved, self.snapshot_written_ms = dict(self._positions), header.written_at_ms

    # ---- life

    def disconnect(self) -> None:
        """Closes the connections; the next step opens them again. Never raises."""
        self.connected = False
        topic, self._topic = self._topic, None
        if topic is not None:
            self._positions = dict(topic.positions) or self._positions
            topic.close()
        thetas, self._thetas = self._thetas, None
        if thetas is not None:
            thetas.close()

    def close(self) -> None:
        """Writes the snapshot and closes the connections."""
        self.save_snapshot(time.time())
        self.disconnect()
