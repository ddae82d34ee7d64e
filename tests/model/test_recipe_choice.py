"""The recipe that is chosen for data, and what is said of the θ that comes of it."""

import pytest

from model.evaluate.intervals import Interval
from model.evaluate.scoring import Figures
from model.evaluate.verdict import advice_for, baseline_verdict
from model.meta.fresh import fresh_theta_of_kind
from model.meta.parameters import MetaParameters
from model.meta.recipe import Recipe
from model.meta.recipe_choice import RecipeChoice, expected_minutes


@pytest.mark.parametrize("target_dim", [2, 16, 32, 64, 65, 512])
@pytest.mark.parametrize("minutes", [0.5, 10.0, 60.0])
def test_a_chosen_recipe_fits_its_time(target_dim: int, minutes: float) -> None:
    recipe = RecipeChoice(minutes, {}).recipe(target_dim)
    assert recipe.generator == ("attention" if target_dim <= 64 else "mlp")
    assert recipe.learner == "r2d2"
    assert 200 <= recipe.steps <= 4_500
    if recipe.steps > 200:
        assert expected_minutes(recipe, target_dim) <= minutes
    assert recipe == RecipeChoice(minutes, {}).recipe(target_dim)


def test_what_is_given_is_kept() -> None:
    assert RecipeChoice(10.0, {"seed": 3, "hidden_dim": 9}).recipe(8).hidden_dim == 9
    short = RecipeChoice(10.0, {"steps": 5}).recipe(8)
    assert (short.steps, short.shared_steps) == (5, 20)
    named = {"learner": "anil", "steps": 7}
    assert RecipeChoice(10.0, named).recipe(8) == Recipe.from_config(named)
    with pytest.raises(ValueError, match="no setting nonsense"):
        RecipeChoice(10.0, {"nonsense": 1}).recipe(8)


@pytest.mark.parametrize(("generator", "learner"), [("attention", "r2d2"), ("mlp", "anil")])
def test_a_parent_goes_on_as_what_it_is(generator: str, learner: str) -> None:
    parent = fresh_theta_of_kind((6, 10, 4), generator, learner, activation="tanh", steps=3)
    recipe = RecipeChoice(1.0, {"seed": 2}).recipe(4, parent)
    child = MetaParameters.from_meta_init(parent, recipe).meta_init("child")
    assert (child.generator.kind, child.activation, child.hidden_dim) == (generator, "tanh", 10)
    assert child.generator.config == parent.generator.config
    assert {n: t.shape for n, t in child.learner.tensors.items()} == {
        n: t.shape for n, t in parent.learner.tensors.items()
    }


def figures(**recalls: list[float]) -> list[Figures]:
    return [
        Figures(name, pairs, 1, {"r_at_1": Interval(recall, recall, recall, 9, 0)})
        for name, each in recalls.items()
        for pairs, recall in zip((5, 16), each, strict=True)
    ]


def test_a_sentence_says_which_baselines_are_beaten() -> None:
    best = figures(gated=[0.5, 0.8], theta=[0.9, 0.9], ridge=[0.1, 0.4], joint=[0.3, 0.3])
    assert baseline_verdict(best, "x") == "θ beats every baseline at 5 and 16 pairs"
    mixed = figures(gated=[0.5, 0.8], ridge=[0.1, 0.9], joint=[0.504, 0.3], random=[0.0, 0.0])
    assert baseline_verdict(mixed, "more streams") == (
        "θ beats ridge at 5 pairs, joint at 16 pairs and random; is level with joint at 5 pairs; "
        "is beaten by ridge at 16 pairs (0.900 to 0.800). Try more streams"
    )
    assert baseline_verdict([], "x").startswith("θ was not judged")


def test_advice_names_what_was_not_tried() -> None:
    theta = fresh_theta_of_kind((6, 10, 4))
    said = advice_for(theta, streams=12, ended_by_steps=True, minutes=10.0)
    assert said == (
        "more streams to train on than 12, a longer training (--minutes 20), "
        "--generator attention or --generator mixture"
    )
    attention = fresh_theta_of_kind((6, 10, 4), "attention")
    said = advice_for(attention, streams=99, ended_by_steps=False, minutes=None)
    assert said == "--generator mixture"
    wide = fresh_theta_of_kind((6, 10, 65))
    assert "--recipe" in advice_for(wide, streams=99, ended_by_steps=False, minutes=None)
