"""A meta-test: θ beside the baselines on streams, at several numbers of support pairs.

N = pairs of a stream, S = support pairs, D = source dim, E = target dim
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.baselines import fine_tuning
from model.baselines.chance import Chance
from model.baselines.joint import JointRecipe, train_joint
from model.baselines.procrustes import fit_procrustes
from model.baselines.ridge import fit_ridge
from model.baselines.shared import OnSharedFeatures, train_shared
from model.evaluate import methods
from model.evaluate.episodes import CANDIDATES, GATE_PAIRS, MetaTestEpisode, cut_test_episode
from model.evaluate.methods import Method
from model.evaluate.scoring import Figures, method_figures
from model.meta.episodes import EpisodeSource
from model.meta.progress import seeded
from model.meta.recorded_streams import RecordedStream
from model.serving.engine import Engine
from model.theta.meta_init import MetaInit
from model.values.errors import BadData

SIZES = (5, 16, 64)


@dataclass(frozen=True, slots=True)
class MetaTestPlan:
    """How large a meta-test is."""

    sizes: tuple[int, ...] = SIZES
    """Numbers of support pairs."""
    episodes: int = 3
    """Episodes of each stream at each size."""
    candidates: int = CANDIDATES
    seed: int = 0


def engine_for(theta: MetaInit, plan: MetaTestPlan, extra_steps: int = 0) -> Engine:
    """Return an engine that serves θ on a CPU, for episodes of the plan's sizes. Raises
    BadMetaInit."""
    return Engine(
        theta,
        "cpu",
        support_capacity=max(plan.sizes),
        query_capacity=GATE_PAIRS,
        extra_steps=extra_steps,
    )


def episodes_of(
    streams: Sequence[RecordedStream], plan: MetaTestPlan
) -> dict[int, list[MetaTestEpisode]]:
    """Draw the episodes of every stream, by size; sizes that no stream is long enough for are left
    out.

    Raises BadData when there is no episode at all.
    """
    found: dict[int, list[MetaTestEpisode]] = {}
    for pairs in plan.sizes:
        rng = np.random.default_rng([plan.seed, pairs])
        drawn = (
            cut_test_episode(s, pairs, rng, plan.candidates)
            for s in streams
            for _ in range(plan.episodes)
        )
        if episodes := [episode for episode in drawn if episode is not None]:
            found[pairs] = episodes
    if not found:
        longest = max((len(s.x_ND) for s in streams), default=0)
        raise BadData(
            f"no stream is long enough to be judged on: the longest of {len(streams)} has "
            f"{longest} pairs, the smallest size asks for {min(plan.sizes)} for the support, "
            f"{GATE_PAIRS} for the gate and 2 for the query, of different labels"
        )
    return found


def meta_learned(engine: Engine) -> dict[str, Method]:
    """Return θ's methods: as the gate publishes it, adapted whatever the gate says, unadapted."""
    adapt = methods.adapting(engine)
    return {
        "gated": methods.gated(engine, adapt),
        "adapted": methods.adapted(engine, adapt),
        "theta": methods.theta(engine),
    }


def closed_form_methods() -> dict[str, Method]:
    """Return the baselines that need no training streams."""
    return {"ridge": methods.fitted(fit_ridge), "random": methods.fitted(Chance().fit)}


def trained_methods(source: EpisodeSource, recipe: JointRecipe, seed: int) -> dict[str, Method]:
    """Train the baselines that need training streams: joint training with and without fine-tuning,
    ridge and Procrustes on shared features."""
    joint = train_joint(source, recipe, seed)
    batch = source.draw(seeded(seed, "fine-tuning"), 2 * recipe.streams)
    shared = train_shared(source, recipe, seed)
    return {
        "joint": methods.constant(joint),
        "joint + fine-tuning": methods.fitted(fine_tuning.choose_fine_tuning(joint, batch).fit),
        "ridge on shared": methods.fitted(OnSharedFeatures(shared, fit_ridge).fit),
        "Procrustes on shared": methods.fitted(OnSharedFeatures(shared, fit_procrustes).fit),
    }


def compare(
    compared: dict[str, Method], episodes: dict[int, list[MetaTestEpisode]]
) -> list[Figures]:
    """Return every method's figures at every size."""
    return [
        method_figures(name, method, pairs, episodes[pairs])
        for pairs in episodes
        for name, method in compared.items()
    ]
