"""The table "Beyond what θs were trained on": other vendors, concepts, families and languages.

A θ is judged at home (the held-out vendor's drawings, its own families of tenants) and beyond:
drawings of vendors that nothing was trained on, concepts and families of tenants that θ was not
trained on, languages that the text encoder was not. Three sums of it are the table's notes:

    other vendors   (published / ceiling) there, over the same at home; the ceiling is what θ's
                    features find where the tenant's map is known
    languages       published minus θ unadapted, with its interval
    cases           the mean R@1 of what is published over all rows but languages, beside the best
                    of θ′, θ and ridge regression of each episode, which only its queries tell
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.baselines.ridge import fit_ridge
from model.emoji.baselines import ceiling_choices
from model.emoji.drawings import FURTHER_VENDORS, HELD_OUT_VENDOR, Split
from model.emoji.tables import BEYOND, EmojiTable
from model.emoji.tenants import LOW_RANK_DIM, ROTATION_DIM, Family
from model.evaluate import comparison, methods
from model.evaluate.comparison import MetaTestPlan
from model.evaluate.data_rows import PUBLISHED, DataRow, data_cell
from model.evaluate.result_table import ResultTable
from model.evaluate.scoring import recalls_at_1
from model.meta.recorded_streams import RecordedStream
from model.theta.meta_init import MetaInit

BEYOND_TITLE = "Beyond what θs were trained on"
_COMPARED = ("adapted", "theta", "ridge")
Away = Literal["home", "vendor", "concepts", "family", "language"]
StreamsOf = Callable[[EmojiTable, MetaInit], list[RecordedStream]]


@dataclass(frozen=True, slots=True)
class BeyondCase:
    """One θ on one kind of streams."""

    away: Away
    """In what the streams differ from those that θ was trained on; at home in nothing but the
    drawings' vendor and the tenants themselves."""
    data: str
    table: EmojiTable
    """The streams; its title and its baselines do not matter."""

    @property
    def theta(self) -> str:
        """The name of the θ that is judged."""
        return self.table.thetas[0]


@dataclass(frozen=True, slots=True)
class JudgedCase:
    """What was found of a case, at each number of pairs."""

    case: BeyondCase
    row: DataRow
    ceiling: Mapping[int, float]
    """R@1 where the tenant's map is known; empty where streams are languages."""
    best: Mapping[int, float]
    """Mean R@1 of the best candidate of each episode."""

    def share_of_ceiling(self, pairs: int) -> float:
        """Returns R@1 of what is published over the ceiling; NaN where the ceiling is 0."""
        return _over(self.published[pairs], self.ceiling[pairs])

    @property
    def published(self) -> dict[int, float]:
        """R@1 of what is published, at each number of pairs."""
        return {c.pairs: c.r_at_1[PUBLISHED].mean for c in self.row.cells if c.pairs is not None}


def beyond_cases() -> tuple[BeyondCase, ...]:
    """Returns every θ's cases, at home first."""
    low, both = ("emoji-lowrank", LOW_RANK_DIM), ("emoji-both", ROTATION_DIM)
    names = EmojiTable(BEYOND, BEYOND_TITLE, ("emoji-names",), 64, None, "held out")
    return (
        *_of_tenants(*low, own=("low-rank",), others=("rotation", "linear", "permutation")),
        *_of_tenants(*both, own=("low-rank", "rotation"), others=("linear", "permutation")),
        BeyondCase("language", "languages", names),
    )


def _of_tenants(
    theta: str, dim: int, own: Sequence[Family], others: Sequence[Family]
) -> list[BeyondCase]:
    def case(away: Away, words: str, family: Family, vendor: str = HELD_OUT_VENDOR) -> BeyondCase:
        split: Split = "validation" if away == "concepts" else "train"
        table = EmojiTable(BEYOND, BEYOND_TITLE, (theta,), dim, family, split=split, vendor=vendor)
        return BeyondCase(away, f"{words}, {family}", table)

    return [
        *(case("home", HELD_OUT_VENDOR, family) for family in own),
        *(case("vendor", v, family, v) for v in FURTHER_VENDORS for family in own),
        *(case("concepts", "concepts", family) for family in own),
        *(case("family", "family", family) for family in others),
    ]


def judge_beyond(
    thetas: Mapping[str, MetaInit],
    streams_of: StreamsOf,
    plan: MetaTestPlan,
    notes: Sequence[str] = (),
) -> ResultTable:
    """Return a row for each case whose θ is there, and the three sums. `notes` say which θs are
    missing."""
    began = time.process_time()
    found = [
        _judged(each, thetas[each.theta], streams_of, plan)
        for each in beyond_cases()
        if each.theta in thetas
    ]
    return ResultTable(
        BEYOND,
        BEYOND_TITLE,
        sum(max(c.r_at_1[PUBLISHED].streams for c in each.row.cells) for each in found),
        notes=(*notes, *beyond_notes(found)),
        data_rows=tuple(each.row for each in found),
        cpu_s=time.process_time() - began,
    )


def _judged(
    case: BeyondCase, theta: MetaInit, streams_of: StreamsOf, plan: MetaTestPlan
) -> JudgedCase:
    compared = comparison.meta_learned(comparison.engine_for(theta, plan))
    compared |= {"ridge": methods.fitted(fit_ridge)}
    known = ceiling_choices(case.table, {case.theta: theta}, theta).get("ceiling", {})
    cells, ceiling, best = [], {}, {}
    for pairs, group in comparison.episodes_of(streams_of(case.table, theta), plan).items():
        recalls = {name: recalls_at_1(run, group) for name, run in compared.items()}
        cells.append(data_cell(pairs, [e.stream for e in group], recalls))
        best[pairs] = float(np.mean(np.max([recalls[name] for name in _COMPARED], axis=0)))
        if known:
            ceiling[pairs] = max(float(np.mean(recalls_at_1(m, group))) for m in known.values())
    row = DataRow(case.theta, case.data, tuple(cells))
    return JudgedCase(case, row, ceiling, best)


def beyond_notes(found: Sequence[JudgedCase]) -> list[str]:
    """Returns the table's sums in lines: other vendors, languages, and the mean of each θ."""
    lines = []
    for theta in dict.fromkeys(each.case.theta for each in found):
        own = [each for each in found if each.case.theta == theta]
        lines += [_vendors_line(theta, own), _languages_line(theta, own), _mean_line(theta, own)]
    return [line for line in lines if line]


def relative_shares(found: Sequence[JudgedCase]) -> dict[str, dict[int, float]]:
    """Returns the share of the ceiling of each case of another vendor, over that at home on the
    same family of tenants, by the case's data and the number of pairs."""
    at_home = {e.case.table.family: e for e in found if e.case.away == "home"}
    return {
        each.case.data: {
            pairs: _over(
                each.share_of_ceiling(pairs),
                at_home[each.case.table.family].share_of_ceiling(pairs),
            )
            for pairs in each.ceiling
        }
        for each in found
        if each.case.away == "vendor"
    }


def _vendors_line(theta: str, found: Sequence[JudgedCase]) -> str:
    shares = relative_shares(found)
    if not shares:
        return ""
    told = "; ".join(f"{data} {_slashed(own.values())}" for data, own in shares.items())
    known = [share for own in shares.values() for share in own.values() if not math.isnan(share)]
    worst = min(known, default=math.nan)
    what = "share of the ceiling over that at home"
    return f"{theta}, other vendors, {what}: {told}; worst {worst:.3f}"


def _languages_line(theta: str, found: Sequence[JudgedCase]) -> str:
    told = [
        f"{cell.against['theta'].mean:+.4f} "
        f"[{cell.against['theta'].low:+.4f}, {cell.against['theta'].high:+.4f}] at {cell.pairs}"
        for each in found
        if each.case.away == "language"
        for cell in each.row.cells
    ]
    return f"{theta}, languages, published - θ: {'; '.join(told)}" if told else ""


def _mean_line(theta: str, found: Sequence[JudgedCase]) -> str:
    own = [each for each in found if each.case.away != "language"]
    if not own:
        return ""
    published, best = (
        float(np.mean([np.mean(list(values.values())) for values in found_values]))
        for found_values in ([e.published for e in own], [e.best for e in own])
    )
    return (
        f"{theta}, mean of {len(own)} cases: {published:.3f} published; "
        f"{best:.3f} the best candidate of each episode, known afterwards"
    )


def _over(one: float, other: float) -> float:
    return one / other if other else math.nan


def _slashed(shares: Iterable[float]) -> str:
    return " / ".join(f"{share:.3f}" for share in shares)
