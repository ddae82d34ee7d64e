"""Event-to-publish latency at half of full load: from each event's due time to its mapping's
append.

Both times are Kafka's records of what happened: an event's timestamp is the time it was due, not
the time it got away, so a producer that the machine holds up hides nothing; a mapping's is when the
broker appended it. The producer that keeps to the timetable is a process of its own:

    python -m benchmarks.stream.latency    answers one request
"""

import math
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

from benchmarks.output import NoFigures, Report, Say
from benchmarks.process import Process, serve_requests
from benchmarks.stream.drain import Bench
from benchmarks.stream.plan import ALL_PUBLISHED
from benchmarks.stream.topics import Place, made_topics, place_of, prefill, producer, send
from benchmarks.stream.workload import Workload, stream_name
from benchmarks.timing import rounded
from model.evaluate.machine import spread

TICK_S = 0.002  # A wake-up for every event would keep a core busy that the worker could use
LEAD_S = 0.2  # before the first event is due, so that the start is on time


class Sent(NamedTuple):
    """An event in the events topic."""

    stream: str
    sent_ms: int


class Mapped(NamedTuple):
    """A record of the mappings topic; `newest` is the newest event that it reflects."""

    stream: str
    newest: Place
    appended_ms: int


@dataclass(frozen=True, slots=True)
class Paced:
    """What one run measured; latencies in ms, one for each mapping that newly reflects an event."""

    offered_per_s: float
    late_ms: float
    """How far the producer fell behind its timetable at worst; that counts as latency."""
    max_wait_ms: int  # how long the daemon may wait for a full batch
    newest_ms: list[float]  # since the newest event it reflects
    oldest_ms: list[float]
    """Since the oldest event that it is the first to reflect; the daemon's histogram has this."""


def paced_run(bench: Bench, rate: float, say: Say) -> Paced:
    """Runs the daemon, which adapts on every event and publishes every mapping, at `rate` events a
    second. Raises NoFigures when an event or a mapping is missing or too many."""
    plan, workload = bench.plan, bench.plan.workload()
    settings = bench.settings(ALL_PUBLISHED)
    topic, count = f"{settings.kafka_group_id}-events", int(plan.paced_s * rate)
    settings = settings.model_copy(update={"kafka_events_topic": topic})
    with ExitStack() as stack:
        stack.enter_context(made_topics(settings, bench.largest_mapping, {topic}))
        prefill(settings, workload, workload.head_count)
        worker, reader = bench.start(ALL_PUBLISHED, settings, stack)
        worker.wait_until("filling windows", reader.everything_committed)
        filled = reader.ends(topic)
        servers = settings.kafka_bootstrap_servers
        request = {"servers": servers, "topic": topic, "rate": rate, "count": count}
        with Process("benchmarks.stream.latency", timeout_s=plan.paced_s + 60) as paced:
            said = paced.ask(request | {"workload": astuple(workload)})
        worker.wait_until("committing the paced events", reader.everything_committed)
        appended = worker.appended()
        sent = {
            Place(record.partition, record.offset): Sent(record.key.decode(), record.timestamp)
            for record in reader.records(topic, filled)
        }
        mapped = [
            Mapped(record.key.decode(), place_of(record), record.timestamp)
            for record in reader.records(settings.kafka_mappings_topic, {})
        ]
    pairs = workload.head_count - plan.streams + plan.streams * plan.window_size
    check_events(appended - pairs, len(sent), count)
    check_streams({m.stream for m in mapped}, {stream_name(s) for s in range(plan.streams)})
    newest_ms, oldest_ms = freshness(sent, mapped, said["start_ms"] + 1000 * plan.settle_s)
    if not newest_ms:
        raise NoFigures("no mapping came of the paced events; pace for longer")
    p50, p99 = (nearest_rank(oldest_ms, share) for share in (0.5, 0.99))
    say(f"at {rate:,.0f} events/s: p50 {p50:,.0f} ms, p99 {p99:,.0f} ms")
    return Paced(rate, said["late_ms"], settings.max_wait_ms, newest_ms, oldest_ms)


def check_events(appended: int, sent: int, count: int) -> None:
    """Raises NoFigures unless each event went through the worker, once."""
    if sent != count:
        raise NoFigures(f"the paced producer was to send {count} events, sent {sent}")
    if appended != count:
        raise NoFigures(f"{count} events sent, {appended} in Redis")


def check_streams(found: Collection[str], expected: Collection[str]) -> None:
    """Raises NoFigures unless those streams have mappings that must, and no others."""
    missing, others = len(set(expected) - set(found)), len(set(found) - set(expected))
    if missing or others:
        raise NoFigures(
            f"of {len(expected)} streams {missing} have no mapping; {others} others have one"
        )


def freshness(
    sent: Mapping[Place, Sent], mapped: Iterable[Mapped], since_ms: float
) -> tuple[list[float], list[float]]:
    """Returns `newest_ms` and `oldest_ms` of the mappings whose oldest newly reflected event was
    sent at `since_ms` or later. `sent` are the events of one phase, all of them; mappings of
    earlier ones are passed over, and so is one that reflects nothing new."""
    by_stream: dict[str, list[Place]] = defaultdict(list)
    for place in sorted(sent):
        by_stream[sent[place].stream].append(place)
    reflected: dict[str, int] = defaultdict(int)
    newest: list[float] = []
    oldest: list[float] = []
    for mapping in mapped:
        places, before = by_stream[mapping.stream], reflected[mapping.stream]
        upto = bisect_right(places, mapping.newest)
        if upto <= before:
            continue
        reflected[mapping.stream] = upto
        oldest_ms, newest_ms = (sent[places[at]].sent_ms for at in (before, upto - 1))
        if oldest_ms >= since_ms:
            newest.append(mapping.appended_ms - newest_ms)
            oldest.append(mapping.appended_ms - oldest_ms)
    return newest, oldest


def latency_figures(runs: Sequence[Paced]) -> Report:
    """Returns the latencies of all runs."""
    found: Report = {
        "offered_events_per_s": rounded(runs[0].offered_per_s),
        "max_wait_ms": runs[0].max_wait_ms,
    }
    for age in ("newest", "oldest"):
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            of_runs = [nearest_rank(getattr(run, f"{age}_ms"), share) for run in runs]
            found[f"{age}_{name}_ms"] = spread(of_runs)
    beyond = [ms - run.max_wait_ms for ms, run in zip(of_runs, runs, strict=True)]
    return found | {
        "p99_beyond_max_wait_ms": spread(beyond),
        "mappings": [len(run.oldest_ms) for run in runs],
        "paced_producer_late_ms": spread([run.late_ms for run in runs]),
    }


def nearest_rank(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def paced(servers: str, topic: str, rate: float, count: int, workload: list[int]) -> dict[str, Any]:
    """Sends `count` events after those that fill windows, `rate` a second. Returns when the first
    was due and how late the latest was."""
    made = Workload(*workload)
    events = list(made.events(made.head_count, count))
    with producer(servers) as sender:
        sender.partitions_for(topic)  # fetches what the first send would wait for
        start, late_s = time.time() + LEAD_S, 0.0
        for i, event in enumerate(events):
            due = start + i / rate
            while (now := time.time()) < due:
                time.sleep(max(TICK_S, due - now))
            late_s = max(late_s, now - due)
            send(sender, topic, event, int(due * 1000))
    return {"start_ms": start * 1000, "late_ms": 1000 * late_s}


if __name__ == "__main__":
    serve_requests(lambda request: paced(**request))
