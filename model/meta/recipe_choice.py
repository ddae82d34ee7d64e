"""Which recipe suits data that nobody has tuned one for: by dims, time, and the θ to go on from.

What measured best on rotated digits and on tenants' embeddings: features that streams share, turned
into each stream's space by the attention generator, then a head in closed form for what is left.
Attention has matrices of E x E for every stream, so for wide targets the head has hidden features
alone to work with. The choice depends on no clock, so the same data give the same recipe, and a
training that was killed goes on with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.meta.recipe import Recipe
from model.theta.meta_init import MetaInit

WIDEST_ATTENTION = 64
"""The most target dims for which attention is chosen."""
SECONDS_PER_STEP = {"attention": 0.16, "mlp": 0.03}
"""What an outer step takes on a core of today, at 32 target dims (attention) or any."""
SHARED_S = 0.014
"""The same of a step that learns shared features."""
TRAINING_SHARE = 0.7
"""The share of the time that training may take; the rest is for the baselines and for judging."""
FEWEST, MOST = 200, 4_500
"""Outer steps, however little or much time there is."""
ATTENTION: Mapping[str, Any] = {
    "generator": "attention",
    "generator_config": {"refinements": 1, "repairs": 1},
    "learner": "r2d2",
    "hidden_dim": 256,
    "rate": 4e-3,
    "mapping_rate": 3e-4,
    "shared_steps": 2_000,
}
HEAD: Mapping[str, Any] = {"learner": "r2d2", "hidden_dim": 512}


@dataclass(frozen=True, slots=True)
class RecipeChoice:
    """A recipe of which some settings are given; the others are chosen."""

    minutes: float
    """About how long training and judging may take on a core."""
    settings: Mapping[str, Any]
    """Settings that are given. With a generator or a learner among them, what is not given is the
    default of `Recipe`."""

    def recipe(self, target_dim: int, parent: MetaInit | None = None) -> Recipe:
        """Return the recipe for targets of so many dims. Raises ValueError for settings that cannot
        be."""
        if parent is not None:
            chosen = _of_parent(parent)
        elif {"generator", "learner"} & set(self.settings):
            return Recipe.from_config(self.settings)
        else:
            chosen = dict(ATTENTION if target_dim <= WIDEST_ATTENTION else HEAD)
        chosen |= self.settings
        if "steps" not in self.settings:
            chosen["steps"] = self._steps(chosen, target_dim)
        if "shared_steps" not in self.settings and "shared_steps" in chosen:
            chosen["shared_steps"] = min(chosen["shared_steps"], 4 * chosen["steps"])
        return Recipe.from_config(chosen)

    def _steps(self, chosen: Mapping[str, Any], target_dim: int) -> int:
        seconds = TRAINING_SHARE * 60.0 * self.minutes - SHARED_S * chosen.get("shared_steps", 0)
        return max(FEWEST, min(MOST, int(seconds / _step_s(chosen, target_dim)) // 100 * 100))


def expected_minutes(recipe: Recipe, target_dim: int) -> float:
    """Return about how long the recipe's trainings take on a core, if nothing ends them early."""
    config = recipe.to_config()
    seconds = recipe.steps * _step_s(config, target_dim) + SHARED_S * recipe.shared_steps
    return seconds / 60.0


def _step_s(settings: Mapping[str, Any], target_dim: int) -> float:
    generator = settings.get("generator", "mlp")
    if generator != "attention":
        return SECONDS_PER_STEP["mlp"]
    return SECONDS_PER_STEP[generator] * max(1.0, target_dim / 32.0)


def _of_parent(parent: MetaInit) -> dict[str, Any]:
    """Return the settings with which a θ goes on as what it is."""
    chosen: dict[str, Any] = {
        "generator": parent.generator.kind,
        "learner": parent.learner.kind,
        "hidden_dim": parent.hidden_dim,
        "activation": parent.activation,
        "output_activation": parent.output_activation,
    }
    if "rates" in parent.learner.tensors:
        chosen["inner_steps"] = len(parent.learner.tensors["rates"])
    if parent.generator.kind == "attention":
        chosen |= {"mapping_rate": 1e-4}
    return chosen
