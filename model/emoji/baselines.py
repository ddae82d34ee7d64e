"""What θs are compared with on emoji streams: closed forms, joint training, and the ceiling.

B = streams in batch, S = support pairs, Q = query pairs, R = rows (inputs), D = source dim,
E = target dim, K = inner steps

A baseline may have variants, for example by the features that it works on. The one that finds most
is taken, and named, so that θs are compared with the best of each kind.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from model.baselines import fine_tuning
from model.baselines.chance import Chance
from model.baselines.fine_tuning import FineTuning
from model.baselines.fit import Fit, MapTo
from model.baselines.joint import JointRecipe, train_joint
from model.baselines.procrustes import fit_procrustes
from model.baselines.ridge import fit_ridge
from model.baselines.shared import FirstDims, OnSharedFeatures, train_shared
from model.emoji.streams import tenant_seed
from model.emoji.tables import EmojiTable
from model.emoji.tenants import Family, Tenant
from model.evaluate import methods
from model.evaluate.episodes import MetaTestEpisode
from model.evaluate.methods import Method, Outputs
from model.inner import batched
from model.inner.generators import CONDITIONED
from model.mappings.mlp import Mlp, apply
from model.meta.episodes import EpisodeSizes, EpisodeSource
from model.meta.progress import seeded
from model.theta.meta_init import MetaInit
from model.values.arrays import FloatArray

Choices = dict[str, dict[str, Method]]
"""Methods by baseline, then by variant."""
TUNING_STREAMS = 32
"""Training streams on whose episodes fine-tuning's rate and steps are chosen."""


def closed_form_choices(table: EmojiTable, theta: MetaInit) -> Choices:
    """Return the baselines that are fitted on a support alone, on the encoder's features."""
    found: Choices = {
        "ridge": {"": methods.fitted(fit_ridge)},
        "random": {"": methods.fitted(Chance().fit)},
    }
    if table.baselines == "ridge":
        return found
    if theta.source_dim >= theta.target_dim:
        first = FirstDims(theta.target_dim)
        found = on_shared(first, f"the encoder's first {first.dims} features") | found
    if table.family is None and not table.spaces and theta.source_dim == theta.target_dim:
        found = {"encoders as they are": {"": methods.constant(lambda x_RD: x_RD)}} | found
    return found


def on_shared(features: MapTo, variant: str) -> Choices:
    """Return ridge and orthogonal Procrustes on features that all streams share."""
    heads: dict[str, Fit] = {"ridge on shared": fit_ridge, "Procrustes on shared": fit_procrustes}
    return {
        name: {variant: methods.fitted(OnSharedFeatures(features, head).fit)}
        for name, head in heads.items()
    }


def trained_choices(
    source: Callable[[EpisodeSizes], EpisodeSource],
    recipe: JointRecipe,
    sizes: tuple[int, ...],
    seed: int,
) -> Choices:
    """Train the baselines that need training streams: joint training, fine-tuning with the rate and
    steps that are best there at each size, and shared features φ."""
    joint = train_joint(source(EpisodeSizes()), recipe, seed)
    tuned: dict[int, Method] = {}
    for size in sizes:
        episodes = source(EpisodeSizes(size, size)).draw(
            seeded(seed, "fine-tuning"), TUNING_STREAMS
        )
        tuned[size] = fine_tuned(fine_tuning.choose_fine_tuning(joint, episodes))
    found: Choices = {
        "joint": {"": methods.constant(joint)},
        "joint + fine-tuning": {"": methods.by_pairs(tuned)},
    }
    shared = train_shared(source(EpisodeSizes()), recipe, seed)
    return found | on_shared(shared, "φ trained on all streams")


def fine_tuned(tuning: FineTuning) -> Method:
    """Make the method of `tuning.fit`, run on all supports at once: they have as many pairs
    each."""

    def outputs(episodes: Sequence[MetaTestEpisode]) -> Outputs:
        x_BSD, y_BSE = (
            torch.tensor(np.stack([getattr(e, name) for e in episodes]))
            for name in ("x_SD", "y_SE")
        )
        real_BS = torch.ones(x_BSD.shape[:2], dtype=torch.bool)
        rates_K4 = torch.full((tuning.steps, 4), tuning.rate)
        start = tuning.start
        with torch.inference_mode():
            mlp = batched.adapt_batched(
                start.mlp, rates_K4, x_BSD, y_BSE, real_BS, start.activation
            )
            return [
                apply(Mlp(*(t[b] for t in mlp)), torch.tensor(e.x_QD), start.activation).numpy()
                for b, e in enumerate(episodes)
            ]

    return outputs


def ceiling_choices(table: EmojiTable, thetas: Mapping[str, MetaInit], first: MetaInit) -> Choices:
    """Return what a mapping would find that knew its tenant's matrix: from the encoder's first
    features, or from the u(x) of a θ whose generator has one. Empty where streams are languages."""
    if table.family is None:
        return {}
    features: dict[str, MapTo] = {}
    dim = first.target_dim
    if first.source_dim >= dim:
        features[f"the encoder's first {dim} features"] = FirstDims(dim)
    for name, theta in thetas.items():
        if theta.generator.kind in CONDITIONED and theta.encoder_version == first.encoder_version:
            features[f"{name}'s u(x)"] = _u(theta)
    known = {n: _with_matrix(mapping, table.family, dim) for n, mapping in features.items()}
    return {"ceiling": known} if known else {}


def merged_choices(*several: Choices) -> Choices:
    """Put variants of the same baseline side by side, with the baselines in order."""
    found: Choices = {}
    for choices in several:
        for name, variants in choices.items():
            found[name] = found.get(name, {}) | variants
    return found


def _u(theta: MetaInit) -> MapTo:
    def u(x_RD: FloatArray) -> FloatArray:
        return methods.mapping_outputs(
            theta.mapping, x_RD, theta.activation, theta.output_activation
        )

    return u


def _with_matrix(features: MapTo, family: Family, dim: int) -> Method:
    matrices: dict[str, FloatArray] = {}

    def outputs(episodes: Sequence[MetaTestEpisode]) -> Outputs:
        for e in episodes:
            if e.stream not in matrices:
                tenant = Tenant(tenant_seed(e.stream), family, dim)
                matrices[e.stream] = tenant.matrix_EE()
        return [np.asarray(features(e.x_QD) @ matrices[e.stream], np.float32) for e in episodes]

    return outputs
