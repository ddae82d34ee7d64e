"""The figures that have a goal: what each compares, the goal, and where the JSON has it.

A path goes into a report: a string is a key, a mapping chooses the item of a list that has these
values. It ends at a number or at a spread (median, min, max). A remark is a jinja2 template over
the report: what stands beside the number, from the same JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Report = Mapping[str, Any]
Step = str | Mapping[str, Any]
Path = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table."""

    name: str
    label: str
    """For the chart."""
    report: str
    path: Path
    goal: float
    unit: str = "x"
    at_most: bool = False
    scale: float = 1.0
    """What the JSON's number is multiplied by to have the unit."""
    remark: str = ""
    partly: str = ""
    """A jinja2 expression over the report: whether what was run is less than the goal is about."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured, or why it was not."""

    figure: Figure
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    missing: str | None = None

    @property
    def met(self) -> bool:
        """Whether the goal is met; False too where nothing was measured."""
        over, goal = self.value, self.figure.goal
        return over <= goal if self.figure.at_most else over >= goal

    @property
    def share(self) -> float:
        """The value over the goal."""
        return self.value / self.figure.goal


def result(figure: Figure, reports: Mapping[str, Report], absent: Mapping[str, str]) -> Result:
    """Looks the figure up in the reports; `absent` says why a report is not there."""
    report = reports.get(figure.report)
    if report is None:
        why = absent.get(figure.report, f"there is no {figure.report}.json")
        return Result(figure, missing=why)
    found = at(report, figure.path)
    if found is None:
        along = (at(report, figure.path[:length]) for length in range(len(figure.path), 0, -1))
        whys = [str(f["refused"]) for f in along if isinstance(f, Mapping) and "refused" in f]
        return Result(figure, missing=(whys or ["the run has no such figure"])[0])
    ends = ("median", "min", "max")
    values = [found[end] for end in ends] if isinstance(found, Mapping) else [found] * 3
    return Result(figure, *(figure.scale * value for value in values))


def at(report: Report, path: Sequence[Step]) -> Any:
    """Returns what lies there; None if nothing does."""
    found: Any = report
    for step in path:
        if isinstance(step, str):
            found = found.get(step) if isinstance(found, Mapping) else None
        else:
            found = _item(found or (), step)
    return found


def _item(items: Iterable[Any], wanted: Mapping[str, Any]) -> Any:
    return next((i for i in items if all(i.get(name) == v for name, v in wanted.items())), None)


def _adapt(
    name: str,
    label: str,
    goal: float,
    case: tuple[str, int, int],
    contender: str,
    over: str,
    remark: str = "",
) -> Figure:
    """A ratio of one of our contenders; a remark sees its case as `case`."""
    what, streams, dim = case
    found = ("cases", {"what": what, "streams": streams, "dim": dim}, "entries", contender)
    path: Path = (*found, *over.split("."))
    return Figure(name, label, "adapt", path, goal, remark=remark.replace("OVER", over))


B256, B1, WIDE, OUTER = (
    *(("adapt", 256, 512), ("adapt", 1, 512), ("adapt", 32, 2048)),
    ("gradient", 32, 512),
)
DOCUMENTED = "the fastest is {{ case.fastest_documented }}"
FASTEST = "the fastest is {{ case.fastest_peer }}"
FACTORS = (
    "with θ′ in factors"
    "{% set steps = case.entries['hidden cached, steps'].OVER.median %}{% if steps %}"
    "; {{ steps | number }}x for the steps alone, as for a stream that is not published{% endif %}"
    "{% set weights = case.entries['hidden cached, weights'].OVER.median %}{% if weights %}"
    "; {{ weights | number }}x with all weights of θ′ written out{% endif %}"
)
PER_EVENT = (
    "{% set a = scenarios.OURS.mappings_per_event.median %}"
    "{% set b = scenarios.THEIRS.mappings_per_event.median %}"
    "{% if a and b %}{{ a | number }} mappings per event, beside {{ b | number }}{% endif %}"
)
FEWER_STREAMS = "memory.spilled.streams != 100000"

FIGURES: tuple[Figure, ...] = (
    _adapt(
        "streams adapted per CPU-second, d=512, H=128, S=16, 5 steps, B=256, projections cached, "
        "over the fastest documented form of any peer",
        "adapt, B=256, d=512, cached,\nover documented peers",
        *(15, B256, "hidden cached", "over_documented", f"{DOCUMENTED}; {FACTORS}"),
    ),
    _adapt(
        "... over the fastest peer of all, with a chunked form of JAX that we tuned",
        "adapt, B=256, d=512, cached,\nover all peers",
        *(15, B256, "hidden cached", "over_fastest", f"{FASTEST}; {FACTORS}"),
    ),
    _adapt(
        "... without cached projections, over the fastest documented form",
        "adapt, B=256, d=512, not cached,\nover documented peers",
        *(10, B256, "hidden", "over_documented", DOCUMENTED),
    ),
    _adapt(
        "... without cached projections, over the fastest peer of all",
        "adapt, B=256, d=512, not cached,\nover all peers",
        *(10, B256, "hidden", "over_fastest", FASTEST),
    ),
    _adapt(
        "the same at d=2048, B=32, cached, over a per-stream loop",
        "adapt, B=32, d=2048, cached,\nover a per-stream loop",
        *(50, WIDE, "hidden cached", "over.loop", FACTORS),
    ),
    _adapt(
        "outer gradient (second order), B=32, d=512, over the fastest documented form",
        "outer gradient, B=32,\nover documented peers",
        *(6, OUTER, "hidden", "over_documented", DOCUMENTED),
    ),
    _adapt(
        "... over the fastest peer of all",
        "outer gradient, B=32,\nover all peers",
        *(6, OUTER, "hidden", "over_fastest", FASTEST),
    ),
    _adapt(
        "one stream alone (B=1, d=512), over a per-stream loop",
        "adapt, B=1, d=512, cached,\nover a per-stream loop",
        *(5, B1, "hidden cached", "over.loop"),
        "projections cached{% set raw = case.entries.hidden.over.loop.median %}"
        "{% if raw %}; {{ raw | number }}x without{% endif %}",
    ),
    Figure(
        "CPU per event of the whole daemon over the do-nothing worker, 2,000 streams, each adapted "
        "on every fourth of its events",
        "daemon CPU per event over do-nothing,\nadapting on every 4th event",
        *("stream", ("ratios", "cpu_per_event_every_fourth_over_do_nothing"), 2.5),
        at_most=True,
        remark=PER_EVENT.replace("OURS", "every_fourth").replace("THEIRS", "do_nothing"),
    ),
    Figure(
        "... adapted on every event",
        "daemon CPU per event over do-nothing,\nadapting on every event",
        *("stream", ("ratios", "cpu_per_event_every_event_over_do_nothing"), 5),
        at_most=True,
        remark=PER_EVENT.replace("OURS", "every_event").replace("THEIRS", "do_nothing"),
    ),
    Figure(
        "events per second of the whole daemon over the usual worker, adapting on every event",
        "daemon events/s, adapting on every\nevent, over the usual worker",
        *("stream", ("ratios", "events_per_s_every_event_over_usual"), 12),
        remark=PER_EVENT.replace("OURS", "every_event").replace("THEIRS", "usual")
        + "{% set every = ratios.events_per_s_all_published_over_usual.median %}"
        "{% if every %}; {{ every | number }}x with every mapping published{% endif %}",
    ),
    Figure(
        "events per second, librdkafka over kafka-python, whole daemon",
        "daemon events/s,\nlibrdkafka over kafka-python",
        *("stream", ("ratios", "events_per_s_librdkafka_over_kafka_python"), 1.3),
        remark="{% set less = ratios.cpu_per_event_kafka_python_over_librdkafka.median %}"
        "{% if less %}{{ less | number }}x less CPU per event{% endif %}",
    ),
    Figure(
        "event-to-publish p99 at half of full load, beyond `max_wait_ms`",
        "event-to-publish p99\nbeyond max_wait_ms",
        *("stream", ("latency", "p99_beyond_max_wait_ms"), 100, "ms"),
        at_most=True,
        remark="at {{ '{:,.0f}'.format(latency.offered_events_per_s) }} events/s, every mapping "
        "published; max_wait_ms = {{ latency.max_wait_ms }}",
    ),
    Figure(
        "memory per stream, window 32, d=512, 100,000 streams: what the kernel cannot take back",
        "memory per stream, spilled:\nanonymous",
        *("windows", ("memory", "spilled", "resident_bytes_per_stream", "anon"), 48, "KB"),
        *(True, 1e-3),
        remark="{% set each = memory.spilled %}"
        "anonymous memory; {{ '{:,}'.format(each.streams) }} streams"
        "{% if each.streams != 100000 %}, not 100,000{% endif %}; raw features spilled to a file, "
        "of which {{ (each.resident_bytes_per_stream.file / 1000) | number }} KB a stream were "
        "resident because memory was free",
        partly=FEWER_STREAMS,
    ),
    Figure(
        "... all that is resident once the kernel has taken back what it can",
        "memory per stream, spilled:\nresident after reclaim",
        "windows",
        ("memory", "spilled", "written_out", "resident_bytes_per_stream", "all"),
        *(48, "KB", True, 1e-3),
        remark="{% set out = memory.spilled.written_out %}{% if out.append_after %}"
        "a pair then makes {{ (out.bytes_read_per_pair_after / 1000) | number }} KB be read from "
        "the disk: {{ out.append_after.pairs_per_s | number }} pairs/s{% endif %}",
        partly=FEWER_STREAMS,
    ),
    Figure(
        "... with raw features in memory (no `window_spill_dir`)",
        "memory per stream,\nraw features in memory",
        *("windows", ("memory", "in_memory", "resident_bytes_per_stream", "all"), 48, "KB"),
        *(True, 1e-3),
        remark="{{ '{:,}'.format(memory.in_memory.streams) }} streams, the default setting",
    ),
    Figure(
        "... flat over an hour: growth of anonymous memory while pairs keep coming",
        "growth of anonymous memory\nwhile pairs keep coming",
        *("windows", ("memory", "spilled", "going_on", "growth_share"), 1, "%", True, 100),
        remark="{% set g = memory.spilled.going_on %}for {{ '{:,.0f}'.format(g.seconds) }} s"
        "{% if g.seconds < 3600 %}, not an hour{% endif %}; {{ '{:,}'.format(g.append.pairs) }} "
        "pairs, slope {{ '{:+,.0f}'.format(g.growth_bytes_per_1000_appends.anon) }} B per 1,000",
        partly="memory.spilled.going_on.seconds < 3600",
    ),
    Figure(
        "on an H200: adapted streams per second, d=512, cached",
        "H200, streams/s",
        "adapt-cuda",
        (
            *("cases", {"what": "adapt", "streams": 1024, "dim": 512}),
            *("entries", "hidden cached", "streams_per_s"),
        ),
        1e6,
        "/s",
        remark="{{ machine.device }}{% if 'H200' not in machine.device %}, not an H200{% endif %}",
        partly="'H200' not in machine.device",
    ),
)
