"""How long Kafka and Redis have been away. Pure: time is an argument, monotonic seconds.

A service that does not answer is noticed only when a turn gives it up, which may take as long as
the timeouts allow. Therefore the time counts from the end of the last turn that ended well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from daemon.errors import AwayReason, Outage, Service


class Cause(NamedTuple):
    """Which service is away, and why."""

    service: Service
    reason: AwayReason


@dataclass(frozen=True, slots=True)
class AwayTime:
    """Seconds in all by cause, up to `since`; from then on `cause` counts, if there is one."""

    since: float
    cause: Cause | None = None
    totals: Mapping[Cause, float] = field(default_factory=dict)

    def answered(self, now: float) -> AwayTime:
        """Notes that a turn ended well."""
        return AwayTime(now, None, self.seconds(now) if self.cause else self.totals)

    def gave_up(self, error: Outage, now: float) -> AwayTime:
        """Notes that a turn ended early. The time since the last note was this error's."""
        cause = Cause(error.service, error.reason)
        return AwayTime(now, cause, AwayTime(self.since, cause, self.totals).seconds(now))

    def seconds(self, now: float) -> Mapping[Cause, float]:
        """Returns the seconds in all by cause; of those that have any."""
        if self.cause is None:
            return self.totals
        passed = max(0.0, now - self.since)
        return {**self.totals, self.cause: self.totals.get(self.cause, 0.0) + passed}
