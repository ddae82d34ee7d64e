"""The table "Data that nobody tuned": which episodes it judges, its rows, and how they are shown.

N = pairs of a stream, S = support pairs, Q = query pairs, D = source dim, E = target dim
"""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from model.emoji.evaluate import emoji_evaluation
from model.emoji.judge_tables import EmojiTest, quick_options
from model.emoji.judge_untuned import UntunedOptions, transformed_episodes, untuned_thetas
from model.emoji.moving_streams import MOVING, static_windows
from model.emoji.transformations import TRANSFORMATIONS
from model.encoders.build import fresh_encoder_spec
from model.evaluate.comparison import MetaTestPlan, episodes_of
from model.evaluate.data_rows import DataRow, data_cell, row_texts, worst_of
from model.evaluate.page import page
from model.evaluate.scoring import recalls_at_1, scored
from model.meta.recorded_streams import RecordedStream
from model.theta.meta_init import MetaInit, fresh_meta_init

PLAN = MetaTestPlan((5, 16), 2)
BY_NAME = {t.name: t for t in TRANSFORMATIONS}


def streams(count: int = 3) -> list[RecordedStream]:
    rng = np.random.default_rng(0)
    labels = tuple(map(str, range(160)))
    return [
        RecordedStream(
            f"s{n}",
            rng.standard_normal((160, 6)).astype(np.float32),
            rng.standard_normal((160, 8)).astype(np.float32),
            np.zeros(160, np.int64),
            labels,
        )
        for n in range(count)
    ]


def tiny(dim: int) -> MetaInit:
    """Pictures to vectors, untrained."""
    made = fresh_meta_init(24, dim, 8)
    encoder = fresh_encoder_spec("cnn/2", 24, seed=0, blocks=((2, True), (2, True), (2, True)))
    return replace(made, source_modality="image", source_encoder=encoder)


def test_every_transformation_is_judged_on_the_same_pairs() -> None:
    clean = episodes_of(streams(), PLAN)
    for name, factor in (("as it is", 1.0), ("targets x100", 100.0)):
        found = transformed_episodes(streams(), BY_NAME[name], PLAN)
        for pairs in PLAN.sizes:
            for e, c in zip(found[pairs], clean[pairs], strict=True):
                np.testing.assert_array_equal(e.x_SD, c.x_SD)
                np.testing.assert_allclose(e.y_QE, c.y_QE * factor, rtol=1e-6)
                np.testing.assert_allclose(e.y_gate_NE, c.y_gate_NE * factor, rtol=1e-6)


def test_faulty_pairs_are_learned_from_and_judged_by_but_queries_are_sound() -> None:
    clean = episodes_of(streams(), PLAN)[16]
    found = transformed_episodes(streams(), BY_NAME["30 % mislabelled"], PLAN)[16]
    for e, c in zip(found, clean, strict=True):
        np.testing.assert_array_equal(e.y_QE, c.y_QE)
        np.testing.assert_array_equal(e.x_SD, c.x_SD)
    wrong = np.mean([(e.y_SE != c.y_SE).any(axis=1) for e, c in zip(found, clean, strict=True)])
    assert wrong == pytest.approx(0.3, abs=0.12)


def test_judged_pairs_stay_and_stand_in_the_support_too() -> None:
    clean = episodes_of(streams(), PLAN)[5]
    found = transformed_episodes(streams(), BY_NAME["4 of 4 judged repeated"], PLAN)[5]
    for e, c in zip(found, clean, strict=True):
        np.testing.assert_array_equal(e.x_gate_ND, c.x_gate_ND)
        np.testing.assert_array_equal(e.x_SD, np.concatenate([c.x_gate_ND, c.x_SD[4:]]))
        np.testing.assert_array_equal(e.x_QD, c.x_QD)


def test_windows_of_streams_that_do_not_change_slide_by_one_pair() -> None:
    windows = list(static_windows(streams(2), np.random.default_rng(0)))
    assert len(windows) == 160 - 36 + 1
    for before, after in pairwise(windows):
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one.x_SD[1:], other.x_SD[:-1])
            np.testing.assert_array_equal(one.x_gate_ND[0], other.x_SD[-1])


def test_a_vocabulary_is_left_out_where_the_window_is_smaller() -> None:
    assert list(transformed_episodes(streams(), BY_NAME["12 concepts alone"], PLAN)) == [16]
    assert transformed_episodes(streams(), BY_NAME["24 concepts alone"], PLAN) == {}


def test_recalls_are_those_of_the_other_tables() -> None:
    (episodes,) = episodes_of(streams(), replace(PLAN, sizes=(16,))).values()
    rng = np.random.default_rng(1)
    outputs = [e.y_QE + rng.standard_normal(e.y_QE.shape).astype(np.float32) for e in episodes]
    found = recalls_at_1(lambda _: outputs, episodes)
    assert found == [s["r_at_1"] for s in scored(lambda _: outputs, episodes)]
    assert 0.0 < np.mean(found) < 1.0


def row(published: float, theta: float, ridge: float, name: str = "data") -> DataRow:
    recalls = {"gated": published, "adapted": 0.5, "theta": theta, "ridge": ridge}
    values = {m: [r - 0.01, r + 0.01] for m, r in recalls.items()}
    return DataRow("t", name, (data_cell(64, ["a", "b"], values),))


def test_a_shortfall_is_against_the_better_rival_and_the_worst_is_named() -> None:
    made = row(0.4, 0.3, 0.5)
    assert made.worst.better_rival == "ridge"
    assert made.worst.shortfall.mean == pytest.approx(-0.1)
    assert made.falls_short
    assert not row(0.4, 0.3, 0.1).falls_short
    assert row(0.4, 0.3, 0.1).worst.shortfall.mean == pytest.approx(0.1)
    assert worst_of([row(0.4, 0.3, 0.1), made]) is made


def test_intervals_of_shortfalls_are_paired_by_episode() -> None:
    recalls = {"gated": [0.1, 0.9], "adapted": [0.0, 0.0], "theta": [0.0, 0.0]}
    cell = data_cell(5, ["a", "b"], recalls | {"ridge": [0.2, 1.0]})
    assert cell.r_at_1["ridge"].high > 1.0
    assert (cell.shortfall.low, cell.shortfall.high) == pytest.approx((-0.1, -0.1))


def test_a_row_is_short_and_has_dashes_where_it_says_nothing() -> None:
    assert row_texts(row(0.4, 0.3, 0.5), 3) == [
        "–/–/.400",
        "–/–/.500",
        "–/–/.300",
        "–/–/.500",
        "-0.100 [-0.100, -0.100] at 64",
    ]


def test_the_table_has_a_row_for_each_theta_and_kind_of_data() -> None:
    options = replace(
        quick_options(), untuned=UntunedOptions(2, 1, (5, 16), every=36, static_tenants=1)
    )
    test = EmojiTest({"emoji-both": tiny(16)}, {"emoji-lowrank": "train it"}, options)
    judged = test.untuned()
    assert judged.notes[0] == "train it"
    assert re.fullmatch(
        r"static tenants, emoji-both: \d+ windows cut in [\d,]+ pairs", judged.notes[1]
    )
    assert judged.streams == 2
    assert judged.data_rows is not None
    names = [t.name for t in TRANSFORMATIONS if t.fewest_pairs <= 16] + [m.name for m in MOVING]
    assert [r.data for r in judged.data_rows] == names
    assert {r.theta for r in judged.data_rows} == {"emoji-both"}
    sizes = [[c.pairs for c in r.cells] for r in judged.data_rows]
    assert sizes[0] == [5, 16]
    assert sizes[-1] == [None]
    methods = {"gated", "adapted", "theta", "ridge"}
    assert all(set(c.r_at_1) == methods for r in judged.data_rows for c in r.cells)
    assert judged.cpu_s > 0.0
    assert test.untuned().data_rows == judged.data_rows
    shown = page("T", {}, [judged])
    assert "targets of unit norm" in shown
    assert "with 5 / 16 support pairs" in shown


def test_another_theta_is_judged_on_the_tenants_of_its_dimensions() -> None:
    assert list(untuned_thetas({"mine": tiny(32), "names": fresh_meta_init(24, 64)})) == ["mine"]
    assert list(untuned_thetas({"emoji-both": tiny(16), "mine": tiny(32)})) == ["emoji-both"]


def test_the_table_can_be_asked_for_alone() -> None:
    assert [title for title, _ in emoji_evaluation(None, ["untuned"], quick_options()).steps()] == [
        "data that nobody tuned"
    ]
    titles = [title for title, _ in emoji_evaluation(None, [], quick_options()).steps()]
    assert "data that nobody tuned" in titles
