"""`python -m benchmarks stream`, told: runs in, JSON-like objects and lines out. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from benchmarks.worker.one_run import Drain
from benchmarks.worker.paced_run import Paced
from benchmarks.worker.plan import SCENARIOS, Plan
from benchmarks.worker.stats import quantile, ratios, rounded, spread
from daemon.turn.report import STAGES

Drains = Mapping[str, Sequence[Drain]]
Figure = Callable[[Drain], float]
QUANTILES = {"p50": 0.5, "p99": 0.99}

DEFINITIONS = {
    "workload": "Every stream's window is filled by one event; then each round has every stream "
    "once, a pair of 4 KB (D = E = 512, float32), always in the same order.",
    "steady part": "Of draining a prefilled topic, once all windows are full and all streams were "
    "published once: steady_s seconds, or a publish interval if that is longer.",
    "cpu_us_per_event": "User and system time of the worker's process over the steady part; beside "
    "it that of Kafka, of Redis, and of everything on the machine.",
    "do_nothing": "By the daemon's own client: consume, one XADD per event in one MULTI per poll, "
    "a 75 KB record for a tenth of the poll's streams, commit. Decodes nothing.",
    "usual": "benchmarks/worker/usual_worker.py: kafka-python, redis-py with a pipeline per event, "
    "a per-stream autograd loop and the whole float32 mapping published on every event.",
    "every_fourth, every_event, librdkafka": "The daemon, adapting each stream on every fourth or "
    "every one of its events; its publish interval such that mappings_per_event is do_nothing's.",
    "all_published": "The daemon, adapting on every event and publishing every mapping.",
    "difference": "Largest difference between weights of the newest published mappings and those "
    "that the usual worker's inner loop makes of the same windows, over the layer's largest "
    "weight. Above 2e-3 (float16), or 1e-4 (float32, which an uncounted first run publishes), "
    "there are no figures.",
    "latency": "The daemon as in all_published, at half of the rate it drains there. "
    "From an event's due time, which is its record's timestamp, to the broker's append time of a "
    "mapping that reflects it: `newest` is the newest event it reflects, `oldest` the oldest that "
    "it is the first to reflect. `p99_beyond_max_wait_ms` is oldest's p99 less max_wait_ms.",
    "ratios": "Median and both ends over the repetitions, each run with its neighbour in time.",
}


def head(plan: Plan) -> dict[str, Any]:
    """When, what and how."""
    return {
        "bench": "stream",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": dataclasses.asdict(plan),
        "settings": {name: dict(SCENARIOS[name].settings) for name in plan.scenarios}
        | {"all": "gate_ridge off; min_support = support_size; otherwise adaptd's defaults"},
        "theta": "maml, 5 steps, gelu, mse; fresh, seed 0",
        "definitions": DEFINITIONS,
    }


def figures(runs: Sequence[Drain]) -> dict[str, Any]:
    """Of one scenario."""
    found: dict[str, Any] = {
        "events_per_s": _spread(runs, _rate),
        "cpu_us_per_event": {of: _spread(runs, _cpu(of)) for of in runs[0].start.cpu_s},
        "mappings_per_event": _spread(runs, lambda run: run.mappings_per_event),
        "mapping_bytes": rounded(runs[-1].mapping_bytes),
        "steady_s": _spread(runs, lambda run: run.seconds),
    }
    differences = [run.difference for run in runs if run.difference is not None]
    if differences:
        found["difference"] = rounded(max(differences))
    return found | (_adaptd_only(runs) if runs[0].start.counters else {})


def _adaptd_only(runs: Sequence[Drain]) -> dict[str, Any]:
    stages = {stage: sum(map(_stage(stage), runs)) / len(runs) for stage in STAGES}
    return {
        "adaptations_per_event": _spread(runs, _adaptations),
        "publish_interval_ms": [run.publish_interval_ms for run in runs],
        "wall_us_per_event_by_stage": {stage: rounded(us) for stage, us in stages.items()},
    }


def latency(runs: Sequence[Paced]) -> dict[str, Any]:
    """At half of full load."""
    ages = {
        "newest": [run.freshness.newest_ms for run in runs],
        "oldest": [run.freshness.oldest_ms for run in runs],
    }
    beyond = [quantile(r.freshness.oldest_ms, 0.99) - r.max_wait_ms for r in runs]
    return {
        "offered_events_per_s": rounded(runs[0].offered_per_s),
        "max_wait_ms": runs[0].max_wait_ms,
        **{
            f"{age}_{name}_ms": spread([quantile(ms, share) for ms in of_runs])
            for age, of_runs in ages.items()
            for name, share in QUANTILES.items()
        },
        "p99_beyond_max_wait_ms": spread(beyond),
        "mappings": [len(run.freshness.oldest_ms) for run in runs],
        "paced_producer_late_ms": spread([run.late_ms for run in runs]),
    }


def ratios_of(drains: Drains) -> dict[str, dict[str, float]]:
    """Those whose two scenarios were run."""
    worker = _cpu("worker")
    asked: dict[str, tuple[str, str, Figure]] = {
        "cpu_per_event_every_fourth_over_do_nothing": ("every_fourth", "do_nothing", worker),
        "cpu_per_event_every_event_over_do_nothing": ("every_event", "do_nothing", worker),
        "events_per_s_every_event_over_usual": ("every_event", "usual", _rate),
        "events_per_s_all_published_over_usual": ("all_published", "usual", _rate),
        "events_per_s_librdkafka_over_kafka_python": ("librdkafka", "every_fourth", _rate),
        "cpu_per_event_kafka_python_over_librdkafka": ("every_fourth", "librdkafka", worker),
        "cpu_per_event_librdkafka_over_do_nothing_librdkafka": (
            "librdkafka",
            "do_nothing_librdkafka",
            worker,
        ),
    }
    return {
        name: _ratio(drains[ours], drains[theirs], figure)
        for name, (ours, theirs, figure) in asked.items()
        if ours in drains and theirs in drains
    }


def _ratio(ours: Sequence[Drain], theirs: Sequence[Drain], figure: Figure) -> dict[str, float]:
    both = min(len(ours), len(theirs))  # one of them may have been run once
    return ratios([figure(run) for run in ours[:both]], [figure(run) for run in theirs[:both]])


def _spread(runs: Sequence[Drain], figure: Figure) -> dict[str, float]:
    return spread([figure(run) for run in runs])


def _rate(run: Drain) -> float:
    return run.events_per_s


def _cpu(of: str) -> Figure:
    return lambda run: run.cpu_us_per_event(of)


def _adaptations(run: Drain) -> float:
    return run.per_event("adaptd_adaptations_total")


def _stage(stage: str) -> Figure:
    return lambda run: 1e6 * run.per_event(f"adaptd_turn_stage_seconds_sum{{{stage}}}")


def drain_line(name: str, run: Drain) -> str:
    """For people, while it goes on."""
    cpu = ", ".join(f"{of} {_cpu(of)(run):,.0f}" for of in run.start.cpu_s if of != "worker")
    line = (
        f"{name:21} {run.events_per_s:7,.0f} events/s, {_cpu('worker')(run):7,.1f} µs CPU/event "
        f"({cpu}); {run.mappings_per_event:.3f} mappings/event of {run.mapping_bytes / 1000:,.0f} "
        f"KB; {run.events:,} events in {run.seconds:.1f} s"
    )
    if run.difference is not None:
        line += f"; difference {run.difference:.1e}"
    if run.start.counters:
        stages = " ".join(f"{stage} {_stage(stage)(run):.0f}" for stage in STAGES)
        line += f"; {_adaptations(run):.3f} adaptations/event, every {run.publish_interval_ms} ms"
        line += f"; wall µs/event: {stages}"
    return line


def paced_line(run: Paced) -> str:
    """The same."""
    oldest = run.freshness.oldest_ms
    return (
        f"at {run.offered_per_s:,.0f} events/s: p50 {quantile(oldest, 0.5):,.0f} ms, "
        f"p99 {quantile(oldest, 0.99):,.0f} ms, of {len(oldest):,} mappings; producer at worst "
        f"{run.late_ms:,.0f} ms late"
    )
