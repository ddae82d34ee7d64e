"""`python -m benchmarks cliffs`: loads under which an earlier worker got slow or stood still.

- backlog: many large mappings are owed at once, and the time for a delivery is short. The turn's
  mappings must not be one delivery: that is never acknowledged, and begins anew for ever.
- trickle: events come one by one, and every turn is for a few of them.
- evicted: more streams are busy than fit into memory, so that windows are read back from Redis. A
  few more must cost a little more.
- swap: another θ is activated while events come. All mappings are made anew, and events must not
  wait behind them.
"""

import statistics
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.output import Benchmark, NoFigures, Report, Say
from benchmarks.process import Process
from benchmarks.stream.drain import Bench
from benchmarks.stream.latency import Mapped, Sent, freshness, nearest_rank
from benchmarks.stream.plan import EVERY_EVENT, StreamPlan, StreamScenario
from benchmarks.stream.stream import PACKAGES, PATIENT
from benchmarks.stream.topics import Offsets, Place, Reader, made_topics, place_of, prefill
from benchmarks.stream.worker_process import Watched
from benchmarks.timing import rounded
from daemon.adapters.kafka_python.meta_inits import KafkaPythonMetaInits
from daemon.config import Settings
from daemon.local.kafka_install import KAFKA_VERSION
from daemon.local.services import Services, local_services
from daemon.thetas.operate import activate_theta, publish_theta
from daemon.wire.adapted_mapping import HEADER_PREFIX
from model.theta.meta_init import MetaInit, fresh_meta_init
from model.theta.meta_init_file import meta_init_to_bytes

MIB = 2**20
RETURNED = "adaptd_windows_returned_total"
ALL_EVENTS = {"publish_interval_ms": 0}


@dataclass(frozen=True, slots=True)
class CliffsPlan:
    """How much of each is measured."""

    only: tuple[str, ...] = ("backlog", "trickle", "evicted", "swap")
    backlog_streams: int = 900
    backlog_dim: int = 2048  # a mapping in full has 2 MB
    delivery_timeout_ms: int = 1_500
    trickle_streams: int = 1_000
    trickle_dim: int = 512
    trickle_rate: float = 200.0  # events per second
    trickle_s: float = 20.0
    evicted_streams: int = 2_000
    evicted_events: int = 16_000  # beyond those that fill windows; they come in rounds
    evicted_s: float = 4.0
    working_sets: tuple[float, ...] = (1.0, 1.1, 2.0)  # streams over what fits into memory
    swap_streams: int = 10_000
    swap_dim: int = 64
    swap_rate: float = 100.0  # events per second
    swap_s: float = 40.0  # how long they come; the θ changes after three fifths of that
    settle_s: float = 2.0  # of that, before latencies count
    seed: int = 1


QUICK = CliffsPlan(
    backlog_streams=40,
    backlog_dim=256,
    trickle_streams=50,
    trickle_s=3.0,
    evicted_streams=60,
    evicted_events=6_000,
    evicted_s=0.5,
    swap_streams=200,
    swap_rate=50.0,
    swap_s=8.0,
    settle_s=0.2,
)


def cliffs_figures(plan: CliffsPlan, say: Say) -> Report:
    """Measures each cliff on a real Kafka and a real Redis of their own. Raises NoFigures,
    ServicesUnavailable, Unavailable."""
    cases = {"backlog": backlog, "trickle": trickle, "evicted": evicted, "swap": swap}
    if unknown := sorted(set(plan.only) - set(cases)):
        raise NoFigures(f"no case {', '.join(unknown)}; have {', '.join(cases)}")
    with ExitStack() as stack:
        services = stack.enter_context(local_services(say, kafka_properties=PATIENT))
        say(services.description)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = {name: cases[name](plan, services, folder, say) for name in plan.only}
    return {"machine": {"kafka": KAFKA_VERSION}, "cliffs": found}


def backlog(plan: CliffsPlan, services: Services, folder: Path, say: Say) -> Report:
    """Returns how long the backlog took, how many records Kafka got until all was committed, and
    the memory that the worker took (MiB). Raises NoFigures, Unavailable."""
    sized = StreamPlan(
        streams=plan.backlog_streams,
        dim=plan.backlog_dim,
        events=0,
        support_size=6,
        query_size=2,
        mapping_encoding="full",
        mapping_dtype="float32",
        seed=plan.seed,
    )
    times = {"kafka_delivery_timeout_ms": plan.delivery_timeout_ms, "kafka_timeout_ms": 1_000}
    bench, scenario = _bench(sized, services, folder), StreamScenario("adaptd", times)
    settings = bench.settings(scenario)
    with _running(bench, scenario, settings) as (worker, reader):
        base, began = _memory_mib(worker, "VmRSS"), time.monotonic()
        prefill(settings, sized.workload(), sized.streams)
        worker.wait_until("publishing the backlog", reader.everything_committed)
        seconds, records = time.monotonic() - began, reader.count(settings.kafka_mappings_topic)
        peak = _memory_mib(worker, "VmHWM")
    say(f"backlog: {seconds:.0f} s, {records} records, {peak - base:.0f} MiB over {base:.0f}")
    return {
        "mappings": sized.streams,
        "mapping_mib": rounded(8 * sized.dim * sized.hidden_dim / MIB),
        "seconds": rounded(seconds),
        "records": records,
        "base_mib": rounded(base),
        "over_base_mib": rounded(peak - base),
    }


def trickle(plan: CliffsPlan, services: Services, folder: Path, say: Say) -> Report:
    """Returns the CPU time and the latency of events that come one by one, with the defaults."""
    sized = StreamPlan(streams=plan.trickle_streams, dim=plan.trickle_dim, events=0, seed=plan.seed)
    bench, scenario = _bench(sized, services, folder), StreamScenario("adaptd")
    settings, workload = bench.settings(scenario), sized.workload()
    with _running(bench, scenario, settings) as (worker, reader):
        prefill(settings, workload, workload.head_count)
        worker.wait_until("filling windows", reader.everything_committed)
        topics = settings.kafka_events_topic, settings.kafka_mappings_topic
        filled, published = (reader.ends(topic) for topic in topics)
        before = worker.sample(worker.appended())
        with Process("benchmarks.stream.latency", timeout_s=plan.trickle_s + 60) as paced:
            said = paced.ask(_request(settings, sized, plan.trickle_rate, plan.trickle_s))
        worker.wait_until("committing the paced events", reader.everything_committed)
        after = worker.sample(worker.appended())
        sent, mapped = (
            _sent(reader, topics[0], filled),
            _mapped(reader.records(topics[1], published)),
        )
    _, waited_ms = freshness(sent, mapped, said["start_ms"])
    events, turns = len(sent), "adaptd_turn_stage_seconds_count{poll}"
    found = {
        "events_per_s": plan.trickle_rate,
        "cpu_us_per_event": rounded(
            1e6 * (after.cpu_s["worker"] - before.cpu_s["worker"]) / events
        ),
        "turns_per_event": rounded((after.counters[turns] - before.counters[turns]) / events),
        "mean_latency_ms": rounded(statistics.fmean(waited_ms)),
    }
    say(f"trickle: {found}")
    return found


def evicted(plan: CliffsPlan, services: Services, folder: Path, say: Say) -> Report:
    """Returns the CPU time per event, and how many windows were read back for each, by how many
    times as many streams there are as fit into memory."""
    sized = StreamPlan(
        streams=plan.evicted_streams,
        dim=plan.trickle_dim,
        events=plan.evicted_events,
        least_events=min(4_000, plan.evicted_events // 4),
        seed=plan.seed,
    )
    bench = _bench(sized, services, folder)
    settings = bench.settings(StreamScenario("adaptd"))
    names = {settings.kafka_events_topic, settings.kafka_meta_inits_topic}
    spent: dict[float, float] = {}
    found: Report = {"streams": sized.streams}
    with made_topics(settings, bench.largest_mapping, names):
        prefill(settings, sized.workload(), bench.prefilled)
        for times in plan.working_sets:
            resident = {"max_resident_streams": round(sized.streams / times)}
            scenario = StreamScenario("adaptd", EVERY_EVENT | resident)
            drain = bench.drain(scenario, sized.first_interval_ms, plan.evicted_s)
            spent[times] = drain.cpu_us_per_event("worker")
            name = f"working_set_{100 * times:.0f}_percent"
            found[f"{name}_cpu_us_per_event"] = rounded(spent[times])
            found[f"{name}_read_back_per_event"] = rounded(drain.per_event(RETURNED))
            if times > 1.0:
                found[f"{name}_over_all_in_memory"] = rounded(spent[times] / spent[1.0])
    say(f"evicted: {found}")
    return found


def swap(plan: CliffsPlan, services: Services, folder: Path, say: Say) -> Report:
    """Returns the latency of events before and while another θ's mappings are made, and how long
    that takes."""
    sized = StreamPlan(
        streams=plan.swap_streams,
        dim=plan.swap_dim,
        hidden_dim=32,
        events=0,
        mapping_encoding="full",
        seed=plan.seed,
    )
    bench, scenario = _bench(sized, services, folder), StreamScenario("adaptd", ALL_EVENTS)
    settings, workload = bench.settings(scenario), sized.workload()
    request = _request(settings, sized, plan.swap_rate, plan.swap_s)
    fresh = fresh_meta_init(sized.dim, sized.dim, sized.hidden_dim, seed=1)
    other = replace(fresh, version="other", facts=bench.theta.facts)
    with _running(bench, scenario, settings) as (worker, reader), ThreadPoolExecutor(1) as beside:
        prefill(settings, workload, workload.head_count)
        worker.wait_until("filling windows", reader.everything_committed)
        filled = reader.ends(settings.kafka_events_topic)
        with Process("benchmarks.stream.latency", timeout_s=plan.swap_s + 60) as paced:
            swapping = beside.submit(_activate, settings, other, filled, plan.swap_s * 0.6)
            said = paced.ask(request)
        worker.wait_until("committing the paced events", reader.everything_committed)
        worker.wait_until("renewing every mapping", lambda: _at_rest(worker))
        sent = _sent(reader, settings.kafka_events_topic, filled)
        records = list(reader.records(settings.kafka_mappings_topic, {}))
    mapped = _mapped(records)
    renewed_ms = _first_of(records, other.content_hash)
    if len(renewed_ms) < sized.streams:
        raise NoFigures(f"{len(renewed_ms)} of {sized.streams} streams have the other θ's mapping")
    # the change begins with the first mapping of the other θ: workers ask for it once a second
    began_ms, ended_ms = min(renewed_ms.values()), max(renewed_ms.values())
    settled_ms = said["start_ms"] + 1000 * plan.settle_s
    found: Report = {"streams": sized.streams, "events_per_s": plan.swap_rate}
    found |= _latencies("before", sent, mapped, settled_ms, swapping.result())
    found |= _latencies("meanwhile", sent, mapped, swapping.result(), ended_ms)
    found["renewed_in_s"] = rounded((ended_ms - began_ms) / 1000)
    say(f"swap: {found}")
    return found


def _bench(sized: StreamPlan, services: Services, folder: Path) -> Bench:
    name = f"cliff-{uuid.uuid4().hex[:8]}"
    (folder / name).mkdir()
    return Bench(sized, services, folder / name, name)


@contextmanager
def _running(
    bench: Bench, scenario: StreamScenario, settings: Settings
) -> Iterator[tuple[Watched, Reader]]:
    """Makes the topics and runs the daemon until it is ready and longer."""
    names = {settings.kafka_events_topic, settings.kafka_meta_inits_topic}
    with ExitStack() as stack:
        stack.enter_context(made_topics(settings, bench.largest_mapping, names))
        worker, reader = bench.start(scenario, settings, stack)
        worker.wait_until("getting ready", lambda: _get(worker, "readyz") is not None)
        yield worker, reader


def _request(settings: Settings, sized: StreamPlan, rate: float, seconds: float) -> dict[str, Any]:
    """Returns what the producer that keeps to a timetable is asked."""
    return {
        "servers": settings.kafka_bootstrap_servers,
        "topic": settings.kafka_events_topic,
        "rate": rate,
        "count": int(rate * seconds),
        "workload": astuple(sized.workload()),
    }


def _sent(reader: Reader, topic: str, since: Offsets) -> dict[Place, Sent]:
    return {
        Place(record.partition, record.offset): Sent(record.key.decode(), record.timestamp)
        for record in reader.records(topic, since)
    }


def _mapped(records: Iterable[Any]) -> list[Mapped]:
    return [Mapped(r.key.decode(), place_of(r), r.timestamp) for r in records]


def _get(worker: Watched, path: str) -> str | None:
    """Returns what the daemon answers; None while it does not, or says that something is wrong."""
    url = f"http://127.0.0.1:{worker.metrics_port}/{path}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def _at_rest(worker: Watched) -> bool:
    return 'adaptd_streams{state="renewal"} 0.0' in (_get(worker, "metrics") or "")


def _activate(settings: Settings, theta: MetaInit, filled: Offsets, after_s: float) -> float:
    """Makes workers serve θ so many seconds after the first event behind `filled`. Returns when
    (ms, UTC)."""
    with closing(Reader(settings)) as reader:
        while reader.ends(settings.kafka_events_topic) == filled:
            time.sleep(0.05)
    time.sleep(after_s)
    with closing(KafkaPythonMetaInits(settings, "cliffs")) as port:
        publish_theta(port, theta, meta_init_to_bytes(theta))
        now_ms = time.time() * 1000
        activate_theta(port, theta.version, by="cliffs", now_ms=int(now_ms))
    return now_ms


def _first_of(records: Iterable[Any], theta_hash: str) -> dict[bytes, int]:
    """Returns when each stream's first mapping of that θ was appended (ms), by stream."""
    first: dict[bytes, int] = {}
    for record in records:
        if dict(record.headers)[f"{HEADER_PREFIX}meta_init_hash"] == theta_hash.encode():
            first.setdefault(record.key, record.timestamp)
    return first


def _latencies(
    name: str,
    sent: Mapping[Place, Sent],
    mapped: Iterable[Mapped],
    since_ms: float,
    until_ms: float,
) -> Report:
    """Returns the latencies of mappings whose oldest new event was sent in that time."""
    events = {place: each for place, each in sent.items() if each.sent_ms < until_ms}
    _, waited_ms = freshness(events, mapped, since_ms)
    if not waited_ms:
        raise NoFigures(f"no event came {name}; let them come for longer")
    p50, p99 = (nearest_rank(waited_ms, share) for share in (0.5, 0.99))
    return {f"{name}_p50_ms": rounded(p50), f"{name}_p99_ms": rounded(p99)}


def _memory_mib(worker: Watched, name: str) -> float:
    """Returns VmRSS or VmHWM (the most that it was) of the worker."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


BENCHMARK = Benchmark("cliffs", CliffsPlan(), QUICK, PACKAGES, cliffs_figures)
