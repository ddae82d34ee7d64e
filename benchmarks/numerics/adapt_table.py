"""The figures of `python -m benchmarks adapt`, for a terminal."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

HEADINGS = ("with", "median (min, max)", "x loop", "x documented", "x fastest", "off by")


def as_tables(report: dict[str, Any]) -> Iterator[Table]:
    """One a case, and under it who has no figures and why."""
    for case in report["cases"]:
        table = Table(
            title=f"{case['what']}: {case['streams']} streams, d = {case['dim']}, "
            f"{report['compared_by']}",
            caption="\n".join(_remarks(case["entries"], report["machine"])),
            caption_justify="left",
            min_width=72,
        )
        for heading in HEADINGS:
            table.add_column(heading)
        for name, entry in case["entries"].items():
            if "refused" not in entry:
                table.add_row(name, *_cells(entry, report["compared_by"], _rank(name, case)))
        yield table


def _cells(entry: dict[str, Any], figure: str, rank: str) -> list[str]:
    speed, over = entry[figure], entry.get("over", {})
    ratios = (over.get("loop"), entry.get("over_documented"), entry.get("over_fastest"))
    return [
        f"{speed['median']:,.0f} ({speed['min']:,.0f}, {speed['max']:,.0f}){rank}",
        *("" if ratio is None else f"{ratio['median']:.2f}" for ratio in ratios),
        f"{entry['disagreement']:.0e}",
    ]


def _rank(name: str, case: dict[str, Any]) -> str:
    return " *" if name in (case["fastest_peer"], case["fastest_documented"]) else ""


def _remarks(entries: dict[str, dict[str, Any]], machine: dict[str, Any]) -> Iterator[str]:
    where = machine.get("device", machine["cpu"])
    yield f"* the fastest peers. {where}, torch {machine['torch']}, jax {machine['jax']}"
    reasons: dict[str, list[str]] = {}
    for name, entry in entries.items():
        if "refused" in entry:
            reasons.setdefault(entry["refused"], []).append(name)
    for reason, names in reasons.items():
        yield f"no figures of {' and of '.join(names)}: {reason}"
