"""The table "Beyond what θs were trained on": its cases, and its sums.

N = pairs of a stream, D = source dim
"""

from dataclasses import replace

import numpy as np
import pytest

from model.emoji import drawings
from model.emoji.evaluate import emoji_evaluation
from model.emoji.judge_beyond import (
    BeyondCase,
    JudgedCase,
    beyond_cases,
    beyond_notes,
    judge_beyond,
    relative_shares,
)
from model.emoji.judge_tables import quick_options
from model.evaluate.comparison import MetaTestPlan
from model.evaluate.data_rows import DataRow, data_cell
from model.meta.fresh import fresh_theta_of_kind
from model.meta.recorded_streams import RecordedStream

CASES = beyond_cases()


def judged(
    case: BeyondCase,
    published: tuple[float, float],
    theta: float = 0.1,
    ceiling: float = 0.8,
    best: float = 0.7,
) -> JudgedCase:
    """Returns what was found with 5 and 16 pairs, alike on two streams."""
    cells = []
    for pairs, value in zip((5, 16), published, strict=True):
        recalls = {"gated": value, "adapted": 0.5, "theta": theta, "ridge": 0.2}
        cells.append(data_cell(pairs, ["a", "b"], {m: [v, v] for m, v in recalls.items()}))
    row = DataRow(case.theta, case.data, tuple(cells))
    return JudgedCase(case, row, {5: ceiling, 16: ceiling}, {5: best, 16: best})


def of(theta: str, away: str) -> list[BeyondCase]:
    return [each for each in CASES if (each.theta, each.away) == (theta, away)]


def test_each_scenario_of_another_vendor_has_one_at_home_on_the_same_family() -> None:
    for each in CASES:
        if each.away == "vendor":
            assert each.table.vendor != drawings.HELD_OUT_VENDOR
            at_home = [h for h in of(each.theta, "home") if h.table.family == each.table.family]
            assert len(at_home) == 1


def test_other_vendors_are_judged_by_their_share_of_the_ceiling_over_that_at_home() -> None:
    home, (one, other) = of("emoji-lowrank", "home")[0], of("emoji-lowrank", "vendor")
    found = [
        judged(home, (0.6, 0.8)),
        judged(one, (0.3, 0.4), ceiling=0.5),
        judged(other, (0.45, 0.3), ceiling=0.6),
    ]
    assert relative_shares(found) == {
        one.data: pytest.approx({5: 0.3 / 0.5 / (0.6 / 0.8), 16: 0.4 / 0.5}),
        other.data: pytest.approx({5: 1.0, 16: 0.5}),
    }
    assert beyond_notes(found)[0].endswith("worst 0.500")


def test_families_are_compared_with_the_same_at_home() -> None:
    low, rotation = of("emoji-both", "home")
    vendor = next(e for e in of("emoji-both", "vendor") if e.table.family == "rotation")
    found = [judged(low, (0.8, 0.8)), judged(rotation, (0.4, 0.8)), judged(vendor, (0.2, 0.6))]
    assert relative_shares(found) == {vendor.data: pytest.approx({5: 0.5, 16: 0.75})}


def test_languages_are_compared_with_theta_and_are_in_no_mean() -> None:
    (language,) = of("emoji-names", "language")
    (line,) = beyond_notes([judged(language, (0.09, 0.12))])
    assert line == (
        "emoji-names, languages, published - θ: -0.0100 [-0.0100, -0.0100] at 5; "
        "+0.0200 [+0.0200, +0.0200] at 16"
    )


def test_the_mean_is_over_scenarios_and_numbers_of_pairs() -> None:
    home, concepts = of("emoji-lowrank", "home")[0], of("emoji-lowrank", "concepts")[0]
    found = [judged(home, (0.6, 0.8), best=0.9), judged(concepts, (0.1, 0.3), best=0.5)]
    assert beyond_notes(found) == [
        "emoji-lowrank, mean of 2 cases: 0.450 published; "
        "0.700 the best candidate of each episode, known afterwards"
    ]


def test_further_vendors_have_drawings_of_training_concepts_alone() -> None:
    assert not {*drawings.FURTHER_VENDORS} & {*drawings.VENDORS}
    for vendor in drawings.FURTHER_VENDORS:
        drawn = drawings.drawn_by(vendor, "train")
        assert len(drawn) > 300
        assert len(drawings.drawn_by(vendor, "validation")) == 0
        blank = (drawings.sheet(vendor) == 255).all(axis=(1, 2, 3))
        assert not blank[drawn].any()
        assert int((~blank).sum()) == len(drawn)


def test_a_row_for_each_scenario_whose_theta_is_there() -> None:
    rng = np.random.default_rng(0)
    x_ND = rng.standard_normal((160, 16)).astype(np.float32)
    labels, times_N = tuple(map(str, range(160))), np.zeros(160, np.int64)
    theta = replace(fresh_theta_of_kind((16, 32, 16)), source_modality="vector")

    found = judge_beyond(
        {"emoji-both": theta},
        lambda table, _: [
            RecordedStream(f"tenant {n}", x_ND, x_ND, times_N, labels) for n in (1, 2)
        ],
        MetaTestPlan((5, 64), 1),
        ["a note"],
    )
    assert found.data_rows is not None
    assert [row.data for row in found.data_rows] == [
        each.data for each in CASES if each.theta == "emoji-both"
    ]
    assert found.notes[0] == "a note"
    assert all(row.cells[-1].r_at_1["gated"].mean > 0.5 for row in found.data_rows)
    assert "emoji-both, mean of 10 cases: " in found.notes[-1]


def test_the_table_can_be_asked_for_alone() -> None:
    steps = emoji_evaluation(None, ["beyond"], quick_options()).steps()
    assert [title for title, _ in steps] == ["beyond what θs were trained on"]
