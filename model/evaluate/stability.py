"""What extra inner steps do to each learner: capped, rolled back where they do not help, gated.

S = support pairs, G = gate pairs, H = hidden, E = target dim

Every learner adapts the same θ's mapping on the same episodes: at its trained number of steps, with
extra ones as the engine takes them, and with as many taken blindly, which is what the guard saves
from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.evaluate import methods, recorded
from model.evaluate.episodes import TestEpisode
from model.evaluate.intervals import Interval
from model.evaluate.recorded import TestPlan
from model.evaluate.scoring import scored, summarised
from model.inner import learners
from model.serving.engine import Engine
from model.theta.meta_init import MAX_STEPS, MetaInit
from model.theta.part import PartSpec
from model.values.arrays import FloatArray
from model.values.episode import Adaptation
from model.values.gate import Outcome, judge

TOLERANCE = 1e-5
"""Relative: what rounding may do to a loss that is computed twice."""


@dataclass(frozen=True, slots=True)
class Stability:
    """One learner; counts are of episodes."""

    learner: str
    steps: int
    extra_steps: int
    """Asked for; the engine caps the sum at 64."""
    episodes: int
    worse_on_support: int
    """With a larger support loss after the extra steps than before them."""
    published_worse: int
    """Whose published mapping is worse than θ on the newest pairs."""
    fallbacks: int
    """Where the gate let θ or ridge through instead."""
    blindly_worse: int
    """With a larger support loss (or none) if the same steps are taken without rolling back."""
    r_at_1: Interval
    """Of what is published, without extra steps."""
    r_at_1_extra: Interval
    """The same with them."""


def stability(
    theta: MetaInit, episodes: Sequence[TestEpisode], plan: TestPlan, extra_steps: int
) -> list[Stability]:
    """θ's own learner first where it takes steps, then every kind, untrained, on θ's mapping."""
    own = theta.learner.config["kind"]
    thetas = {} if theta.generator.kind == "attention" else {f"{own} (trained)": theta}
    if theta.generator.kind == "attention":
        thetas = {f"attention, then {own}": theta}
    dims = (theta.source_dim, theta.hidden_dim, theta.target_dim)
    plain = replace(theta, generator=PartSpec({"kind": "mlp"}))
    thetas |= {k: replace(plain, learner=learners.fresh_spec(k, *dims)) for k in learners.KINDS}
    return [_judged(name, t, episodes, plan, extra_steps) for name, t in thetas.items()]


def _judged(
    name: str, theta: MetaInit, episodes: Sequence[TestEpisode], plan: TestPlan, extra_steps: int
) -> Stability:
    steps = len(theta.learner.tensors.get("rates", ()))
    engine = recorded.engine_for(theta, plan)
    longer = recorded.engine_for(theta, plan, extra_steps)
    before, after = (_adapted(e, episodes) for e in (engine, longer))
    blind = (
        before
        if not steps
        else _adapted(recorded.engine_for(_repeating(theta, steps, extra_steps), plan), episodes)
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


def _adapted(engine: Engine, episodes: Sequence[TestEpisode]) -> list[Adaptation]:
    return engine.adapt([e.for_engine for e in episodes])


def _repeating(theta: MetaInit, steps: int, extra_steps: int) -> MetaInit:
    """θ as if trained for the extra steps too, at the last rates."""
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
    engine: Engine, adaptation: Adaptation, episode: TestEpisode
) -> tuple[float, float]:
    """On the newest pairs: what is published, and θ; measured anew, not as the gate was told."""
    mapping = engine.theta_mapping()
    thetas = methods.run(
        mapping, episode.x_GD, engine.theta.activation, engine.theta.output_activation
    )
    ours = methods.published(engine, adaptation, episode.x_GD)
    return _squared_error(ours, episode.y_GE), _squared_error(thetas, episode.y_GE)


def _squared_error(o_GE: FloatArray, y_GE: FloatArray) -> float:
    return float(np.square(o_GE - y_GE).mean())
