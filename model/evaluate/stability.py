"""What extra inner steps do to each learner: capped, rolled back where they do not help, gated.

S = support pairs, N = pairs of a stream (of the gate), D = source dim, H = hidden units, E = target
dim

Every learner adapts the same θ's mapping on the same episodes: at its trained number of steps, with
extra ones as the engine takes them, and with as many taken blindly, which is what the guard saves
from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.evaluate import comparison, methods
from model.evaluate.comparison import MetaTestPlan
from model.evaluate.episodes import MetaTestEpisode
from model.evaluate.intervals import Interval
from model.evaluate.scoring import scored, summarised
from model.inner import learners
from model.inner.generators import CONDITIONED
from model.serving.engine import Engine
from model.theta.meta_init import MAX_STEPS, MetaInit
from model.theta.part import PartSpec
from model.values.arrays import FloatArray
from model.values.episode import Adaptation
from model.values.gate import Outcome, judge

TOLERANCE = 1e-5
"""Relative difference that rounding may make to a loss that is computed twice."""


@dataclass(frozen=True, slots=True)
class Stability:
    """What extra inner steps did to one learner; counts are of episodes."""

    learner: str
    steps: int
    extra_steps: int
    """Extra steps asked for; the engine caps the sum of all steps at 64."""
    episodes: int
    worse_on_support: int
    """Episodes whose support loss is larger after the extra steps than before them."""
    published_worse: int
    """Episodes whose published mapping is worse than θ on the newest pairs."""
    fallbacks: int
    """Episodes in which the gate let θ or ridge through instead."""
    blindly_worse: int
    """Episodes whose support loss would be larger, or not finite, without rolling back."""
    r_at_1: Interval
    """R@1 of what is published without extra steps."""
    r_at_1_extra: Interval
    """R@1 of what is published with extra steps."""


def stability(
    theta: MetaInit, episodes: Sequence[MetaTestEpisode], plan: MetaTestPlan, extra_steps: int
) -> list[Stability]:
    """Judge extra steps by θ's own learner first, then by every kind of learner, untrained, on θ's
    mapping."""
    own = theta.learner.config["kind"]
    thetas = {} if theta.generator.kind in CONDITIONED else {f"{own} (trained)": theta}
    if theta.generator.kind in CONDITIONED:
        thetas = {f"{theta.generator.kind}, then {own}": theta}
    dims = (theta.source_dim, theta.hidden_dim, theta.target_dim)
    plain = replace(theta, generator=PartSpec({"kind": "mlp"}))
    thetas |= {k: replace(plain, learner=learners.fresh_learner(k, *dims)) for k in learners.KINDS}
    return [_judged(name, t, episodes, plan, extra_steps) for name, t in thetas.items()]


def _judged(
    name: str,
    theta: MetaInit,
    episodes: Sequence[MetaTestEpisode],
    plan: MetaTestPlan,
    extra_steps: int,
) -> Stability:
    steps = len(theta.learner.tensors.get("rates", ()))
    engine = comparison.engine_for(theta, plan)
    longer = comparison.engine_for(theta, plan, extra_steps)
    before, after = (_adapted(e, episodes) for e in (engine, longer))
    blind = (
        before
        if not steps
        else _adapted(comparison.engine_for(_repeating(theta, steps, extra_steps), plan), episodes)
    )
    pairs = len(episodes[0].x_SD)
    r_at_1 = [
        summarised("", pairs, episodes, scored(methods.gated(e), episodes)).measures["r_at_1"]
        for e in (engine, longer)
    ]
    gate_losses = [_gate_losses(longer, a, e) for a, e in zip(after, episodes, strict=True)]
    return Stability(
        learner=name,
        steps=steps,
        extra_steps=extra_steps if steps else 0,
        episodes=len(episodes),
        worse_on_support=_count_worse(before, after),
        published_worse=sum(_worse(ours, thetas) for ours, thetas in gate_losses),
        fallbacks=sum(judge(a) is not Outcome.ADAPTED for a in after),
        blindly_worse=_count_worse(before, blind),
        r_at_1=r_at_1[0],
        r_at_1_extra=r_at_1[1],
    )


def _adapted(engine: Engine, episodes: Sequence[MetaTestEpisode]) -> list[Adaptation]:
    return engine.adapt([e.for_engine for e in episodes])


def _repeating(theta: MetaInit, steps: int, extra_steps: int) -> MetaInit:
    """Return θ as if it were trained for the extra steps too, at the rates of the last step."""
    extra = min(extra_steps, MAX_STEPS - steps)
    rates = theta.learner.tensors["rates"]
    longer = np.concatenate([rates, np.repeat(rates[-1:], extra, axis=0)])
    return replace(theta, learner=PartSpec(theta.learner.config, {"rates": longer}))


def _count_worse(before: Sequence[Adaptation], after: Sequence[Adaptation]) -> int:
    losses = [
        (a.support_loss_after, b.support_loss_after) for a, b in zip(before, after, strict=True)
    ]
    return sum(_worse(later, earlier) for earlier, later in losses)


def _worse(loss: float, than: float) -> bool:
    return not loss <= than + TOLERANCE * abs(than)


def _gate_losses(
    engine: Engine, adaptation: Adaptation, episode: MetaTestEpisode
) -> tuple[float, float]:
    """Return losses on the newest pairs, of what is published and of θ; measured anew, not as the
    gate was told."""
    mapping = engine.theta_mapping()
    thetas = methods.mapping_outputs(
        mapping, episode.x_gate_ND, engine.theta.activation, engine.theta.output_activation
    )
    ours = methods.published(engine, adaptation, episode.x_gate_ND)
    return _squared_error(ours, episode.y_gate_NE), _squared_error(thetas, episode.y_gate_NE)


def _squared_error(o_NE: FloatArray, y_NE: FloatArray) -> float:
    return float(np.square(o_NE - y_NE).mean())
