"""A replayed inner loop is the inner loop: whatever chunks came before, in whatever sizes.

B = streams in batch, S = support pairs, H = hidden units, K = inner steps, N = pairs of a stream
"""

from collections.abc import Callable

import pytest
import torch

from model.inner.hidden.descent import Descent, descend
from model.inner.hidden.head import descend_head
from model.inner.hidden.learners import Captured
from model.inner.hidden.memory import Workspace
from model.inner.hidden.projected import Projected
from model.losses import MSE, Loss
from tests.model.hidden_device_lab import Problem, Shape, farthest, parts_of, problem

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
LOSSES = [MSE, Loss("cosine"), Loss("infonce", symmetric=True), Loss("hinge")]


def full(given: Problem) -> Callable[[Projected, Workspace], Descent]:
    return lambda projected, space: descend(
        given.terms, projected, given.rates_K4, given.objective, space
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.kind)
def test_chunks_of_all_sizes(device: str, loss: Loss) -> None:
    captured, space = Captured(full(problem(Shape(), loss=loss, device=device))), Workspace()
    for streams in (40, 64, 3, 40, 1):
        given = problem(Shape(streams=streams), loss=loss, device=device)
        _same(captured(given.projected, space), descend(*given))


@pytest.mark.parametrize("device", DEVICES)
def test_other_supports(device: str) -> None:
    captured, space = Captured(full(problem(Shape(), device=device))), Workspace()
    for support in (16, 32, 16):
        given = problem(Shape(support=support), device=device)
        _same(captured(given.projected, space), descend(*given))


@pytest.mark.parametrize("device", DEVICES)
def test_the_head_alone(device: str) -> None:
    given = problem(Shape(), device=device)

    def head(projected: Projected, _: Workspace | None = None) -> Descent:
        return descend_head(given.terms, projected, given.rates_K4[:, 2:], given.objective)

    _same(Captured(head)(given.projected, Workspace()), head(given.projected))


@pytest.mark.parametrize("device", DEVICES)
def test_what_an_earlier_chunk_left_behind_reaches_no_stream(device: str) -> None:
    given = problem(Shape(streams=30), device=device)
    captured, space = Captured(full(given)), Workspace()
    captured(given.projected._replace(p_BNH=given.projected.p_BNH * float("nan")), space)
    first = Projected(*(each[:2] for each in given.projected))
    found = captured(first, space)
    assert found.healthy_B.all()
    _same(found, descend(given.terms, first, *given[2:]))


@pytest.mark.parametrize("device", DEVICES)
def test_a_result_lasts_until_its_workspace_is_used_again(device: str) -> None:
    given = problem(Shape(streams=4), device=device)
    captured, spaces = Captured(full(given)), (Workspace(), Workspace())
    kept = captured(given.projected, spaces[0])
    before = [part.clone() for part in parts_of(kept)]
    captured(given.projected._replace(p_BNH=given.projected.p_BNH + 1.0), spaces[1])
    assert all(map(torch.equal, parts_of(kept), before))
    captured(given.projected._replace(p_BNH=given.projected.p_BNH + 1.0), spaces[0])
    assert not all(map(torch.equal, parts_of(kept), before))


def _same(found: Descent, wanted: Descent) -> None:
    assert parts_of(found)[0].shape == parts_of(wanted)[0].shape
    assert farthest(found, wanted) < 1e-5
