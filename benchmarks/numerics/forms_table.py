"""The figures of `python -m benchmarks forms`, for a terminal."""

from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from model.inner.cost_rule import Shape

HEADINGS = ("D H E S K", "hidden", "read", "full", "faster", "picked", "regret")
WHOSE = {
    "all": "the rule",
    "contested": "the rule, forms less than 1.5x apart",
    "read": "the rule, all mappings read",
    "always_hidden": "always hidden",
    "always_full": "always full",
}


def as_table(report: dict[str, Any]) -> Table:
    """A row a shape; under it how often the pick is as good as the best, and the worst case."""
    table = Table(
        title="one turn, µs of CPU per stream (read: in hidden space, all mappings looked at)",
        caption="\n".join(_remarks(report["summary"], report["machine"])),
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        min_width=72,
    )
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in report["shapes"]:
        table.add_row(*_cells(entry, report["summary"]["within"]))
    return table


def _cells(entry: dict[str, Any], within: float) -> Iterator[str]:
    yield " ".join(str(entry[name]) for name in Shape._fields)
    for name in ("hidden_us", "hidden_read_us", "full_us"):
        yield f"{entry[name]:,.0f}"
    yield f"{entry['faster']} {entry['apart']:.2f}x"
    yield entry["picked"]
    yield "" if entry["regret"] == 0.0 else _share(entry["regret"], entry["regret"] > within)


def _remarks(summary: dict[str, Any], machine: dict[str, Any]) -> Iterator[str]:
    yield f"{machine['cpu']}, torch {machine['torch']}, one thread"
    for key, whose in WHOSE.items():
        found = summary[key]
        if found["shapes"]:
            worst = ", ".join(map(str, found["worst_shape"].values()))
            yield (
                f"{whose}: within {summary['within']:.0%} of the best in "
                f"{found['share_within']:.1%} of {found['shapes']} shapes; at worst "
                f"{found['worst_regret']:.0%} beyond it (D, H, E, S, K = {worst})"
            )


def _share(regret: float, miss: bool) -> str:
    return f"{regret:.0%}{' !' if miss else ''}"
