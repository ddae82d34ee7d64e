"""What the worker says of itself: written by the loop's thread after each turn, read by HTTP's.

The snapshot is replaced whole, never changed, so readers need no lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from daemon.errors import Unavailable
from daemon.turn.report import TurnReport


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The worker as of its last turn."""

    instance: str
    version: str
    meta_init: str
    device: str
    started_at: float
    """Unix time, seconds; so are the other times."""
    joined: bool = False
    unavailable: str | None = None
    """What did not answer in the last turn."""
    last_turn: str | None = None
    last_turn_at: float | None = None
    last_turn_seconds: float = 0.0
    assigned_partitions: int = 0
    streams: int = 0
    streams_changed: int = 0
    streams_deferred: int = 0
    streams_to_renew: int = 0
    """Whose mapping is still of another θ."""
    lag: Mapping[int, int] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    stopping: bool = False
    meta_init_hash: str | None = None
    """Of the θ that is served."""
    meta_init_refused: Mapping[str, str] | None = None
    """Version, reason and detail of the active θ, while it cannot be served."""


class Health:
    """Holds the newest snapshot, and judges it."""

    def __init__(self, snapshot: Snapshot, liveness_max_age_s: float) -> None:
        self.snapshot = snapshot
        self._beat_at = snapshot.started_at
        self._liveness_max_age_s = liveness_max_age_s

    def finished(self, report: TurnReport, *, joined: bool, at: float) -> None:
        """A turn went through."""
        held = report.holdings
        totals = dict(self.snapshot.totals)
        for name, count in (
            ("events", report.events),
            ("pairs", report.pairs),
            ("dead_letters", report.dead_letters.total()),
            ("adaptations", len(report.verdicts)),
            ("mappings_published", len(report.published)),
        ):
            totals[name] = totals.get(name, 0) + count
        self._beat_at = at
        self.snapshot = replace(
            self.snapshot,
            joined=joined,
            unavailable=None,
            last_turn=report.turn,
            last_turn_at=at,
            last_turn_seconds=report.seconds,
            assigned_partitions=held.assigned,
            streams=held.streams,
            streams_changed=held.changed,
            streams_deferred=held.deferred,
            streams_to_renew=held.renewals,
            lag=held.lag,
            totals=totals,
        )

    def gave_up(self, error: Unavailable, at: float) -> None:
        """A turn ended early; the worker is alive all the same: killing it would not help."""
        self._beat_at = at
        self.snapshot = replace(self.snapshot, unavailable=str(error))

    def serves(self, meta_init: str, content_hash: str, device: str) -> None:
        """Another θ is served, or from another device."""
        self.snapshot = replace(
            self.snapshot,
            meta_init=meta_init,
            meta_init_hash=content_hash,
            device=device,
            meta_init_refused=None,
        )

    def refused(self, refusal: Mapping[str, str] | None) -> None:
        """The active θ cannot be served, or None: no longer is there one that cannot."""
        self.snapshot = replace(self.snapshot, meta_init_refused=refusal)

    def stopping(self) -> None:
        """No more turns will come."""
        self.snapshot = replace(self.snapshot, stopping=True)

    def live(self, now: float) -> tuple[bool, str]:
        """Whether the loop still turns, and a line that says so."""
        age_s = now - self._beat_at
        return (
            age_s <= self._liveness_max_age_s,
            f"last turn ended {age_s:.1f} s ago; at most {self._liveness_max_age_s:g} s",
        )

    def ready(self) -> tuple[bool, str]:
        """Whether the worker does its work, and a line that says why not."""
        now = self.snapshot
        if now.stopping:
            return False, "stopping"
        if now.unavailable:
            return False, now.unavailable
        if now.last_turn is None:
            return False, "no turn finished yet"
        if not now.joined:
            return False, "the consumer group has assigned no partitions yet"
        return True, f"{now.assigned_partitions} partitions, θ {now.meta_init}"

    def status(self, now: float) -> dict[str, Any]:
        """Everything, for /status."""
        live, ready = self.live(now), self.ready()
        return asdict(self.snapshot) | {
            "live": live[0],
            "ready": ready[0],
            "why": ready[1],
        }
