"""What a figure's line says beside its number: from the same JSON. Pure."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.worker.report_markdown import number
from benchmarks.worker.report_results import Path, Report, at

B256: Path = ("cases", {"what": "adapt", "streams": 256, "dim": 512})
B1: Path = ("cases", {"what": "adapt", "streams": 1, "dim": 512})
B1024: Path = ("cases", {"what": "adapt", "streams": 1024, "dim": 512})
WIDE: Path = ("cases", {"what": "adapt", "streams": 32, "dim": 2048})
OUTER: Path = ("cases", {"what": "gradient", "streams": 32, "dim": 512})
SPILLED: Path = ("memory", "spilled")
ISSUE_STREAMS = 100_000
HOUR_S = 3_600


def fastest(case: Path, kind: str) -> Callable[[Report], str]:
    """Whom the figure is over."""
    return lambda report: f"the fastest is {at(report, (*case, kind))}"


def cached(case: Path, *over: str) -> Callable[[Report], str]:
    """What the same is worth with less to do, and with more."""

    def remark(report: Report) -> str:
        found = at(report, case)
        parts = [f"the fastest is {found[kind]}" for kind in KINDS.get(over[0], ())]
        parts.append("with θ′ in factors")
        for form, what in FORMS.items():
            ratio = at(found, ("entries", form, *over, "median"))
            if ratio is not None:
                parts.append(f"{number(ratio)}x {what}")
        return "; ".join(parts)

    return remark


FORMS = {
    "hidden cached, steps": "for the steps alone, as for a stream that is not published",
    "hidden cached, weights": "with all weights of θ′ written out",
}
KINDS = {"over_documented": ["fastest_documented"], "over_fastest": ["fastest_peer"]}
"""Whom it is over."""


def b1(report: Report) -> str:
    """The same from raw pairs."""
    found = at(report, (*B1, "entries", "hidden", "over", "loop", "median"))
    return f"projections cached; {number(found)}x without" if found else "projections cached"


def mappings(ours: str, theirs: str) -> Callable[[Report], str]:
    """Workers can be compared only where as much is published."""

    def remark(report: Report) -> str:
        paths = (("scenarios", name, "mappings_per_event", "median") for name in (ours, theirs))
        found = [at(report, path) for path in paths]
        if None in found:
            return ""
        per_event = [number(value) for value in found]
        return f"{per_event[0]} mappings per event, beside {per_event[1]}"

    return remark


def usual(report: Report) -> str:
    """How much each of the two publishes, and the same where it is as much."""
    found = at(report, ("ratios", "events_per_s_all_published_over_usual", "median"))
    every = f"; {number(found)}x with every mapping published" if found else ""
    return mappings("every_event", "usual")(report) + every


def librdkafka(report: Report) -> str:
    """What it saves of CPU."""
    found = at(report, ("ratios", "cpu_per_event_kafka_python_over_librdkafka", "median"))
    return f"{number(found)}x less CPU per event" if found else ""


def latency(report: Report) -> str:
    """Under which load."""
    found = at(report, ("latency",))
    rate, wait_ms = found.get("offered_events_per_s"), found.get("max_wait_ms")
    if rate is None or wait_ms is None:
        return ""
    return f"at {rate:,.0f} events/s, every mapping published; max_wait_ms = {wait_ms}"


def memory(report: Report) -> str:
    """Of how many streams, and what of their features was resident beside."""
    figures = at(report, SPILLED)
    wanted = f"{figures['streams']:,} streams"
    if figures["streams"] != ISSUE_STREAMS:
        wanted += f", not {ISSUE_STREAMS:,}"
    kb = {name: value / 1000 for name, value in figures["resident_bytes_per_stream"].items()}
    return (
        f"anonymous memory; {wanted}; raw features spilled to a file, of which "
        f"{number(kb['file'])} KB a stream were resident because memory was free"
    )


def written_out(report: Report) -> str:
    """What it costs to have features on the disk alone."""
    found = at(report, (*SPILLED, "written_out"))
    read = found.get("bytes_read_per_pair_after")
    if read is None:
        return ""
    rate = number(found["append_after"]["pairs_per_s"])
    return f"a pair then makes {number(read / 1000)} KB be read from the disk: {rate} pairs/s"


def in_memory(report: Report) -> str:
    """Of how many streams."""
    return f"{at(report, ('memory', 'in_memory', 'streams')):,} streams, the default setting"


def growth(report: Report) -> str:
    """For how long, and how steeply."""
    going_on = at(report, (*SPILLED, "going_on"))
    seconds, pairs = going_on["seconds"], going_on["append"]["pairs"]
    short = (
        f"for {seconds:,.0f} s, not an hour; " if seconds < HOUR_S else f"for {seconds:,.0f} s; "
    )
    per = going_on["growth_bytes_per_1000_appends"]["anon"]
    return f"{short}{pairs:,} pairs, slope {per:+,.0f} B per 1,000"


def fewer_streams(report: Report) -> bool:
    """Than the issue asks for."""
    return bool(at(report, (*SPILLED, "streams")) != ISSUE_STREAMS)


def less_than_an_hour(report: Report) -> bool:
    """Whether pairs came for less."""
    return bool(at(report, (*SPILLED, "going_on", "seconds")) < HOUR_S)


def device(report: Report) -> str:
    """Which GPU it was."""
    device = str(at(report, ("machine", "device")))
    return f"{device}, not an H200" if other_device(report) else device


def other_device(report: Report) -> bool:
    """Than the issue asks for."""
    return "H200" not in str(at(report, ("machine", "device")))
