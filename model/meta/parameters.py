"""Everything that is meta-learned, as one module: the tensors of θ's mapping, of its generator and
of its learner.

B = streams in batch, S = support pairs, Q = query pairs, N = pairs of a stream, D = source dim,
H = hidden units, E = target dim, K = inner steps

Inner rates are kept as logarithms, so that they stay positive and move by factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.inner import cost_rule, learners
from model.inner.cost_rule import Form
from model.inner.generators import CONDITIONED
from model.inner.hidden.learners import outer_descend_by
from model.inner.hidden.projected import terms
from model.inner.hidden.result import hidden_space_outputs
from model.inner.learner import Learner, Support, adapt
from model.mappings.attention import Attention, AttentionConfig
from model.mappings.mlp import Mlp, apply_batched, expand
from model.mappings.prior_mixture import Mixture
from model.meta.recipe import Recipe
from model.theta.meta_init import MetaInit, Modality
from model.theta.part import PartSpec
from model.values.arrays import FloatArray
from model.values.errors import BadMetaInit

LOGARITHMS = "rates"
"""The learner's tensor that is positive, and kept as its logarithm."""
ALWAYS_LEARNED = ("meta-sgd", *learners.CLOSED_FORMS)
"""Learners whose tensors are learned whatever the recipe says."""
DIMS = ("source_dim", "target_dim")
"""Settings of a generator that θ decides."""
FIRST_ORDER_IS_A_SETTING = ("meta-sgd", "anil", "adam")


class MetaParameters(nn.Module):
    """θ's mapping, the generator and the learner's tensors, in the form in which they are
    trained."""

    def __init__(
        self,
        mapping: Mapping[str, Tensor],
        learner: PartSpec,
        attention: Attention | Mixture | None,
        recipe: Recipe,
        form: Form = "auto",
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.learner_config = dict(learner.config)
        self.mapping = nn.ParameterDict({n: nn.Parameter(t.clone()) for n, t in mapping.items()})
        self.attention = attention
        asked = recipe.learn_rates and recipe.learner != "reptile"  # whose rule moves θ alone
        learned = asked or recipe.learner in ALWAYS_LEARNED
        self.learner_tensors = nn.ParameterDict(
            {
                name: nn.Parameter(_to_stored(name, array), requires_grad=learned)
                for name, array in learner.tensors.items()
            }
        )
        self.form = self._form(form)
        """Form of the inner loop: "hidden" or "full"."""

    @classmethod
    def fresh(
        cls, source_dim: int, target_dim: int, recipe: Recipe, form: Form = "auto"
    ) -> MetaParameters:
        """Make parameters to begin with, from the recipe's seed: LeCun-normal weights, zero
        biases."""
        seeds = torch.Generator().manual_seed(recipe.seed)
        hidden_dim = recipe.hidden_dim
        mapping = {
            "w1": torch.randn(hidden_dim, source_dim, generator=seeds) / source_dim**0.5,
            "b1": torch.zeros(hidden_dim),
            "w2": torch.randn(target_dim, hidden_dim, generator=seeds) / hidden_dim**0.5,
            "b2": torch.zeros(target_dim),
        }
        dims = (source_dim, hidden_dim, target_dim)
        learner, attention = _fresh_learner(recipe, dims), _fresh_attention(recipe, dims)
        return cls(mapping, learner, attention, recipe, form)

    @classmethod
    def from_meta_init(
        cls, parent: MetaInit, recipe: Recipe, form: Form = "auto"
    ) -> MetaParameters:
        """Make parameters that begin with the values of a θ.

        Its learner and its generator are kept where the recipe has the same kind (and as many inner
        steps, and no setting of the generator's that differs); otherwise they begin afresh, the
        generator with the parent's settings where the recipe names none. Raises BadMetaInit when
        the recipe asks for another mapping than the parent's.
        """
        for name in ("hidden_dim", "activation", "output_activation"):
            if getattr(parent, name) != getattr(recipe, name):
                there, here = getattr(parent, name), getattr(recipe, name)
                raise BadMetaInit(
                    f"{parent.version}: {name} is {there!r}, the recipe asks for {here!r}"
                )
        dims = (parent.source_dim, parent.hidden_dim, parent.target_dim)
        fresh = _fresh_learner(recipe, dims)
        same = parent.learner.kind == fresh.kind and _shapes(parent.learner) == _shapes(fresh)
        learner = replace(fresh, tensors=parent.learner.tensors) if same else fresh
        attention = _attention_from(parent.generator, recipe, dims)
        mapping = {name: torch.from_numpy(array) for name, array in parent.mapping.items()}
        return cls(mapping, learner, attention, recipe, form)

    def theta(self) -> Mlp:
        """Return the mapping that all streams share."""
        return Mlp(**self.mapping)

    def learner(self) -> Learner:
        """Return the learner, built on tensors that may require gradients."""
        tensors = {n: _to_used(n, tensor) for n, tensor in self.learner_tensors.items()}
        recipe = self.recipe
        return learners.build(
            self.learner_config,
            tensors,
            recipe.activation,
            recipe.output_activation,
            hidden_dim=recipe.hidden_dim,
        )

    def start(self, support: Support) -> Mlp:
        """Return every stream's mapping before the first inner step, stacked."""
        if self.attention is None:
            return expand(self.theta(), len(support.x_BSD))
        return self.attention.start(self.theta(), *support, self.recipe.activation)

    def adapted(self, support: Support) -> Mlp:
        """Return θ′ of every stream, stacked."""
        return adapt(self.learner(), self.start(support), support).mlp

    def query_outputs(self, support: Support, x_BQD: Tensor) -> Tensor:
        """Adapt every stream and return the outputs of its θ′ on its query (B, Q, E).

        As `form` says this runs in hidden space, where no stream has weights of its own, or in
        full.
        """
        descend = outer_descend_by(self.learner()) if self.form == "hidden" else None
        if descend is None:
            return self.outputs(self.adapted(support), x_BQD)
        return hidden_space_outputs(terms(self.theta()), support, x_BQD, descend).o_BQE

    def _form(self, asked: Form) -> Form:
        """Return the form that runs when `asked` is asked for."""
        recipe, theta = self.recipe, self.theta()
        possible = self.attention is None and recipe.output_activation == "none"
        if not possible or outer_descend_by(self.learner()) is None:
            return "full"
        if asked != "auto":
            return asked
        dims = (theta.w1.shape[1], len(theta.w1), len(theta.w2))
        steps = 1 if recipe.learner in learners.CLOSED_FORMS else recipe.inner_steps
        pays = cost_rule.hidden_pays(*dims, recipe.max_support, steps, cost_rule.TRAINING)
        return "hidden" if pays else "full"

    def outputs(self, mlp: Mlp, x_BND: Tensor) -> Tensor:
        """Return the outputs (B, N, E) of stacked mappings on inputs (B, N, D)."""
        return apply_batched(mlp, x_BND, self.recipe.activation, self.recipe.output_activation)

    def meta_init(
        self,
        name: str,
        source_modality: Modality = "vector",
        target_modality: Modality = "vector",
        source_encoder: PartSpec | None = None,
        target_encoder: PartSpec | None = None,
        usual_sources: PartSpec | None = None,
        parent: str | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> MetaInit:
        """Return θ as it is published; its version is `name` and the first eight digits of its
        content hash."""
        mapping = {n: _array(tensor) for n, tensor in self.mapping.items()}
        used = {n: _to_used(n, tensor) for n, tensor in self.learner_tensors.items()}
        generator = PartSpec({"kind": self.recipe.generator})
        meta_init = MetaInit(
            version=name,
            source_modality=source_modality,
            target_modality=target_modality,
            source_dim=mapping["w1"].shape[1],
            hidden_dim=mapping["w1"].shape[0],
            target_dim=mapping["w2"].shape[0],
            activation=self.recipe.activation,
            output_activation=self.recipe.output_activation,
            mapping=mapping,
            learner=PartSpec(self.learner_config, {n: _array(t) for n, t in used.items()}),
            generator=generator if self.attention is None else self.attention.spec(),
            source_encoder=source_encoder,
            target_encoder=target_encoder,
            usual_sources=usual_sources,
            parent=parent,
            facts=facts or {},
        )
        return replace(meta_init, version=f"{name}-{meta_init.content_hash[:8]}")


def _fresh_learner(recipe: Recipe, dims: tuple[int, int, int]) -> PartSpec:
    spec = learners.fresh_learner(
        recipe.learner, *dims, recipe.inner_steps, recipe.inner_loss, recipe.inner_rate
    )
    if recipe.first_order and recipe.learner in FIRST_ORDER_IS_A_SETTING:
        return replace(spec, config=dict(spec.config) | {"first_order": True})
    return spec


def _fresh_attention(
    recipe: Recipe, dims: tuple[int, int, int], settings: Mapping[str, Any] | None = None
) -> Attention | Mixture | None:
    """Make the attention or mixture that the recipe asks for, if any; with these settings in place
    of the recipe's."""
    if recipe.generator not in CONDITIONED:
        return None
    own = {"source_dim": dims[0], "target_dim": dims[2], **(settings or recipe.generator_config)}
    mixed = recipe.generator == "mixture"
    rank = own.pop("rank", min(dims[1], learners.MAX_RANK)) if mixed else 0
    try:
        config = AttentionConfig(**own)
    except TypeError as error:
        raise ValueError(f"recipe: generator_config: {error}") from error
    seed = recipe.seed + 2  # not the mapping's own numbers
    return Mixture.fresh(config, dims[1], rank, seed) if mixed else Attention.fresh(config, seed)


def _attention_from(
    parent: PartSpec, recipe: Recipe, dims: tuple[int, int, int]
) -> Attention | Mixture | None:
    if recipe.generator not in CONDITIONED or parent.kind != recipe.generator:
        return _fresh_attention(recipe, dims)
    theirs = {n: v for n, v in parent.config.items() if n not in ("kind", *DIMS)}
    ours = theirs | dict(recipe.generator_config)
    if ours != theirs:
        return _fresh_attention(recipe, dims, ours)
    return CONDITIONED[parent.kind].from_spec(parent, *dims)


def _shapes(spec: PartSpec) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in spec.tensors.items()}


def _to_stored(name: str, array: FloatArray) -> Tensor:
    tensor = torch.from_numpy(np.array(array))
    if name != LOGARITHMS:
        return tensor
    if not bool((tensor > 0).all()):
        raise BadMetaInit(f"learner.{name} must be positive to go on learning")
    return tensor.log()


def _to_used(name: str, tensor: Tensor) -> Tensor:
    return tensor.exp() if name == LOGARITHMS else tensor


def _array(tensor: Tensor) -> FloatArray:
    return tensor.detach().cpu().to(torch.float32).numpy().copy()
