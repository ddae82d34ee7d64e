"""Pairs from which little or nothing can be learned: every θ still publishes a finite mapping.

N = pairs of a stream, S = support pairs, Q = query pairs, D = source dim, E = target dim,
X = source or target dim

Right values are those that a reader can tell without adaptd: constant targets are predicted at
every source, where all pairs are equal their target is predicted at their source, and nothing but 0
follows from targets that are 0.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from model.evaluate.methods import published
from model.inner.learners import KINDS
from model.meta.fresh import fresh_theta_of_kind
from model.serving.engine import Engine
from model.theta.meta_init import MetaInit
from model.values.arrays import FloatArray
from model.values.episode import Adaptation, Candidate, Cut

DIMS = (12, 16, 6)
N, Q = 9, 3
HIDDEN_LEARNERS = ("maml", "fomaml", "reptile", "meta-sgd", "anil", "r2d2", "alpaca")

Side = Callable[[FloatArray], FloatArray]
as_is: Side = lambda t: t  # noqa: E731 - a column of the table below
single: Callable[[FloatArray], FloatArray] = lambda t: np.repeat(t[:1], len(t), 0)  # noqa: E731


def times(factor: float) -> Side:
    return lambda t: (t * np.float32(factor)).astype(np.float32)


def one_outlier(t_NX: FloatArray) -> FloatArray:
    moved = t_NX.copy()
    moved[2] *= np.float32(1e6)
    return moved


BAD: dict[str, tuple[Side, Side]] = {
    "constant targets": (as_is, single),
    "constant sources": (single, as_is),
    "all pairs equal": (single, single),
    "zero sources": (times(0.0), as_is),
    "zero targets": (as_is, times(0.0)),
    "all zero": (times(0.0), times(0.0)),
    "huge sources": (times(1e30), as_is),
    "huge targets": (as_is, times(1e30)),
    "huge pairs": (times(1e30), times(1e30)),
    "subnormal sources": (times(1e-40), as_is),
    "subnormal targets": (as_is, times(1e-40)),
    "subnormal pairs": (times(1e-40), times(1e-40)),
    "a source far out": (one_outlier, as_is),
    "a target far out": (as_is, one_outlier),
}


def theta_of(generator: str, learner: str, *, trained: bool) -> MetaInit:
    made = fresh_theta_of_kind(DIMS, generator=generator, learner=learner, steps=3)
    return replace(made, facts={"training": "a test's"}) if trained else made


def pairs_of(name: str) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(0)
    map_DE = rng.standard_normal((DIMS[0], DIMS[2])) / np.sqrt(DIMS[0])
    x_ND = rng.standard_normal((N, DIMS[0])).astype(np.float32)
    sources, targets = BAD[name]
    return sources(x_ND), targets((x_ND @ map_DE + 0.3).astype(np.float32))


def check(theta: MetaInit, form: str) -> None:
    """Adapt all kinds of bad pairs in one batch, with a sound stream beside them."""
    engine = Engine(theta, "cpu", support_capacity=N, query_capacity=Q)
    windows = engine.windows(len(BAD) + 1, form="full" if form == "full" else "hidden")
    rng = np.random.default_rng(1)
    x_ND, y_NE = (rng.standard_normal((N, dim)).astype(np.float32) for dim in (DIMS[0], DIMS[2]))
    for slot, (x, y) in enumerate([*(pairs_of(name) for name in BAD), (x_ND, y_NE)]):
        windows.append([slot] * N, list(x), list(y))
    found = windows.adapt([Cut(slot, N - Q, Q) for slot in range(len(BAD) + 1)])
    assert all(np.isfinite(tensor).all() for tensor in found[-1].tensors.values())
    for name, adaptation in zip(BAD, found, strict=False):
        check_mapping(engine, adaptation, name)


def check_mapping(engine: Engine, adaptation: Adaptation, name: str) -> None:
    mapping = {
        Candidate.ADAPTED: adaptation.tensors if adaptation.finite else {},
        Candidate.RIDGE: adaptation.ridge or {},
        Candidate.PROCRUSTES: adaptation.ridge or {},
        Candidate.THETA: engine.theta_mapping(),
    }[adaptation.winner]
    assert mapping, name
    assert all(np.isfinite(tensor).all() for tensor in mapping.values()), name
    x_ND, y_NE = pairs_of(name)
    if name in ("constant targets", "all pairs equal"):
        np.testing.assert_allclose(published(engine, adaptation, x_ND), y_NE, atol=0.05)
    if name in ("zero targets", "all zero", "subnormal targets"):
        np.testing.assert_allclose(published(engine, adaptation, x_ND), 0.0, atol=1e-6)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("learner", KINDS)
@pytest.mark.parametrize("generator", ["mlp", "attention"])
def test_with_weights_in_full(generator: str, learner: str, trained: bool) -> None:
    check(theta_of(generator, learner, trained=trained), "full")


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("learner", HIDDEN_LEARNERS)
def test_in_hidden_space(learner: str, trained: bool) -> None:
    check(theta_of("mlp", learner, trained=trained), "hidden")
