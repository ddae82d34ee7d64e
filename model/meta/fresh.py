"""A θ of any generator and learner that was never meta-trained: to begin with, and for tests.

D = source dim, H = hidden units, E = target dim
"""

from dataclasses import replace

from model.inner import learners
from model.inner.generators import KINDS
from model.inner.learners import MAX_RANK
from model.losses import MSE, Loss
from model.mappings.attention import Attention, AttentionConfig
from model.mappings.prior_mixture import Mixture
from model.theta.meta_init import Activation, MetaInit, OutputActivation, fresh_meta_init
from model.theta.part import PartSpec
from model.values.errors import BadMetaInit


def fresh_theta_of_kind(
    dims: tuple[int, int, int],
    generator: str = "mlp",
    learner: str = "maml",
    loss: Loss = MSE,
    activation: Activation = "gelu",
    output_activation: OutputActivation = "none",
    steps: int = 5,
    seed: int = 0,
) -> MetaInit:
    """Make a random θ that maps vectors to vectors of `dims` (D, H, E), with the generator and the
    learner that are asked for; `model.theta.meta_init.fresh_meta_init` makes the plain one that it
    starts from.

    Streams then learn from their own pairs alone. Raises BadMetaInit for a kind that is not known
    or dims that the kind cannot have.
    """
    source_dim, hidden_dim, target_dim = dims
    base = fresh_meta_init(source_dim, target_dim, hidden_dim, steps, seed=seed)
    return replace(
        base,
        version="-".join([base.version, generator, learner, loss.kind]),
        activation=activation,
        output_activation=output_activation,
        generator=_generator(generator, dims, seed),
        learner=learners.fresh_learner(learner, *dims, steps, loss),
    )


def _generator(kind: str, dims: tuple[int, int, int], seed: int) -> PartSpec:
    source_dim, hidden_dim, target_dim = dims
    if kind == "attention":
        return Attention.fresh(AttentionConfig(source_dim, target_dim), seed).spec()
    if kind == "mixture":
        config = AttentionConfig(source_dim, target_dim)
        return Mixture.fresh(config, hidden_dim, min(hidden_dim, MAX_RANK), seed).spec()
    if kind not in KINDS:
        raise BadMetaInit(f"generator kind is {kind!r}, not one of {', '.join(KINDS)}")
    return PartSpec({"kind": kind})
