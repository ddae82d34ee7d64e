"""R@1 on one kind of data, and how far what is published falls short of its rivals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model.evaluate.intervals import Interval
from model.evaluate.scoring import over_streams

PUBLISHED = "gated"
RIVALS = ("theta", "ridge")
"""What is published should be as good as each of these on any data."""
DATA_METHODS = {PUBLISHED: "published", "adapted": "ungated", "theta": "θ", "ridge": "ridge"}
"""The methods that are judged on each kind of data, and their column headings."""
SHORTFALL = "published - better of θ, ridge"
"""The heading of the worst shortfall."""


@dataclass(frozen=True, slots=True)
class DataCell:
    """R@1 at one number of support pairs, or over all windows of a stream that changes."""

    pairs: int | None
    """None where windows slide along a stream that changes."""
    r_at_1: Mapping[str, Interval]
    """By method: `gated` (what is published), `adapted` (θ′ ungated), `theta` and `ridge`."""
    against: Mapping[str, Interval]
    """What is published minus each rival, paired by episode."""

    @property
    def better_rival(self) -> str:
        """The rival with the larger R@1."""
        return max(RIVALS, key=lambda name: self.r_at_1[name].mean)

    @property
    def shortfall(self) -> Interval:
        """What is published minus the better rival: below 0 where it falls short."""
        return self.against[self.better_rival]


@dataclass(frozen=True, slots=True)
class DataRow:
    """One θ on one kind of data."""

    theta: str
    data: str
    cells: tuple[DataCell, ...]

    @property
    def worst(self) -> DataCell:
        """The cell with the worst shortfall."""
        return min(self.cells, key=lambda cell: cell.shortfall.mean)

    @property
    def falls_short(self) -> bool:
        """Whether what is published is found to be below the better rival at any number of
        pairs."""
        return any(cell.shortfall.high < 0.0 for cell in self.cells)


def data_cell(
    pairs: int | None, streams: Sequence[str], recalls: Mapping[str, Sequence[float]]
) -> DataCell:
    """Sum up the R@1 of every episode, by method; `streams` has each episode's stream."""
    published = recalls[PUBLISHED]
    against = {
        rival: [ours - theirs for ours, theirs in zip(published, recalls[rival], strict=True)]
        for rival in RIVALS
    }
    means, differences = (
        {name: over_streams(streams, values) for name, values in found.items()}
        for found in (recalls, against)
    )
    return DataCell(pairs, means, differences)


def worst_of(rows: Sequence[DataRow]) -> DataRow:
    """Return the row with the worst shortfall. Raises ValueError where there are no rows."""
    return min(rows, key=lambda row: row.worst.shortfall.mean)


def row_texts(row: DataRow, sizes: int) -> list[str]:
    """Return a row's cells for a table: R@1 of each method at the numbers of pairs, and the worst
    shortfall. A dash stands for each of the `sizes` smallest numbers that the row lacks."""
    lacking = 0 if row.cells[0].pairs is None else sizes - len(row.cells)
    recalls = [
        "/".join(["–"] * lacking + [_short(cell.r_at_1[method].mean) for cell in row.cells])
        for method in DATA_METHODS
    ]
    return [*recalls, shortfall_text(row.worst)]


def shortfall_text(cell: DataCell) -> str:
    """Return a shortfall with its interval and the number of pairs where it is."""
    found = cell.shortfall
    place = "" if cell.pairs is None else f" at {cell.pairs}"
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]{place}"


def _short(share: float) -> str:
    return f"{share:.3f}".removeprefix("0")
