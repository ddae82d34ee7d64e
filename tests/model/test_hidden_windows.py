"""Windows in hidden space adapt as the engine adapts whole episodes, whatever their history.

N = pairs of a stream, S = support pairs, Q = query pairs, D = source dim, H = hidden units,
E = target dim, G = H + 1, R = rows (pairs)
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.losses import MSE, Loss, LossKind
from model.mappings.numpy_mlp import apply_numpy
from model.meta.fresh import fresh_theta_of_kind
from model.serving.engine import Engine
from model.serving.hidden_windows import HiddenWindows
from model.theta.meta_init import MetaInit, usual_sources_of
from model.values.arrays import FloatArray
from model.values.episode import Adaptation, Cut, Episode

SUPPORT, QUERY = 6, 3
SIZE = SUPPORT + QUERY
DIMS = (37, 19, 21)
"""D, H, E: none of them a multiple of a cache line."""
KINDS = ("maml", "anil", "r2d2", "alpaca")


def theta(learner: str = "maml", loss: Loss = MSE, *, trained: bool = True) -> MetaInit:
    made = fresh_theta_of_kind(DIMS, learner=learner, loss=loss, steps=3)
    rng = np.random.default_rng(3)
    biases = {name: rng.standard_normal(len(made.mapping[name])) for name in ("b1", "b2")}
    mapping = dict(made.mapping) | {n: b.astype(np.float32) for n, b in biases.items()}
    return replace(made, mapping=mapping, facts={"training": "a test's"} if trained else made.facts)


def telling_usual_sources(made: MetaInit) -> MetaInit:
    """The θ as one that was trained on such sources as `pair` makes, around another mean."""
    mean_D = np.linspace(-0.9, 1.4, DIMS[0], dtype=np.float32)
    x_RD = np.stack([pair(number)[0] for number in range(64)])
    return replace(made, usual_sources=usual_sources_of(1.4 * (x_RD - x_RD.mean(0)) + mean_D))


def engine(theta: MetaInit, *, ridge: bool = True) -> Engine:
    return Engine(theta, "cpu", support_capacity=SUPPORT, query_capacity=QUERY, ridge=ridge)


def windows_of(engine: Engine, capacity: int = 8) -> HiddenWindows:
    made = engine.windows(capacity, form="hidden")
    assert isinstance(made, HiddenWindows)
    return made


def pair(number: int) -> tuple[FloatArray, FloatArray]:
    """Targets follow from sources by a map that θ does not know, so that losses fall."""
    rng = np.random.default_rng(number)
    x_D = rng.standard_normal(DIMS[0])
    map_DE = np.random.default_rng(-number % 3).standard_normal((DIMS[0], DIMS[2])) / 6
    return x_D.astype(np.float32), (x_D @ map_DE + 0.5).astype(np.float32)


def feed(
    windows: HiddenWindows,
    arrivals: Iterable[Sequence[tuple[int, int]]],
    factor: float = 1.0,
    shift: float = 0.0,
) -> None:
    """Batches of (slot, pair's number); sources times a factor, plus a shift."""
    for batch in arrivals:
        if batch:
            x, y = zip(*(pair(number) for _, number in batch), strict=True)
            moved = [each * np.float32(factor) + np.float32(shift) for each in x]
            windows.append([slot for slot, _ in batch], moved, y)


def cut(slot: int, held: int) -> Cut:
    query = min(QUERY, held - 1)
    return Cut(slot, held - query, query)


def episode(numbers: Sequence[int], factor: float = 1.0, shift: float = 0.0) -> Episode:
    x, y = (np.stack(side) for side in zip(*map(pair, numbers), strict=True))
    x = x * np.float32(factor) + np.float32(shift)
    support = cut(0, len(numbers)).support
    return Episode(x[:support], y[:support], x[support:], y[support:])


def losses(adaptation: Adaptation) -> list[float]:
    return [
        adaptation.support_loss_before,
        adaptation.support_loss_after,
        adaptation.query_loss_before,
        adaptation.query_loss_after,
        adaptation.query_loss_ridge,
    ]


@pytest.mark.parametrize("loss", [Loss(kind) for kind in get_args(LossKind)])
@pytest.mark.parametrize("learner", KINDS)
def test_they_adapt_as_the_engine_adapts_the_same_episodes(learner: str, loss: Loss) -> None:
    same_as_the_engine(theta(learner, loss))


@pytest.mark.parametrize("move", [(1.0, 0.0), (1e-6, 0.0), (1e6, 0.0), (0.1, 1.0), (1.0, 3.0)])
@pytest.mark.parametrize("trained", [True, False])
def test_sources_of_any_size_and_place(move: tuple[float, float], trained: bool) -> None:
    """Of a θ with and without a bias beside which small sources would be lost."""
    for made in (theta(trained=trained), fresh_theta_of_kind(DIMS, steps=3)):
        same_as_the_engine(made, *move)
        same_as_the_engine(telling_usual_sources(made), *move)


def same_as_the_engine(made: MetaInit, factor: float = 1.0, shift: float = 0.0) -> None:
    whole = engine(made)
    windows = windows_of(whole)
    feed(
        windows,
        [[(slot, 100 * slot + i) for slot in range(5) for i in range(2 + 2 * slot)]],
        factor,
        shift,
    )
    held = [min(2 + 2 * slot, SIZE) for slot in range(5)]
    found = windows.adapt([cut(slot, held[slot]) for slot in range(5)])
    for slot, adaptation in enumerate(found):
        numbers = [100 * slot + i for i in range(2 + 2 * slot)][-SIZE:]
        (expected,) = whole.adapt([episode(numbers, factor, shift)])
        np.testing.assert_allclose(losses(adaptation), losses(expected), rtol=3e-5, atol=3e-7)
        assert adaptation.finite
        assert (adaptation.ridge is None) == (expected.ridge is None)
        for name, tensor in expected.tensors.items():
            largest = np.abs(tensor).max()
            np.testing.assert_allclose(adaptation.tensors[name], tensor, atol=1e-5 * largest)
        if expected.ridge is not None and adaptation.ridge is not None:
            for name, tensor in expected.ridge.items():
                largest = max(1.0, np.abs(tensor).max())
                np.testing.assert_allclose(adaptation.ridge[name], tensor, atol=1e-5 * largest)


@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.just(0)), max_size=30), min_size=1, max_size=5
    ),
    slot=st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_history_changes_no_bit(batches: list[list[tuple[int, int]]], slot: int) -> None:
    """The pairs of one slot, in whatever batches and among whatever others they came, and wherever
    the ring stood, give what they give when they come alone into a fresh slot."""
    whole = engine(telling_usual_sources(theta()))
    lived, fresh = windows_of(whole), windows_of(whole)
    numbered = [
        [(s, 50 * i + j) for j, (s, _) in enumerate(batch)] for i, batch in enumerate(batches)
    ]
    feed(lived, numbered)
    mine = [number for batch in numbered for s, number in batch if s == slot][-SIZE:]
    if len(mine) < 2:
        return
    feed(fresh, [[(7, number)] for number in mine])
    others = [s for s in range(4) if sum(a == s for b in batches for a, _ in b) > 1]
    cuts = [cut(s, min(SIZE, sum(a == s for b in batches for a, _ in b))) for s in others]
    at = others.index(slot)
    found, expected = lived.adapt(cuts)[at], fresh.adapt([cut(7, len(mine))])[0]
    assert np.array(losses(found)).tobytes() == np.array(losses(expected)).tobytes()
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].tobytes() == tensor.tobytes(), name


def test_how_many_pairs_come_at_once_changes_no_bit() -> None:
    whole = engine(theta())
    windows = [windows_of(whole, capacity=40) for _ in range(3)]
    arrived = [(slot, 100 * slot + i) for slot in range(40) for i in range(SIZE + 1)]
    by_turns = sorted(arrived, key=lambda pair: pair[1] % 100)
    for made, batches in zip(
        windows, ([arrived], [by_turns], [[each] for each in arrived]), strict=True
    ):
        feed(made, batches)
    found = [made.adapt([cut(slot, SIZE) for slot in range(40)]) for made in windows]
    for together, mixed, alone in zip(*found, strict=True):
        for other in (mixed, alone):
            assert np.array(losses(other)).tobytes() == np.array(losses(together)).tobytes()
            for name, tensor in together.tensors.items():
                assert other.tensors[name].tobytes() == tensor.tobytes(), name


def test_a_slot_that_was_let_go_shows_nothing_of_the_stream_before() -> None:
    windows, fresh = windows_of(engine(theta())), windows_of(engine(theta()))
    feed(windows, [[(2, i) for i in range(25)]])
    windows.clear(2)
    for each in (windows, fresh):
        feed(each, [[(2, 900), (2, 901), (2, 902)]])
    (found,), (expected,) = (each.adapt([cut(2, 3)]) for each in (windows, fresh))
    assert losses(found) == losses(expected)
    for name, tensor in expected.tensors.items():
        assert np.array_equal(found.tensors[name], tensor)


@given(arrived=st.integers(SIZE, 3 * SIZE), kept=st.integers(2, SIZE), later=st.integers(0, SIZE))
@settings(max_examples=25, deadline=None)
def test_the_newest_pairs_alone_give_what_a_window_of_them_gives(
    arrived: int, kept: int, later: int
) -> None:
    """To the bit: adapted beside the whole window, read after the others are let go, and adapted
    again when further pairs have come."""
    whole = engine(theta())
    lived, fresh = windows_of(whole), windows_of(whole)
    feed(lived, [[(1, number) for number in range(arrived)]])
    feed(fresh, [[(4, number) for number in range(arrived - kept, arrived)]])
    _, found = lived.adapt([cut(1, SIZE), cut(1, kept)])
    lived.shorten(1, kept)
    compare_bits(found, fresh.adapt([cut(4, kept)])[0])
    more = range(arrived, arrived + later)
    for windows, slot in ((lived, 1), (fresh, 4)):
        feed(windows, [[(slot, number)] for number in more])
    held = min(SIZE, kept + later)
    compare_bits(lived.adapt([cut(1, held)])[0], fresh.adapt([cut(4, held)])[0])
    with pytest.raises(ValueError, match="pairs"):
        lived.adapt([cut(1, held + 1)])


def compare_bits(found: Adaptation, expected: Adaptation) -> None:
    assert np.array(losses(found)).tobytes() == np.array(losses(expected)).tobytes()
    assert found.winner is expected.winner
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].tobytes() == tensor.tobytes(), name
    if expected.ridge is not None and found.ridge is not None:
        for name, tensor in expected.ridge.items():
            assert found.ridge[name].tobytes() == tensor.tobytes(), name
    assert found.evidence is not None
    assert expected.evidence is not None
    judges_Q = expected.evidence.judges_Q
    assert found.evidence.judges_Q.tobytes() == judges_Q.tobytes()
    for one, other in zip(found.evidence[:2], expected.evidence[:2], strict=True):
        # what is measured decides, and is no part of a mapping
        np.testing.assert_allclose(one[judges_Q], other[judges_Q], rtol=1e-5)


def test_numbers_that_explode_are_that_streams_alone() -> None:
    windows, calm = windows_of(engine(theta())), windows_of(engine(theta()))
    x, y = (list(side) for side in zip(*map(pair, range(4)), strict=True))
    windows.append([1] * 4, [each * np.float32(1e25) for each in x], y)
    for each in (windows, calm):
        feed(each, [[(0, 10), (0, 11), (0, 12)], [(2, 20), (2, 21)]])
    poisoned = windows.adapt([cut(0, 3), cut(1, 4), cut(2, 2)])
    expected = calm.adapt([cut(0, 3), cut(2, 2)])
    assert [adaptation.finite for adaptation in poisoned] == [True, False, True]
    assert [losses(poisoned[0]), losses(poisoned[2])] == [losses(e) for e in expected]


def test_what_is_published_is_the_mapping_without_idle_units_and_padding() -> None:
    made = theta()
    windows = windows_of(engine(made))
    feed(windows, [[(0, i) for i in range(5)]])
    (adaptation,) = windows.adapt([cut(0, 5)])
    assert adaptation.factored is not None
    low_rank = adaptation.factored()
    assert low_rank is not None
    d, h, e = DIMS
    assert low_rank.x_SD.shape == (5, d)
    assert low_rank.a_SH.shape == (5, h)
    assert low_rank.n_GG.shape == (h + 1, h + 1)
    assert low_rank.v_SG.shape == (5, h + 1)
    assert {n: t.shape for n, t in adaptation.tensors.items()} == {
        "w1": (h, d),
        "b1": (h,),
        "w2": (e, h),
        "b2": (e,),
    }


def test_an_adaptation_cannot_be_read_once_the_windows_have_gone_on() -> None:
    windows = windows_of(engine(theta()))
    feed(windows, [[(0, i) for i in range(5)]])
    (read,), (unread,) = windows.adapt([cut(0, 5)]), windows.adapt([cut(0, 5)])
    with pytest.raises(RuntimeError, match="before the windows go on"):
        read.tensors["w1"]
    made = unread.tensors["w1"]
    feed(windows, [[(0, 99)]])
    assert unread.tensors["w1"] is made


def test_a_support_that_is_nearly_solved_is_adapted_with_its_weights_in_full() -> None:
    """Its Grams cancel: outputs and targets are nearly the same, and only differences count."""
    made = theta()
    whole = engine(made)
    windows = windows_of(whole)
    x_ND = np.random.default_rng(0).standard_normal((6, DIMS[0])).astype(np.float32)
    y_NE = apply_numpy(made.mapping, x_ND, made.activation, "none").astype(np.float32)
    y_NE += np.float32(1e-5) * np.random.default_rng(1).standard_normal(y_NE.shape).astype(
        np.float32
    )
    windows.append([0] * 6, list(x_ND), list(y_NE))
    (found,) = windows.adapt([Cut(0, 4, 2)])
    (expected,) = whole.adapt([Episode(x_ND[:4], y_NE[:4], x_ND[4:], y_NE[4:])])
    np.testing.assert_allclose(found.support_loss_after, expected.support_loss_after, rtol=1e-2)
    for name, tensor in expected.tensors.items():
        np.testing.assert_allclose(found.tensors[name], tensor, atol=1e-6)


def test_whether_a_mapping_was_wanted_beforehand_changes_no_bit() -> None:
    windows = windows_of(engine(theta()))
    feed(windows, [[(slot, 100 * slot + i) for slot in range(5) for i in range(5)]])
    wanted = windows.adapt([cut(slot, 5) for slot in range(5)])
    tensors = [dict(adaptation.tensors) for adaptation in wanted]
    some = [cut(slot, 5)._replace(wanted=slot in (1, 3)) for slot in range(5)]
    for adaptation, expected in zip(windows.adapt(some), tensors, strict=True):
        for name, tensor in expected.items():
            assert adaptation.tensors[name].tobytes() == tensor.tobytes(), name


def test_without_ridge_its_loss_is_not_told() -> None:
    windows = windows_of(engine(theta(), ridge=False))
    feed(windows, [[(0, i) for i in range(5)]])
    (adaptation,) = windows.adapt([cut(0, 5)])
    assert np.isnan(adaptation.query_loss_ridge)
    assert adaptation.ridge is None


def test_memory_is_as_announced() -> None:
    windows = windows_of(engine(theta()))
    d, h, e = DIMS
    per_pair = d + e + 2 * (h + -h % 16) + 2 + 2 * SIZE
    assert windows.bytes_per_stream == 4 * SIZE * per_pair


@pytest.mark.parametrize("move", [0.0, 0.6, 4.0])
@pytest.mark.parametrize(("factor", "shift"), [(1.0, 0.0), (0.2, 0.0), (50.0, 0.0), (1.0, 8.0)])
def test_factors_and_weights_are_the_same_mapping(factor: float, shift: float, move: float) -> None:
    made = theta()
    windows = windows_of(engine(made))
    x, y = zip(*map(pair, range(8)), strict=True)
    windows.append(
        [0] * 8,
        [each + np.float32(move) for each in x],
        [each * np.float32(factor) + np.float32(shift) for each in y],
    )
    (adaptation,) = windows.adapt([cut(0, 8)])
    assert adaptation.factored is not None
    low_rank = adaptation.factored()
    assert low_rank is not None
    for name, tensor in low_rank.multiplied_out(made.mapping).items():
        largest = np.abs(tensor).max()
        np.testing.assert_allclose(adaptation.tensors[name], tensor, atol=5e-6 * largest)


@pytest.mark.parametrize(
    ("sources", "targets", "trained"),
    [(1.0, 1e-3, True), (10.0, 1.0, True), (1.0, 1.0, False)],
    ids=["targets small beside θ", "scaled sources", "standardised sources"],
)
def test_what_has_no_factors(sources: float, targets: float, trained: bool) -> None:
    windows = windows_of(engine(theta(trained=trained)))
    x, y = zip(*map(pair, range(8)), strict=True)
    windows.append(
        [0] * 8, *([t * np.float32(f) for t in s] for s, f in ((x, sources), (y, targets)))
    )
    (adaptation,) = windows.adapt([cut(0, 8)])
    assert adaptation.factored is not None
    assert adaptation.factored() is None
    assert np.isfinite(adaptation.tensors["w2"]).all()
