"""BENCHMARKS.md out of the benchmarks' JSON. Pure; no number on the page comes from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.worker.report_details import adapt_lines, stream_lines, windows_lines
from benchmarks.worker.report_figures import ADAPT, CUDA, STREAM, WINDOWS
from benchmarks.worker.report_markdown import cell, number, table
from benchmarks.worker.report_results import Report, Reports, Result

HEAD = """# Benchmarks

What adaptd's speed is to be, and what it is. This page is written by

    pip install -e '.[local,bench,librdkafka]'
    python -m benchmarks report

which runs `python -m benchmarks adapt`, `stream` and `windows`, one after another, each contender
and each worker in a process of its own, and takes every number below from their JSON. `--from
FOLDER` writes the page from JSON that is there. Ratios are of runs that took turns; a ratio whose
outputs do not agree is not printed. Numbers are medians, with the least and the most of the turns
in brackets. What was not measured says why.
"""


def page(every: Sequence[Result], reports: Reports, failed: Mapping[str, str], chart: str) -> str:
    """The whole page. `failed` says which benchmarks ended with an error; `chart` is the picture's
    path as seen from the page."""
    lines = [HEAD, *_summary(every), "", f"![the same figures as bars]({chart})", ""]
    lines += [f"**`{name}` ended with an error:** {cell(why)}\n" for name, why in failed.items()]
    lines += ["## Machine and versions", "", *_machines(reports), ""]
    for name, title, details in (
        (ADAPT, "The inner loop beside other libraries'", adapt_lines),
        (CUDA, "The inner loop on a GPU", adapt_lines),
        (STREAM, "The whole daemon", stream_lines),
        (WINDOWS, "Windows", windows_lines),
    ):
        if name in reports:
            lines += [f"## {title}", "", *details(reports[name]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _summary(every: Sequence[Result]) -> Iterator[str]:
    yield from table(["figure", "to reach", "measured", "met?", "remark"], map(_line, every))


def _line(result: Result) -> list[str]:
    shown = [_target(result), _measured(result), _verdict(result)]
    return [cell(result.figure.name), *shown, cell(result.remark or result.missing or "")]


def _target(result: Result) -> str:
    figure = result.figure
    bound = "at most " if figure.at_most else ""
    return f"{bound}{with_unit(figure.target, figure.unit)}"


def _measured(result: Result) -> str:
    if result.missing is not None:
        return "not measured"
    text = f"**{with_unit(result.value, result.figure.unit)}**"
    if result.low == result.high:
        return text
    return f"{text} ({number(result.low)} to {number(result.high)})"


def _verdict(result: Result) -> str:
    if result.missing is not None:
        return "-"
    if result.met:
        return "yes, as far as it was run" if result.partly else "yes"
    if result.figure.at_most:
        return f"**no**: {number(result.share)} times as much"
    return f"**no**: {100 * result.share:.0f} % of it"


def with_unit(value: float, unit: str) -> str:
    """A number with its unit as people write it."""
    return f"{number(value)}{unit}" if unit in ("x", "/s") else f"{number(value)} {unit}"


def _machines(reports: Reports) -> Iterator[str]:
    facts = {name: _facts(report) for name, report in reports.items()}
    rows = [
        [name, *(str(facts[report].get(name, "")) for report in reports)]
        for name in dict.fromkeys(name for report in reports for name in facts[report])
    ]
    yield from table(["", *reports], rows)


def _facts(report: Report) -> dict[str, object]:
    seconds = report.get("seconds")
    took = {} if seconds is None else {"seconds taken": seconds}
    known = {**report.get("machine", {}), **report.get("versions", {})}
    return {"date": report.get("date", ""), **took, **known}
