"""Streams keep to themselves: order, padding, poison and idle units.

B = streams in batch, S = support pairs (padded), D = source dim, H = hidden units, E = target dim,
K = inner steps
"""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.inner.learner import Support, adapt
from model.inner.learners import build
from model.losses import Loss
from model.mappings.mlp import AnyActivation, Mlp, expand
from model.serving.packing import with_idle_units, without_idle_units
from tests.model.learner_lab import (
    CASES,
    FORMS,
    LENGTHS,
    LOSSES,
    POISONS,
    D,
    E,
    H,
    S,
    case_id,
    learner_of,
    picked,
    run,
    support_of,
    tensors_of,
    theta_of,
)


@pytest.mark.parametrize(("kind", "loss", "output"), CASES, ids=case_id)
def test_permuting_streams_permutes_results(kind: str, loss: Loss, output: AnyActivation) -> None:
    support, order = support_of(torch.float64), [3, 0, 4, 2, 1]
    learner = learner_of(kind, loss, output, extra_steps=2)
    found = run(learner, picked(support, order)).mlp
    for mine, theirs in zip(found, run(learner, support).mlp, strict=True):
        torch.testing.assert_close(mine, theirs[order], rtol=1e-12, atol=1e-12)


@given(
    kind=st.sampled_from(FORMS),
    loss=st.sampled_from(LOSSES),
    lengths=st.lists(st.integers(0, S), min_size=1, max_size=4),
    garbage=st.sampled_from(POISONS),
)
@settings(max_examples=60, deadline=None)
def test_what_stands_in_padding_changes_no_bit(
    kind: str, loss: Loss, lengths: list[int], garbage: float
) -> None:
    clean = support_of(torch.float32, lengths)
    padded = ~clean.real_BS.unsqueeze(2)
    dirty = Support(
        clean.x_BSD.masked_fill(padded, garbage),
        clean.y_BSE.masked_fill(padded, garbage),
        clean.real_BS,
    )
    learner = learner_of(kind, loss, dtype=torch.float32, extra_steps=1)
    for mine, theirs in zip(run(learner, dirty).mlp, run(learner, clean).mlp, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", FORMS)
def test_more_padding_changes_a_result_by_rounding_at_most(kind: str) -> None:
    short = support_of(torch.float64, [3, 2, 1])
    trimmed = Support(short.x_BSD[:, :3], short.y_BSE[:, :3], short.real_BS[:, :3])
    learner = learner_of(kind)
    for mine, theirs in zip(run(learner, short).mlp, run(learner, trimmed).mlp, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("kind", "loss", "output"), CASES, ids=case_id)
def test_alone_or_in_company_a_stream_gets_the_same_bits(
    kind: str, loss: Loss, output: AnyActivation
) -> None:
    """Where S and H are whole cache lines, as packing makes them; D and E are odd."""
    g = torch.Generator().manual_seed(5)
    lengths = torch.tensor([1 + 5 * b % 16 for b in range(11)])
    support = Support(
        torch.randn(11, 16, D + 1, generator=g),
        torch.randn(11, 16, E, generator=g),
        torch.arange(16) < lengths[:, None],
    )
    theta = theta_of(torch.float32)._replace(w1=0.4 * torch.randn(H, D + 1, generator=g))
    learner = learner_of(kind, loss, output, torch.float32, extra_steps=2)
    together = run(learner, support, theta).mlp
    for streams in ([0], [7], [10], [3, 4, 5], [9, 1]):
        found = run(learner, picked(support, streams), theta).mlp
        for mine, theirs in zip(found, together, strict=True):
            assert torch.equal(mine, theirs[streams])


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize(("kind", "loss"), [*product(FORMS, LOSSES)], ids=case_id)
def test_one_streams_poison_leaves_the_others_bits(kind: str, loss: Loss, poison: float) -> None:
    clean = support_of(torch.float32)
    dirty = Support(clean.x_BSD.clone(), clean.y_BSE.clone(), clean.real_BS)
    dirty.x_BSD[2, 1], dirty.y_BSE[2, 0] = poison, poison
    learner = learner_of(kind, loss, dtype=torch.float32, extra_steps=2)
    found, expected = run(learner, dirty), run(learner, clean)
    others = torch.tensor([0, 1, 3, 4])
    assert found.healthy_B[others].all()
    for mine, theirs in zip(found.mlp, expected.mlp, strict=True):
        assert torch.equal(mine[others], theirs[others])
    if poison != 1e30:
        assert not found.healthy_B[2]


@pytest.mark.parametrize("kind", FORMS)
def test_a_poisoned_start_is_one_streams_result(kind: str) -> None:
    support = support_of(torch.float32, [4, 4, 4])
    clean = Mlp(*(t.clone() for t in expand(theta_of(torch.float32), 3)))
    dirty = Mlp(*(t.clone() for t in clean))
    dirty.w1[1, 2, 3] = float("nan")
    learner = learner_of(kind, dtype=torch.float32)
    found, expected = adapt(learner, dirty, support), adapt(learner, clean, support)
    assert found.healthy_B.tolist() == [True, False, True]
    for mine, theirs in zip(found.mlp, expected.mlp, strict=True):
        assert torch.equal(mine[[0, 2]], theirs[[0, 2]])


def test_a_stream_that_explodes_stays_where_it_last_was_finite() -> None:
    support = support_of(torch.float32, [4, 4])
    start = Mlp(*(t.clone() for t in expand(theta_of(torch.float32), 2)))
    start.w2[1] *= 1e20  # the first step gives numbers of 1e20, the second none
    learner = learner_of("maml", dtype=torch.float32)
    states = [learner.init(start, support)]
    while not learner.terminate(states[-1]):
        states.append(learner.step(states[-1], support))
    healthy = [bool(state.healthy_B[1]) for state in states]
    assert healthy[0]
    assert not healthy[-1]
    assert all(bool(state.healthy_B[0]) for state in states)
    frozen = states[healthy.index(False) - 1]
    for last, kept in zip(states[-1].mlp, frozen.mlp, strict=True):
        assert torch.equal(last[1], kept[1])
        assert torch.isfinite(last[1]).all()


def test_a_matrix_that_cannot_be_solved_is_one_streams_result() -> None:
    support = support_of(torch.float32, [4, 4, 4])
    support.x_BSD[1] = 1e25  # features whose squares overflow
    theta = theta_of(torch.float32)
    learner = build(
        {"kind": "r2d2"}, tensors_of("r2d2", torch.float32), activation="relu",
        output_activation="none",
    )  # fmt: skip
    state = run(learner, support, theta)
    assert state.healthy_B.tolist() == [True, False, True]
    assert torch.equal(state.mlp.w2[1], theta.w2)


@pytest.mark.parametrize("activation", ["gelu", "sigmoid"])
@pytest.mark.parametrize(("kind", "loss"), [*product(FORMS, LOSSES)], ids=case_id)
def test_idle_units_change_nothing_and_stay_idle(
    kind: str, loss: Loss, activation: AnyActivation
) -> None:
    support = support_of(torch.float32)
    tensors = tensors_of(kind, torch.float32)
    if "factor" in tensors:
        tensors["factor"] = tensors["factor"][:, :11]
    learner = build({"kind": kind, "loss": loss.config()}, tensors, activation, "none")
    odd = {name: tensor.numpy() for name, tensor in theta_of(torch.float32)._asdict().items()}
    odd |= {"w1": odd["w1"][:11], "b1": odd["b1"][:11], "w2": odd["w2"][:, :11]}
    padded = with_idle_units(odd, activation)  # type: ignore[arg-type]
    found = run(learner, support, Mlp(**{n: torch.from_numpy(t) for n, t in padded.items()})).mlp
    expected = run(learner, support, Mlp(**{n: torch.from_numpy(t) for n, t in odd.items()})).mlp
    for b in range(len(LENGTHS)):
        mine = {name: tensor[b].numpy() for name, tensor in found._asdict().items()}
        for name, tensor in without_idle_units(mine, 11).items():
            theirs = getattr(expected, name)[b].numpy()
            np.testing.assert_allclose(tensor, theirs, rtol=2e-4, atol=2e-4)
        assert not mine["w2"][:, 11:].any()
        assert (mine["b1"][11:] == padded["b1"][11:]).all()


def test_anil_leaves_the_first_layer_to_the_bit() -> None:
    theta = theta_of(torch.float32)
    mlp = run(learner_of("anil", dtype=torch.float32), support_of(torch.float32), theta).mlp
    assert torch.equal(mlp.w1, theta.w1.expand_as(mlp.w1))
    assert torch.equal(mlp.b1, theta.b1.expand_as(mlp.b1))
    assert not torch.equal(mlp.w2[0], theta.w2)
