"""`python -m benchmarks stream`: the daemon beside a do-nothing worker and a usual one, in turn, on
a real Kafka and a real Redis of their own."""

import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import redis

from benchmarks.output import Benchmark, NoFigures, Report, Say
from benchmarks.stream.drain import Bench, Drain
from benchmarks.stream.latency import Paced, latency_figures, paced_run
from benchmarks.stream.plan import QUICK, SCENARIOS, StreamPlan
from benchmarks.stream.topics import made_topics, prefill
from benchmarks.timing import ratios, rounded
from daemon.local.kafka_install import KAFKA_VERSION
from daemon.local.services import local_services
from daemon.turn.report import STAGES
from model.evaluate.machine import spread

PACKAGES = (
    *("adaptd", "torch", "numpy", "kafka-python", "redis", "hiredis", "msgspec", "msgpack"),
    "confluent-kafka",
)
PATIENT = {"broker.session.timeout.ms": "30000", "broker.heartbeat.interval.ms": "2000"}
"""On a busy machine a heartbeat may be late by seconds; the controller must not take the only
broker out of service for that, and every partition with it."""
STAGE_S, ADAPTED = "adaptd_turn_stage_seconds_sum{%s}", "adaptd_adaptations_total"

RATIOS = {
    "cpu_per_event_every_fourth_over_do_nothing": ("every_fourth", "do_nothing"),
    "cpu_per_event_every_event_over_do_nothing": ("every_event", "do_nothing"),
    "events_per_s_every_event_over_usual": ("every_event", "usual"),
    "events_per_s_all_published_over_usual": ("all_published", "usual"),
    "events_per_s_librdkafka_over_kafka_python": ("librdkafka", "every_fourth"),
    "cpu_per_event_kafka_python_over_librdkafka": ("every_fourth", "librdkafka"),
    "cpu_per_event_librdkafka_over_do_nothing_librdkafka": ("librdkafka", "do_nothing_librdkafka"),
}
"""The scenarios that each compares; a name begins with the figure."""

Drains = Mapping[str, Sequence[Drain]]


def stream_figures(plan: StreamPlan, say: Say, *, profile: Path | None = None) -> Report:
    """Measures everything; `profile` is where the last daemon's profile goes. Raises NoFigures,
    ServicesUnavailable, Unavailable."""
    if unknown := sorted(set(plan.scenarios) - set(SCENARIOS)):
        raise NoFigures(f"no scenario {', '.join(unknown)}; have {', '.join(SCENARIOS)}")
    with ExitStack() as stack:
        services = stack.enter_context(local_services(say, kafka_properties=PATIENT))
        say(services.description)
        with redis.Redis.from_url(services.redis_url) as client:
            info = client.info("server")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shared = Bench(plan, services, folder, f"bench-{uuid.uuid4().hex[:8]}", profile)
        settings = shared.settings(SCENARIOS["do_nothing"])
        names = {settings.kafka_events_topic, settings.kafka_meta_inits_topic}
        stack.enter_context(made_topics(settings, shared.largest_mapping, names))
        prefill(settings, plan.workload(), shared.prefilled)
        say(f"{shared.prefilled:,} events prefilled")
        drains, paced = _drains(shared, say), list[Paced]()
        scenarios = {name: scenario_figures(runs) for name, runs in drains.items()}
        if full_load := drains.get("all_published"):
            half = statistics.median(drain.events_per_s for drain in full_load) / 2
            paced = [paced_run(shared, half, say) for _ in range(plan.paced_runs)]
    valkey_version = str(info.get("valkey_version") or info["redis_version"])
    return {
        "machine": {"kafka": KAFKA_VERSION, "valkey": valkey_version},
        "settings": {name: dict(SCENARIOS[name].settings) for name in plan.scenarios}
        | {"all": "gate_ridge off; min_support = support_size; otherwise adaptd's defaults"},
        "theta": "maml, 5 steps, gelu, mse; fresh, seed 0",
        "scenarios": scenarios,
        **({"latency": latency_figures(paced)} if paced else {}),
        "ratios": ratios_of(drains),
    }


def _drains(shared: Bench, say: Say) -> dict[str, list[Drain]]:
    """Returns runs by scenario; each repetition runs one after the other, so noise comes to all
    alike. First come runs that do not count: for their publish intervals, and to check mappings as
    closely as float32 allows."""
    plan, began, again_s = shared.plan, time.monotonic(), 0.0
    chosen = [name for name in SCENARIOS if name in plan.scenarios and _possible(name, say)]
    runs: dict[str, list[Drain]] = {name: [] for name in chosen}
    intervals = PublishIntervals(plan)

    def drain(name: str, title: str, plan: StreamPlan) -> Drain:
        interval_ms = intervals.of(name)
        steady_s = min(max(plan.steady_s, (interval_ms or 0) / 1000), plan.longest_steady_s)
        found = replace(shared, plan=plan).drain(SCENARIOS[name], interval_ms, steady_s)
        say(drain_line(title, found))
        intervals.learn(name, found)
        return found

    for name in chosen if plan.calibrate else ():
        if SCENARIOS[name].paced_publishing:
            drain(name, f"({name})", replace(plan, mapping_dtype="float32"))
    for done in range(plan.repetitions):
        if done and time.monotonic() - began + again_s > plan.at_most_s:
            say(f"{done} of {plan.repetitions} repetitions: another would take {again_s:.0f} s")
            break
        again_s = 0.0
        for name in chosen:
            if not (done and SCENARIOS[name].once):
                run_began = time.monotonic()
                runs[name].append(drain(name, name, plan))
                again_s += 0 if SCENARIOS[name].once else time.monotonic() - run_began
    return runs


def _possible(name: str, say: Say) -> bool:
    missing = find_spec("confluent_kafka") is None
    if missing and SCENARIOS[name].settings.get("kafka_client") == "librdkafka":
        say(f"{name} is left out: pip install '.[librdkafka]'")
        return False
    return True


class PublishIntervals:
    """The publish interval by scenario: such that as many mappings per event come as of the
    do-nothing worker, if a run can be as long as that. Each run says what the next should have."""

    def __init__(self, plan: StreamPlan) -> None:
        self._plan, self._wanted = plan, plan.do_nothing_share
        self._ms: dict[str, int] = {}

    def of(self, name: str) -> int | None:
        """Returns milliseconds; None for the daemon's own."""
        paced = SCENARIOS[name].paced_publishing
        return self._ms.get(name, self._plan.first_interval_ms) if paced else None

    def learn(self, name: str, drain: Drain) -> None:
        """Sets the scenario's next interval by what a run published and how long that took."""
        if name == "do_nothing":
            self._wanted = drain.mappings_per_event
        if SCENARIOS[name].paced_publishing:
            due_s = self._plan.streams * seconds_per_event(drain, self._wanted) / self._wanted
            self._ms[name] = round(1000 * min(due_s, self._plan.longest_steady_s))


def seconds_per_event(drain: Drain, mappings_per_event: float) -> float:
    """Returns how long the run would have taken for an event with so many mappings: publishing
    takes time as there are mappings, all else as it did."""
    if not drain.mappings:
        return 1 / drain.events_per_s
    spent = drain.per_event(STAGE_S % "publish")
    return 1 / drain.events_per_s + spent * (mappings_per_event / drain.mappings_per_event - 1)


def scenario_figures(runs: Sequence[Drain]) -> Report:
    """Returns the figures of one scenario's runs."""

    def over(figure: Callable[[Drain], float]) -> dict[str, float]:
        return spread([figure(run) for run in runs])

    found: Report = {
        "events_per_s": over(lambda run: run.events_per_s),
        "cpu_us_per_event": {
            of: spread([run.cpu_us_per_event(of) for run in runs]) for of in runs[0].start.cpu_s
        },
        "mappings_per_event": over(lambda run: run.mappings_per_event),
        "mapping_bytes": rounded(runs[-1].mapping_bytes),
        "steady_s": over(lambda run: run.seconds),
    }
    differences = [run.difference for run in runs if run.difference is not None]
    if differences:
        found["difference"] = rounded(max(differences))
    if runs[0].start.counters:
        found["adaptations_per_event"] = over(lambda run: run.per_event(ADAPTED))
        found["publish_interval_ms"] = [run.publish_interval_ms for run in runs]
        found["wall_us_per_event_by_stage"] = {
            stage: rounded(1e6 * statistics.fmean(run.per_event(STAGE_S % stage) for run in runs))
            for stage in STAGES
        }
    return found


def ratios_of(drains: Drains) -> dict[str, dict[str, float]]:
    """Returns the ratios of those whose two scenarios were run; a scenario that was run once is
    compared with its neighbour."""

    def figures(name: str, scenario: str) -> list[float]:
        by_cpu = name.startswith("cpu")
        runs = drains[scenario]
        return [run.cpu_us_per_event("worker") if by_cpu else run.events_per_s for run in runs]

    return {
        name: ratios(figures(name, ours), figures(name, theirs))
        for name, (ours, theirs) in RATIOS.items()
        if ours in drains and theirs in drains
    }


def drain_line(name: str, run: Drain) -> str:
    """Returns a line for people, while it goes on."""
    line = (
        f"{name:21} {run.events_per_s:7,.0f} events/s; worker's CPU/event "
        f"{run.cpu_us_per_event('worker'):,.0f} µs; {run.mappings_per_event:.3f} mappings/event; "
        f"{run.events:,} events in {run.seconds:.1f} s"
    )
    if run.start.counters:
        line += f"; {run.per_event(ADAPTED):.3f} adaptations/event"
        line += f", published every {run.publish_interval_ms} ms"
    return line


BENCHMARK = Benchmark("stream", StreamPlan(), QUICK, PACKAGES, stream_figures)
