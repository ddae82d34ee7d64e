"""The worker's health: the loop's thread writes it after each turn, the HTTP server's threads read
it.

The snapshot is replaced as a whole and never changed, so that readers need no lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from daemon.canary.judge import CanaryStanding
from daemon.errors import Outage
from daemon.turn.report import TurnReport
from daemon.wire.canary import Canary
from daemon.worker.recovery import RecoveryProgress


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the worker after its last turn, as /status shows it."""

    instance: str
    version: str
    meta_init: str
    device: str
    started_at: float
    """Unix time in seconds, as all times here."""
    joined: bool = False
    unavailable: str | None = None
    """The error of the last turn, if it ended early because a service did not answer."""
    stalled: str | None = None
    """Why recovery gets the worker no further, if it does not."""
    last_turn: str | None = None
    last_turn_at: float | None = None
    last_turn_seconds: float = 0.0
    assigned_partitions: int = 0
    streams: int = 0
    streams_changed: int = 0
    streams_deferred: int = 0
    streams_to_renew: int = 0
    """Streams whose mapping is still of another θ."""
    lag: Mapping[int, int] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    stopping: bool = False
    meta_init_hash: str | None = None
    """Content hash of the θ that is served."""
    meta_init_refused: Mapping[str, str] | None = None
    """Version, reason and detail of the active θ while it cannot be served."""
    canary: Mapping[str, object] | None = None
    """Which candidate θ is on trial, and how it stands by all workers' evidence."""


class Health:
    """Holds the newest snapshot, and judges whether the worker is alive and ready."""

    def __init__(self, snapshot: Snapshot, liveness_max_age_s: float, now: float) -> None:
        """`now`, here and below, is seconds on a monotonic clock: people and time servers set the
        other one, and that must neither kill a worker nor hide that it hangs."""
        self.snapshot = snapshot
        self._beat_at = now
        self._liveness_max_age_s = liveness_max_age_s
        self._progress = RecoveryProgress()

    def finished(self, report: TurnReport, *, joined: bool, now: float, at: float) -> None:
        """Records a turn that was finished. `at` is Unix time in seconds, for people."""
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
        self._beat_at = now
        self._progress.finished(report, now)
        self.snapshot = replace(
            self.snapshot,
            joined=joined,
            unavailable=None,
            stalled=self._progress.stalled,
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

    def gave_up(self, error: Outage, now: float) -> None:
        """Records a turn that ended early. The worker counts as alive: to restart it would not
        bring the service back."""
        self._beat_at = now
        self._progress.gave_up(str(error))
        self.snapshot = replace(
            self.snapshot, unavailable=str(error), stalled=self._progress.stalled
        )

    def serves(self, meta_init: str, content_hash: str, device: str) -> None:
        """Records that another θ is served, or the same θ on another device."""
        self.snapshot = replace(
            self.snapshot,
            meta_init=meta_init,
            meta_init_hash=content_hash,
            device=device,
            meta_init_refused=None,
        )

    def refused(self, refusal: Mapping[str, str] | None) -> None:
        """Records that the active θ cannot be served; None when that is no longer so."""
        self.snapshot = replace(self.snapshot, meta_init_refused=refusal)

    def canary(self, canary: Canary | None, standing: CanaryStanding | None) -> None:
        """Records how the canary stands; None when there is none any more."""
        trial = None
        if canary is not None:
            shown = {"version": canary.version, "against": canary.against, "watch": canary.watch}
            trial = shown | (standing.known() if standing else {})
        self.snapshot = replace(self.snapshot, canary=trial)

    def stopping(self) -> None:
        """Records that the worker has left its loop."""
        self.snapshot = replace(self.snapshot, stopping=True)

    def live(self, now: float) -> tuple[bool, str]:
        """Liveness for /livez: True when the last turn ended recently; the string says when."""
        age_s = now - self._beat_at
        return (
            age_s <= self._liveness_max_age_s,
            f"last turn ended {age_s:.1f} s ago; at most {self._liveness_max_age_s:g} s",
        )

    def ready(self) -> tuple[bool, str]:
        """Readiness for /readyz: True when the group has given this worker its partitions (a spare
        gets none), Kafka and Redis answered in the last turn, and recovery gets the worker further;
        the string gives the reason otherwise."""
        now = self.snapshot
        if now.stopping:
            return False, "stopping"
        if now.unavailable:
            return False, now.unavailable
        if now.stalled:
            return False, now.stalled
        if now.last_turn is None:
            return False, "no turn finished yet"
        if not now.joined:
            return False, "the consumer group has assigned no partitions yet"
        return True, f"{now.assigned_partitions} partitions, θ {now.meta_init}"

    def status(self, now: float) -> dict[str, Any]:
        """Returns the snapshot and both judgements, for /status."""
        live, ready = self.live(now), self.ready()
        return asdict(self.snapshot) | {
            "live": live[0],
            "ready": ready[0],
            "why": ready[1],
        }
