"""What publish interval makes the daemon publish as much as the do-nothing worker. Pure."""

from __future__ import annotations

from benchmarks.worker.one_run import Drain
from benchmarks.worker.plan import SCENARIOS, Plan

PUBLISHING = "adaptd_turn_stage_seconds_sum{publish}"


class Intervals:
    """The publish interval by scenario: such that as many mappings per event come as of the
    do-nothing worker, if a run can be as long as that. Each run says what the next should have."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._ms: dict[str, int] = {}
        self._wanted = plan.do_nothing_share

    def of(self, name: str) -> int | None:
        """Milliseconds; None: the daemon's own."""
        if not SCENARIOS[name].paced_publishing:
            return None
        return self._ms.get(name, self._plan.first_interval_ms)

    def learn(self, name: str, drain: Drain) -> None:
        """From a run."""
        if name == "do_nothing":
            self._wanted = drain.mappings_per_event
        if SCENARIOS[name].paced_publishing:
            due_s = self._plan.streams * seconds_per_event(drain, self._wanted) / self._wanted
            self._ms[name] = round(1000 * min(due_s, self._plan.longest_steady_s))


def seconds_per_event(drain: Drain, mappings_per_event: float) -> float:
    """How long the run would have taken for an event with so many mappings: publishing takes time
    as there are mappings, all else as it did."""
    if not drain.mappings:
        return 1 / drain.events_per_s
    spent = drain.per_event(PUBLISHING)
    return 1 / drain.events_per_s + spent * (mappings_per_event / drain.mappings_per_event - 1)
