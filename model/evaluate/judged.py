"""A finished meta-test: tables of rows, each with what it is printed beside. Data alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from model.evaluate.examples import Example
from model.evaluate.goals import Goal, Setting
from model.evaluate.intervals import Interval
from model.evaluate.scoring import Figures
from model.evaluate.stability import Stability


@dataclass(frozen=True, slots=True)
class Row:
    """One method at one number of support pairs."""

    theta: str | None
    """Which θ; None for baselines."""
    figures: Figures
    goal: Goal = field(default_factory=lambda: Goal(None, None))

    @property
    def name(self) -> str:
        """Of the method, with its θ's."""
        return named(self.theta, self.figures.method)

    @property
    def r_at_1(self) -> Interval:
        """The measure that goals are set in."""
        return self.figures.measures["r_at_1"]


@dataclass(frozen=True, slots=True)
class AgainstRidge:
    """What the gate let through less ridge, paired by episode."""

    theta: str
    pairs: int
    r_at_1: Interval
    loss: Interval

    @property
    def holds(self) -> bool:
        """Whether it is as good as ridge: not found below it in R@1."""
        return not self.r_at_1.high < 0.0


@dataclass(frozen=True, slots=True)
class Judged:
    """One table."""

    name: str
    title: str
    streams: int = 0
    rows: tuple[Row, ...] = ()
    against_ridge: tuple[AgainstRidge, ...] = ()
    notes: tuple[str, ...] = ()
    """What is missing and how to get it, and which variants of baselines were taken."""
    examples: tuple[Example, ...] = ()
    stability: tuple[Stability, ...] = ()
    setting: Setting | None = None
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """What a setting came to, at each number of pairs."""

    setting: Setting
    pairs: tuple[int, ...]
    methods: dict[str, tuple[float, ...]]
    """R@1 by method: baselines by their names, θs as `gated` publishes them."""
    prototypes: dict[str, tuple[float | None, ...]]
    """The same of the prototype, where it has the method."""
    to_reach: tuple[float | None, ...]
    best: tuple[float, ...]
    """By the θ that the target is for."""


def summary(tables: Sequence[Judged]) -> Iterator[Line]:
    """The settings that there are targets for."""
    for table in tables:
        published = [row for row in table.rows if row.figures.method == "gated"]
        judged = [row for row in published if row.goal.to_reach is not None]
        if table.setting is None or not judged:
            continue
        pairs = tuple(dict.fromkeys(row.figures.pairs for row in table.rows))
        by_pairs = [[row for row in judged if row.figures.pairs == p] for p in pairs]
        methods: dict[str, tuple[float, ...]] = {}
        prototypes: dict[str, tuple[float | None, ...]] = {}
        for row in table.rows:
            if row.figures.method not in ("adapted", "theta"):
                methods[row.name] = (*methods.get(row.name, ()), row.r_at_1.mean)
                if (prototype := row.goal.prototype) is not None:
                    prototypes[row.name] = (*prototypes.get(row.name, ()), prototype)
        yield Line(
            table.setting,
            pairs,
            methods,
            prototypes,
            tuple(rows[0].goal.to_reach for rows in by_pairs),
            tuple(max(row.r_at_1.mean for row in rows) for rows in by_pairs),
        )


def named(theta: str | None, method: str) -> str:
    """A method with its θ."""
    if theta is None:
        return method
    return f"{theta} {'unadapted' if method == 'theta' else method}"
