"""The outer gradient of every learner against the slow obvious one, and what it moves.

B = streams in batch, S = support pairs, Q = query pairs, D = source dim, H = hidden units,
E = target dim, K = inner steps, N = pairs of a stream
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.inner.cost_rule import Form
from model.inner.learner import Support
from model.losses import MSE, Loss
from model.mappings.mlp import Mlp
from model.meta import outer
from model.meta.episodes import EpisodeBatch
from model.meta.parameters import MetaParameters
from model.meta.recipe import LearnerKind, Recipe, Term
from model.theta.meta_init_file import meta_init_from_bytes, meta_init_to_bytes
from model.values.errors import BadMetaInit

D, H, E = 4, 6, 3
RECIPE = Recipe(hidden_dim=H, inner_steps=3, activation="tanh", min_support=2, max_support=7)
ATTENTION = replace(
    RECIPE,
    generator="attention",
    generator_config={"width": 16, "heads": 1, "blocks": 1},
    learn_rates=True,
)
LEARNERS: tuple[LearnerKind, ...] = ("maml", "fomaml", "meta-sgd", "anil", "adam", "r2d2")
FORMS: tuple[Form, ...] = ("full", "hidden")


def drawn(streams: int = 3, support: int = 7, query: int = 5) -> EpisodeBatch:
    """Ragged episodes; what stands in padded pairs is large, so that it would show."""
    g = torch.Generator().manual_seed(streams)
    real_BS = torch.arange(support) < torch.tensor([support, 2, 5] * streams)[:streams, None]
    real_BQ = torch.arange(query) < torch.tensor([query, query, 2] * streams)[:streams, None]

    def filled(real_BN: Tensor, dim: int) -> Tensor:
        values = torch.randn(*real_BN.shape, dim, generator=g, dtype=torch.float64)
        return values.masked_fill(~real_BN.unsqueeze(2), 1e3)

    return EpisodeBatch(
        filled(real_BS, D),
        filled(real_BS, E),
        real_BS,
        filled(real_BQ, D),
        filled(real_BQ, E),
        real_BQ,
    )


def parameters_of(recipe: Recipe, form: Form = "full") -> MetaParameters:
    parameters = MetaParameters.fresh(D, E, recipe, form).double()
    g = torch.Generator().manual_seed(9)
    with torch.no_grad():  # biases and rates that are all different
        for tensor in [*parameters.mapping.values(), *parameters.learner_tensors.values()]:
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=g, dtype=torch.float64))
    return parameters


def gradients(parameters: MetaParameters, batch: EpisodeBatch) -> tuple[Tensor, dict[str, Tensor]]:
    parameters.zero_grad()
    loss = outer.accumulate(parameters, batch, len(batch.x_support_BSD))
    return loss, {n: p.grad.clone() for n, p in parameters.named_parameters() if p.grad is not None}


# The slow obvious way: one stream at a time, real pairs only, autograd through a plain loop.


def forward(mapping: Sequence[Tensor], x_ND: Tensor) -> Tensor:
    w1, b1, w2, b2 = mapping
    return torch.tanh(x_ND @ w1.T + b1) @ w2.T + b2


def inner_gradient(mapping: list[Tensor], x: Tensor, y: Tensor, learner: str) -> list[Tensor]:
    loss = functional.mse_loss(forward(mapping, x), y)
    first = 2 if learner == "anil" else 0
    found = torch.autograd.grad(loss, mapping[first:], create_graph=learner != "fomaml")
    return [*(torch.zeros_like(t) for t in mapping[:first]), *found]


def adapted_slowly(parameters: MetaParameters, x: Tensor, y: Tensor) -> list[Tensor]:
    learner, mapping = parameters.recipe.learner, list(parameters.theta())
    if learner == "r2d2":
        return ridge_slowly(parameters, x, y)
    rates = parameters.learner_tensors["rates"].exp()
    m, v = [torch.zeros_like(t) for t in mapping], [torch.zeros_like(t) for t in mapping]
    for k, rate in enumerate(rates):
        found = inner_gradient(mapping, x, y, learner)
        if learner == "adam":
            m = [0.9 * a + 0.1 * g for a, g in zip(m, found, strict=True)]
            v = [0.999 * a + 0.001 * g * g for a, g in zip(v, found, strict=True)]
            found = [
                (a / (1 - 0.9 ** (k + 1))) / (b / (1 - 0.999 ** (k + 1)) + 1e-12).sqrt()
                for a, b in zip(m, v, strict=True)
            ]
        each = [rate.new_zeros(()), rate.new_zeros(()), *rate] if len(rate) == 2 else list(rate)
        mapping = [t - r * g for t, r, g in zip(mapping, each, found, strict=True)]
    return mapping


def ridge_slowly(parameters: MetaParameters, x: Tensor, y: Tensor) -> list[Tensor]:
    """The primal normal equations of the ridge towards θ's own head."""
    w1, b1, w2, b2 = parameters.theta()
    penalties = parameters.learner_tensors["log_penalties"].exp()
    h = torch.cat([torch.tanh(x @ w1.T + b1), torch.ones(len(x), 1, dtype=x.dtype)], 1)
    prior = torch.cat([w2, b2[:, None]], 1)
    penalty = torch.diag(torch.cat([penalties[:1].expand(H), penalties[1:]]))
    change = torch.linalg.solve(h.T @ h + penalty, h.T @ (y - h @ prior.T)).T
    return [w1, b1, (prior + change)[:, :H], (prior + change)[:, H]]


def outer_loss_slowly(o: Tensor, y: Tensor) -> Tensor:
    """MSE and 0.2 times InfoNCE, as the default recipe has them."""
    cosine = functional.normalize(o, dim=1) @ functional.normalize(y, dim=1).T
    infonce = functional.cross_entropy(cosine / 0.1, torch.arange(len(o)))
    return functional.mse_loss(o, y) + 0.2 * infonce


def slow_loss(parameters: MetaParameters, batch: EpisodeBatch) -> Tensor:
    losses = []
    for x_SD, y_SE, real_S, x_QD, y_QE, real_Q in zip(*batch, strict=True):
        mapping = adapted_slowly(parameters, x_SD[real_S], y_SE[real_S])
        losses.append(outer_loss_slowly(forward(mapping, x_QD[real_Q]), y_QE[real_Q]))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("learner", LEARNERS)
def test_the_outer_gradient_is_autograds_through_a_plain_loop(
    learner: LearnerKind, form: Form
) -> None:
    parameters = parameters_of(replace(RECIPE, learner=learner, learn_rates=True), form)
    loss, found = gradients(parameters, drawn())
    expected_loss = slow_loss(parameters, drawn())
    names, tensors = zip(*parameters.named_parameters(), strict=True)
    expected = torch.autograd.grad(expected_loss, tensors)
    assert set(found) == set(names)
    torch.testing.assert_close(loss, expected_loss.detach(), rtol=1e-7, atol=1e-7)
    for name, gradient in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("learner", ["maml", "anil", "r2d2"])
def test_the_outer_gradient_agrees_with_finite_differences(learner: LearnerKind) -> None:
    parameters = parameters_of(replace(RECIPE, learner=learner))
    _, found = gradients(parameters, drawn())

    def loss_at(step: float, name: str, direction: Tensor) -> float:
        moved = parameters_of(replace(RECIPE, learner=learner))
        with torch.no_grad():
            moved.mapping[name].add_(step * direction)
        return gradients(moved, drawn())[0].item()

    for name, tensor in parameters.mapping.items():
        g = torch.Generator().manual_seed(1)
        direction = torch.randn(tensor.shape, generator=g, dtype=torch.float64)
        slope = (loss_at(1e-6, name, direction) - loss_at(-1e-6, name, direction)) / 2e-6
        assert slope == pytest.approx(float((found[f"mapping.{name}"] * direction).sum()), rel=1e-5)


def test_first_and_second_order_differ_where_they_should() -> None:
    of: Callable[[LearnerKind], dict[str, Tensor]] = lambda kind: gradients(  # noqa: E731
        parameters_of(replace(RECIPE, learner=kind)), drawn()
    )[1]
    assert not torch.allclose(of("maml")["mapping.w1"], of("fomaml")["mapping.w1"], rtol=1e-3)
    for kind in ("meta-sgd", "anil", "adam"):
        exact = parameters_of(replace(RECIPE, learner=kind))
        first = parameters_of(replace(RECIPE, learner=kind, first_order=True))
        one, two = gradients(exact, drawn())[1], gradients(first, drawn())[1]
        assert not torch.allclose(one["mapping.w2"], two["mapping.w2"], rtol=1e-3)


def test_the_gradient_reaches_through_the_attention_as_finite_differences_say() -> None:
    # its Gauss-Newton refinements pass their Jacobian by on purpose: without them all is exact
    recipe = replace(
        ATTENTION, generator_config=dict(ATTENTION.generator_config) | {"refinements": 0}
    )
    parameters = parameters_of(recipe)
    _, found = gradients(parameters, drawn())
    for name, parameter in parameters.named_parameters():
        if name == "attention.family.log_damping":  # of the refinements
            continue
        g = torch.Generator().manual_seed(1)
        direction = torch.randn(parameter.shape, generator=g, dtype=torch.float64)
        losses = []
        for step in (1e-6, -1e-6):
            moved = parameters_of(recipe)
            with torch.no_grad():
                dict(moved.named_parameters())[name].add_(step * direction)
                o_BQE = outer.adapted_outputs(moved, drawn())
                losses.append(outer.paired_loss(moved, drawn(), o_BQE).mean().item())
        slope = (losses[0] - losses[1]) / 2e-6
        expected = float((found[name] * direction).sum())
        assert slope == pytest.approx(expected, rel=1e-4, abs=1e-8), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "recipe",
    [*(replace(RECIPE, learner=kind) for kind in (*LEARNERS, "reptile")), ATTENTION],
    ids=lambda recipe: f"{recipe.generator}-{recipe.learner}",
)
def test_gradients_of_uneven_shares_add_up_and_padding_changes_nothing(
    recipe: Recipe, form: Form
) -> None:
    parameters = parameters_of(recipe, form)
    batch = drawn()
    loss, whole = gradients(parameters, batch)
    parameters.zero_grad()
    parts = [
        outer.accumulate(parameters, EpisodeBatch(*(t[rows] for t in batch)), 3)
        for rows in (slice(0, 2), slice(2, 3), slice(3, 3))
    ]
    assert sum(p.item() for p in parts) == pytest.approx(loss.item(), rel=1e-12)
    for name, parameter in parameters.named_parameters():
        if name in whole:
            torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-10, atol=1e-12)
    wider = EpisodeBatch(*(functional.pad(t, (0, 0, 0, 3)) if t.dim() == 3
                           else functional.pad(t, (0, 3)) for t in batch))  # fmt: skip
    _, padded = gradients(parameters, wider)
    for name, gradient in whole.items():
        torch.testing.assert_close(padded[name], gradient, rtol=1e-10, atol=1e-12)


def test_reptile_moves_theta_towards_the_adapted_mean() -> None:
    recipe = replace(RECIPE, learner="reptile", minibatches=2, inner_steps=2)
    parameters = parameters_of(recipe)
    batch = drawn()
    _, found = gradients(parameters, batch)
    rates = parameters.learner_tensors["rates"].exp()
    ends: list[list[Tensor]] = []
    for x_SD, y_SE, real_S, x_QD, y_QE, real_Q in zip(*batch, strict=True):
        x, y = torch.cat([x_SD[real_S], x_QD[real_Q]]), torch.cat([y_SE[real_S], y_QE[real_Q]])
        mapping = list(parameters.theta())
        for k in range(2):  # the first step on pairs 0, 2, 4, ...; the second on 1, 3, 5, ...
            gradient = inner_gradient(mapping, x[k::2], y[k::2], "reptile")
            mapping = [t - r * g for t, r, g in zip(mapping, rates[k], gradient, strict=True)]
        ends.append(mapping)
    for i, name in enumerate(("w1", "b1", "w2", "b2")):
        mean = torch.stack([end[i] for end in ends]).mean(0).detach()
        moved = parameters.mapping[name].detach() - found[f"mapping.{name}"]
        torch.testing.assert_close(moved, mean, rtol=1e-9, atol=1e-10)
    assert "learner_tensors.rates" not in found


def test_rates_learn_only_where_they_are_asked_to() -> None:
    cases: tuple[tuple[LearnerKind, bool, bool], ...] = (
        ("maml", False, False),
        ("maml", True, True),
        ("meta-sgd", False, True),
        ("r2d2", False, True),
        ("adam", False, False),
    )
    for learner, learn_rates, expected in cases:
        recipe = replace(RECIPE, learner=learner, learn_rates=learn_rates)
        _, found = gradients(parameters_of(recipe), drawn())
        assert any(n.startswith("learner_tensors") for n in found) == expected


@pytest.mark.parametrize(
    "loss", [Loss("cosine"), Loss("infonce", 0.2), Loss("hinge", margin=0.5), MSE]
)
def test_every_loss_serves_in_inner_and_outer_loop(loss: Loss) -> None:
    recipe = replace(RECIPE, inner_loss=loss, outer_losses=(Term(loss, 2.0),))
    parameters = parameters_of(recipe)
    value, found = gradients(parameters, drawn())
    for name, gradient in gradients(parameters_of(recipe, "hidden"), drawn())[1].items():
        torch.testing.assert_close(gradient, found[name], rtol=1e-8, atol=1e-10, msg=name)
    assert parameters.learner().loss == loss
    assert torch.isfinite(value)
    assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in found.values())
    halved = parameters_of(replace(recipe, outer_losses=(Term(loss, 1.0),)))
    torch.testing.assert_close(gradients(halved, drawn())[0] * 2.0, value)


@pytest.mark.parametrize(
    "recipe",
    [*(replace(RECIPE, learner=kind, learn_rates=True) for kind in LEARNERS), ATTENTION],
    ids=lambda recipe: f"{recipe.generator}-{recipe.learner}",
)
def test_what_is_exported_adapts_the_same_and_goes_on_from_there(recipe: Recipe) -> None:
    trained = parameters_of(recipe).float()
    meta_init = trained.meta_init("name", facts={"a": "b"}, parent="older")
    assert meta_init.version == f"name-{replace(meta_init, version='name').content_hash[:8]}"
    assert meta_init.parent == "older"
    again = MetaParameters.from_meta_init(
        meta_init_from_bytes(meta_init_to_bytes(meta_init), "here"), recipe
    )
    batch = EpisodeBatch(*(t.float() if t.is_floating_point() else t for t in drawn()))
    with torch.no_grad():
        one, two = outer.adapted_outputs(trained, batch), outer.adapted_outputs(again, batch)
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "dim", "expected"),
    [
        (RECIPE, 16, "full"),
        (RECIPE, 512, "hidden"),
        (replace(RECIPE, learner="r2d2"), 512, "hidden"),
        (replace(RECIPE, max_support=64), 64, "full"),
        (replace(RECIPE, output_activation="tanh"), 512, "full"),
        (replace(RECIPE, learner="adam"), 512, "full"),
        (ATTENTION, 512, "full"),
    ],
)
def test_the_form_is_what_costs_clearly_less_and_can_be(
    recipe: Recipe, dim: int, expected: Form
) -> None:
    parameters = MetaParameters.fresh(dim, dim, replace(recipe, hidden_dim=64))
    assert parameters.form == expected
    asked = MetaParameters.from_meta_init(parameters.meta_init("θ"), parameters.recipe, "full")
    assert asked.form == "full"


def test_a_parent_of_another_mapping_is_refused_and_another_learner_begins_afresh() -> None:
    parent = parameters_of(RECIPE).meta_init("parent")
    with pytest.raises(BadMetaInit, match="hidden_dim is 6, the recipe asks for 7"):
        MetaParameters.from_meta_init(parent, replace(RECIPE, hidden_dim=7))
    other = MetaParameters.from_meta_init(parent, replace(RECIPE, learner="anil"))
    assert other.learner_tensors["rates"].shape == (3, 2)
    np.testing.assert_array_equal(other.mapping["w1"].detach().numpy(), parent.mapping["w1"])


def test_a_recipe_survives_json_and_refuses_nonsense() -> None:
    recipe = replace(
        RECIPE, inner_loss=Loss("hinge", margin=0.3), outer_losses=(Term(Loss("cosine"), 2.0),)
    )
    assert Recipe.from_config(json.loads(json.dumps(recipe.to_config()))) == recipe
    assert Recipe.from_config({"learner": "anil"}) == Recipe(learner="anil")
    bad: list[tuple[dict[str, Any], str]] = [
        ({"lerner": "anil"}, "no setting lerner"),
        ({"learner": "sgd"}, "learner is 'sgd'"),
        ({"inner_loss": {"kind": "l3"}}, "loss kind is 'l3'"),
        ({"steps": 0}, "steps is 0"),
        ({"streams": 2.5}, r"streams is 2\.5, not an integer"),
        ({"rate": "fast"}, "rate is 'fast', not a number"),
        ({"learner": "reptile", "generator": "adversarial"}, "moves θ alone"),
        ({"generator": "attention", "output_activation": "tanh"}, "output activation none"),
        ({"min_support": 9, "max_support": 3}, "do not fit together"),
        ({"adversary": {"wait": 1}}, "recipe: .*wait"),
    ]
    for config, message in bad:
        with pytest.raises(ValueError, match=message):
            Recipe.from_config(config)


def test_the_output_activation_is_part_of_the_mapping() -> None:
    parameters = parameters_of(replace(RECIPE, output_activation="sigmoid"))
    batch = drawn()
    o_BQE = outer.adapted_outputs(parameters, batch)
    assert o_BQE.min() > 0
    assert o_BQE.max() < 1
    support: Support = batch.support
    plain = Mlp(*(t[0] for t in parameters.adapted(support)))
    z = forward(plain, batch.x_query_BQD[0])
    torch.testing.assert_close(o_BQE[0], torch.sigmoid(z))
