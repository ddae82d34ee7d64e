"""Every learner against slow obvious forms: autograd, torch's own Adam, the normal equations.

B = streams in batch, S = support pairs (padded), D = source dim, H = hidden units, E = target dim,
K = inner steps, N = pairs of a stream
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.inner import learners, reference
from model.inner.adam import AdamSteps
from model.inner.learner import Support
from model.inner.learners import CLOSED_FORMS, KINDS, build, fresh_learner
from model.inner.sgd import GradientSteps
from model.losses import MSE, Loss
from model.mappings.mlp import AnyActivation, Mlp, apply, expand
from model.values.errors import BadMetaInit
from tests.model.learner_lab import (
    CASES,
    LENGTHS,
    LOSSES,
    OUTPUTS,
    D,
    E,
    H,
    case_id,
    learner_of,
    run,
    support_loss,
    support_of,
    tensors_of,
    theta_of,
)

NO_EPS = 1e-30
"""An ε so small that it is the same under the root or, as in torch, beside it."""


def alone(kind: str, loss: Loss, output: AnyActivation, x_ND: Tensor, y_NE: Tensor) -> Mlp:
    """θ′ of one stream without padding."""
    dtype = x_ND.dtype
    if kind in CLOSED_FORMS:
        return normal_equations(theta_of(dtype), x_ND, y_NE, tensors_of(kind, dtype))
    rates = tensors_of(kind, dtype)["rates"]
    if kind == "anil":
        rates = torch.cat([torch.zeros_like(rates), rates], dim=1)
    return reference.adapt_one_stream(theta_of(dtype), rates, x_ND, y_NE, "gelu", output, loss)


def torch_adam(
    rates_K4: Tensor, loss: Loss, output: AnyActivation, x_ND: Tensor, y_NE: Tensor
) -> Mlp:
    mlp = Mlp(*(t.clone().requires_grad_() for t in theta_of(x_ND.dtype)))
    optimiser = torch.optim.Adam([{"params": [tensor]} for tensor in mlp], eps=NO_EPS)
    for rate_4 in rates_K4:
        for group, rate in zip(optimiser.param_groups, rate_4.tolist(), strict=True):
            group["lr"] = rate
        optimiser.zero_grad()
        torch.autograd.backward(reference.one_stream(loss, apply(mlp, x_ND, "gelu", output), y_NE))
        optimiser.step()
    return Mlp(*(tensor.detach() for tensor in mlp))


def normal_equations(theta: Mlp, x_ND: Tensor, y_NE: Tensor, tensors: Mapping[str, Tensor]) -> Mlp:
    """V of W2 = W2₀ + V·P and b2 = b2₀ + v: (Φ̃ᵀΦ̃ + Λ)⁻¹·Φ̃ᵀ(Y − O₀), in the primal, in numpy."""
    h = torch.nn.functional.gelu(x_ND @ theta.w1.T + theta.b1).numpy()
    factor = tensors["factor"].numpy() if "factor" in tensors else np.identity(H)
    phi = np.concatenate([h @ factor.T, np.ones((len(h), 1))], axis=1)
    left_over = y_NE.numpy() - h @ theta.w2.numpy().T - theta.b2.numpy()
    penalties = np.exp(tensors["log_penalties"].numpy())
    ridge = np.diag([*[penalties[0]] * len(factor), penalties[1]])
    moved = np.linalg.solve(phi.T @ phi + ridge, phi.T @ left_over)
    w2 = theta.w2 + torch.from_numpy(moved[:-1].T @ factor)
    b2 = theta.b2 + torch.from_numpy(moved[-1])
    return Mlp(theta.w1, theta.b1, w2.to(x_ND.dtype), b2.to(x_ND.dtype))


@pytest.mark.parametrize(
    ("kind", "loss", "output"), [case for case in CASES if case[0] != "adam"], ids=case_id
)
def test_a_ragged_batch_equals_one_stream_at_a_time(
    kind: str, loss: Loss, output: AnyActivation
) -> None:
    # infonce multiplies float32's rounding by 1/temperature in every step
    tolerances = {torch.float64: 1e-12, torch.float32: 1e-4 if loss.kind == "infonce" else 1e-5}
    for dtype, tolerance in tolerances.items():
        support = support_of(dtype)
        state = run(learner_of(kind, loss, output, dtype), support)
        assert state.healthy_B.all()
        for b, n in enumerate(LENGTHS):
            x_ND, y_NE = support.x_BSD[b, :n], support.y_BSE[b, :n]
            expected = alone(kind, loss, output, x_ND, y_NE) if n else theta_of(dtype)
            for mine, theirs in zip(state.mlp, expected, strict=True):
                torch.testing.assert_close(mine[b], theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["fomaml", "reptile", "meta-sgd"])
def test_kinds_that_differ_in_the_outer_loop_alone_adapt_alike_to_the_bit(kind: str) -> None:
    support = support_of(torch.float32)
    for loss, output in product(LOSSES, OUTPUTS):
        found = run(learner_of(kind, loss, output, torch.float32), support).mlp
        expected = run(learner_of("maml", loss, output, torch.float32), support).mlp
        for mine, theirs in zip(found, expected, strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize(("loss", "output"), [*product(LOSSES, OUTPUTS)], ids=case_id)
def test_adam_equals_torchs_adam_one_stream_at_a_time(loss: Loss, output: AnyActivation) -> None:
    """1e-10: where a gradient is 0 but for rounding, Adam divides the rounding by itself."""
    learner, support = learner_of("adam", loss, output), support_of(torch.float64)
    assert isinstance(learner, AdamSteps)
    state = run(replace(learner, eps=NO_EPS), support)
    rates = tensors_of("adam", torch.float64)["rates"]
    for b, n in enumerate(LENGTHS):
        x_ND, y_NE = support.x_BSD[b, :n], support.y_BSE[b, :n]
        expected = theta_of(torch.float64)
        if n:
            expected = torch_adam(rates, loss, output, x_ND, y_NE)
        for mine, theirs in zip(state.mlp, expected, strict=True):
            torch.testing.assert_close(mine[b], theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("loss", "output"), [*product(LOSSES, OUTPUTS)], ids=case_id)
def test_adam_in_a_batch_equals_adam_alone(loss: Loss, output: AnyActivation) -> None:
    """float64 to 1e-12; float32 against float64 to 1e-4, with eps far above float32's rounding."""
    learner, support = learner_of("adam", loss, output, eps=1e-3), support_of(torch.float64)
    single = learner_of("adam", loss, output, torch.float32, eps=1e-3)
    together, rough = run(learner, support).mlp, run(single, support_of(torch.float32)).mlp
    for b, n in enumerate(LENGTHS):
        stream = Support(*(tensor[b : b + 1, :n] for tensor in support))
        for mine, roughly, theirs in zip(together, rough, run(learner, stream).mlp, strict=True):
            torch.testing.assert_close(mine[b], theirs[0], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(roughly[b].double(), theirs[0], rtol=1e-4, atol=1e-4)


def test_every_fresh_learner_lowers_its_loss_on_the_support() -> None:
    """Of inputs and targets of unit variance, as it says."""
    support = support_of(torch.float32, [8, 8, 8])
    for kind, loss in product(KINDS, LOSSES):
        spec = fresh_learner(kind, D, H, E, loss=loss)
        tensors = {name: torch.from_numpy(tensor) for name, tensor in spec.tensors.items()}
        state = run(build(spec.config, tensors, "gelu", "none"), support)
        start = expand(theta_of(torch.float32), 3)
        before_B, after_B = (support_loss(m, support, loss, "none") for m in (start, state.mlp))
        assert state.healthy_B.all()
        assert (after_B < before_B).all(), (kind, loss)
    assert (
        fresh_learner("anil", D, H, E, steps=4, rate=0.5).tensors["rates"].tolist()
        == [[0.5] * 2] * 4
    )


def test_a_learner_says_which_loss_it_lowers() -> None:
    for kind, loss in product(KINDS, LOSSES):
        assert learner_of(kind, loss).loss == loss
        assert learner_of(kind, loss, extra_steps=3).loss == loss
    assert learners.loss_of({"kind": "maml"}) == MSE


def test_kinds_differ_where_they_should() -> None:
    maml, fomaml, reptile = (learner_of(kind) for kind in ("maml", "fomaml", "reptile"))
    assert isinstance(maml, GradientSteps)
    assert isinstance(fomaml, GradientSteps)
    assert not maml.first_order
    assert fomaml == replace(maml, rates_K4=fomaml.rates_K4, first_order=True)
    assert isinstance(reptile, GradientSteps)
    assert reptile.first_order
    adam = learner_of("adam", betas=[0.5, 0.9], eps=1e-3)
    assert isinstance(adam, AdamSteps)
    assert (adam.betas, adam.eps) == ((0.5, 0.9), 1e-3)


RATES = {"rates": torch.full((3, 4), 0.1)}
PENALTIES = {"log_penalties": torch.zeros(2)}


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"kind": "sgd"}, RATES, "learner kind is 'sgd'"),
        ({}, RATES, "learner kind is None"),
        ({"kind": ["maml"]}, RATES, "learner kind is"),
        ({"kind": "maml", "step": 3}, RATES, "no setting step"),
        ({"kind": "maml", "first_order": True}, RATES, "no setting first_order"),
        ({"kind": "meta-sgd", "first_order": 1}, RATES, "first_order is 1"),
        ({"kind": "maml", "loss": "mse"}, RATES, "loss is 'mse'"),
        ({"kind": "maml", "loss": {"kind": "l1"}}, RATES, "loss kind is 'l1'"),
        ({"kind": "maml"}, {}, "tensors are"),
        ({"kind": "maml"}, RATES | PENALTIES, "tensors are"),
        ({"kind": "maml"}, {"rates": torch.zeros(3, 2)}, r"shape \(3, 2\)"),
        ({"kind": "anil"}, RATES, r"anil needs \(K, 2\)"),
        ({"kind": "maml"}, {"rates": torch.zeros(4)}, r"shape \(4,\)"),
        ({"kind": "maml"}, {"rates": torch.zeros(0, 4)}, "0 steps"),
        ({"kind": "maml"}, {"rates": torch.zeros(65, 4)}, "65 steps"),
        ({"kind": "maml"}, {"rates": torch.full((3, 4), float("nan"))}, "NaN"),
        ({"kind": "maml"}, {"rates": torch.ones(3, 4, dtype=torch.int64)}, "floating"),
        ({"kind": "adam", "betas": 0.9}, RATES, "betas is 0.9"),
        ({"kind": "adam", "betas": [0.9, 1.0]}, RATES, "betas"),
        ({"kind": "adam", "betas": [0.9, float("nan")]}, RATES, "betas"),
        ({"kind": "adam", "betas": [0.9, "x"]}, RATES, "betas"),
        ({"kind": "adam", "eps": 0}, RATES, "eps is 0"),
        ({"kind": "adam", "eps": 10**400}, RATES, "eps is 1000"),
        ({"kind": "r2d2"}, RATES, "not log_penalties"),
        ({"kind": "r2d2"}, {"log_penalties": torch.zeros(3)}, r"shape \(3,\)"),
        ({"kind": "r2d2"}, {"log_penalties": torch.full((2,), 31.0)}, "beyond 30"),
        ({"kind": "alpaca"}, PENALTIES, "not log_penalties, factor"),
        ({"kind": "alpaca"}, PENALTIES | {"factor": torch.zeros(H)}, "shape"),
        ({"kind": "alpaca"}, PENALTIES | {"factor": torch.full((2, H), torch.nan)}, "NaN"),
    ],
)
def test_what_cannot_be_is_named(
    config: dict[str, Any], tensors: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(BadMetaInit, match=message):
        build(config, tensors, "gelu", "none")


def test_alpaca_refuses_a_factor_that_is_not_of_its_hidden_units() -> None:
    tensors = PENALTIES | {"factor": torch.zeros(3, H + 1)}
    with pytest.raises(BadMetaInit, match="factor has shape"):
        build({"kind": "alpaca"}, tensors, "gelu", "none", hidden_dim=H)


def test_r2d2_refuses_an_output_activation() -> None:
    with pytest.raises(BadMetaInit, match="'tanh'"):
        build({"kind": "r2d2"}, PENALTIES, "gelu", "tanh")
    with pytest.raises(BadMetaInit, match="'sgd'"):
        fresh_learner("sgd", D, H, E)
