"""What each benchmark measured, as Markdown tables. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.worker.report_markdown import cell, number, spread, table
from benchmarks.worker.report_results import Report, at

KB = 1_000


def adapt_lines(report: Report) -> Iterator[str]:
    """A table for each case."""
    figure = report["compared_by"]
    plan = report["parameters"]
    yield (
        f"`python -m benchmarks adapt`: H = {plan['hidden_dim']}, S = {plan['support']}, "
        f"{plan['inner_steps']} steps, {plan['turns']} turns; compared by `{figure}`. `off by`: "
        "from float64, beside the largest number."
    )
    for case in report["cases"]:
        yield f"\n**{case['what']}, {case['streams']:,} streams, d = {case['dim']:,}**\n"
        rows = [_contender(name, entry, figure) for name, entry in case["entries"].items()]
        yield from table(["", figure, "x loop", "x documented", "x fastest", "off by"], rows)
    yield from _definitions(report)


def _contender(name: str, entry: Mapping[str, Any], figure: str) -> list[str]:
    if "refused" in entry:
        return [name, f"none: {cell(str(entry['refused']))}", "", "", "", ""]
    over = [entry.get("over", {}).get("loop"), *map(entry.get, ("over_documented", "over_fastest"))]
    ratios = ["" if ratio is None else number(ratio["median"]) for ratio in over]
    return [name, spread(entry.get(figure)), *ratios, f"{entry['disagreement']:.0e}"]


def stream_lines(report: Report) -> Iterator[str]:
    """Throughput and CPU of every worker, then ratios, then where the wall time goes."""
    plan = report["parameters"]
    yield (
        f"`python -m benchmarks stream`: {plan['streams']:,} streams, d = {plan['dim']}, windows "
        f"of {plan['support_size']} + {plan['query_size']}, mappings "
        f"`{plan['mapping_encoding']}` in `{plan['mapping_dtype']}`; "
        "a real Kafka and Redis on the same cores.\n"
    )
    scenarios = report["scenarios"]
    of = ["worker", "kafka", "redis"]
    head = ["worker", "events/s", *(f"CPU µs/event, {name}" for name in of)]
    head += ["adaptations/event", "mappings/event", "KB each", "off by"]
    rows = [
        [f"`{name}`", spread(run["events_per_s"])]
        + [spread(run["cpu_us_per_event"].get(process)) for process in of]
        + [spread(run.get("adaptations_per_event")), spread(run["mappings_per_event"])]
        + [number(run["mapping_bytes"] / KB)]
        + ["" if run.get("difference") is None else f"{run['difference']:.0e}"]
        for name, run in scenarios.items()
    ]
    yield from table(head, rows)
    yield ""
    ratios = [[name.replace("_", " "), spread(found)] for name, found in report["ratios"].items()]
    yield from table(["ratio", ""], ratios)
    yield from _latency(report)
    yield from _stages(scenarios)
    yield from _definitions(report)


def _latency(report: Report) -> Iterator[str]:
    found = report.get("latency")
    if found:
        yield ""
        rows = [[name.replace("_", " "), _plain(value)] for name, value in found.items()]
        yield from table(["latency, at half of full load", ""], rows)


def _stages(scenarios: Mapping[str, Any]) -> Iterator[str]:
    by_stage = {
        name: run["wall_us_per_event_by_stage"]
        for name, run in scenarios.items()
        if "wall_us_per_event_by_stage" in run
    }
    if by_stage:
        yield ""
        stages = list(next(iter(by_stage.values())))
        rows = [[f"`{name}`", *(number(t[s]) for s in stages)] for name, t in by_stage.items()]
        yield from table(["wall µs/event", *stages], rows)


def windows_lines(report: Report) -> Iterator[str]:
    """Memory, appends, eviction and cold start."""
    plan, memory = report["parameters"], report["memory"]
    yield (
        f"`python -m benchmarks windows`: of {plan['support_size']} + {plan['query_size']} pairs, "
        f"d = {plan['dim']}, H = {plan['hidden_dim']}, {plan['torch_threads']} torch thread(s).\n"
    )
    yield from table(["", *(name.replace("_", " ") for name in memory)], _memory_rows(memory))
    yield ""
    yield from table(["Redis", ""], _store_rows(report["store"]))
    yield from _definitions(report)


def _memory_rows(memory: Mapping[str, Any]) -> list[list[str]]:
    every = list(memory.values())

    def row(name: str, *path: str, per: float = 1.0) -> list[str]:
        found = [at(figures, path) for figures in every]
        return [name, *("" if value is None else number(value / per) for value in found)]

    each, out = "resident_bytes_per_stream", "written_out"
    return [
        row("streams", "streams"),
        ["fewer than wanted", *(cell(f["limited_by"] or "no") for f in every)],
        row("reserved for a stream, KB", "bytes_per_stream_reserved", per=KB),
        row("resident per stream, KB", each, "all", per=KB),
        row("... anonymous", each, "anon", per=KB),
        row("... pages of files", each, "file", per=KB),
        row("after the kernel took back what it can", out, each, "all", per=KB),
        row("... KB read for a pair then", out, "bytes_read_per_pair_after", per=KB),
        row("... pairs/s then", out, "append_after", "pairs_per_s"),
        row("filling: pairs/s", "filling", "pairs_per_s"),
        row("filling: CPU µs per pair", "filling", "cpu_us_per_pair"),
        row("pairs keep coming for, s", "going_on", "seconds"),
        row("... pairs", "going_on", "append", "pairs"),
        row("... CPU µs per pair", "going_on", "append", "cpu_us_per_pair"),
        row("... adapted streams/s", "going_on", "adapt", "streams_per_s"),
        row("... growth, B per 1,000 pairs: all", "going_on", _GROWTH, "all"),
        row("... anonymous", "going_on", _GROWTH, "anon"),
        *(
            row(f"appends of {batch} pairs: CPU µs per pair", "append", batch, "cpu_us_per_pair")
            for batch in every[0]["append"]
        ),
    ]


_GROWTH = "growth_bytes_per_1000_appends"


def _store_rows(store: Mapping[str, Any]) -> list[list[str]]:
    eviction, cold = store["eviction"], store["cold_start"]
    return [
        ["streams", number(store["streams"])],
        ["bytes of Redis for each", number(store["redis_bytes_per_stream"])],
        ["evicted and brought back, streams/s", number(eviction["streams_evicted_and_back_per_s"])],
        ["... CPU µs: reading", number(eviction["reading"]["cpu_us_per_stream"])],
        ["... taking in", number(eviction["taking_in"]["cpu_us_per_stream"])],
        ["... evicting", number(eviction["evicting"]["cpu_us_per_stream"])],
        ["cold start: all loaded and adapted once, s", number(cold["seconds"])],
        [
            "... 100,000 streams at this rate, s (scaled, not run)",
            number(cold["seconds_for_100000_streams_at_this_rate"]),
        ],
    ]


def _definitions(report: Report) -> Iterator[str]:
    found = report.get("definitions", {})
    if found:
        yield ""
        yield from (f"- `{name}`: {cell(str(text))}" for name, text in found.items())


def _plain(value: Any) -> str:
    if isinstance(value, Mapping) and "median" in value:
        return spread(value)
    return number(value) if isinstance(value, int | float) else cell(str(value))
