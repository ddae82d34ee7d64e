"""How a θ is meta-trained: every choice and every number, as one value that JSON can hold."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from model.losses import MSE, Loss
from model.meta.episodes import EpisodeSizes
from model.meta.progress import TrainingSchedule
from model.theta.meta_init import Activation, OutputActivation
from model.values.errors import BadMetaInit

GeneratorKind = Literal["mlp", "attention", "mixture", "adversarial"]
LearnerKind = Literal["maml", "fomaml", "reptile", "meta-sgd", "anil", "adam", "r2d2", "alpaca"]
Condition = Literal["none", "support_mean"]

COUNTS = (
    "inner_steps",
    "hidden_dim",
    "min_support",
    "max_support",
    "query",
    "streams",
    "steps",
    "minibatches",
    "validate_every",
    "validation_streams",
    "patience",
    "max_skipped",
)
"""Settings that are integers of 1 or more."""


@dataclass(frozen=True, slots=True)
class Term:
    """One loss of the outer loop, and its weight in the sum."""

    loss: Loss
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Adversary:
    """How the discriminator of the adversarial generator takes part."""

    weight: float = 0.3
    """Full weight of the adversarial loss in the outer loss."""
    ramp_start: float = 0.0
    """The share of the training before which outputs are trained on the paired loss alone."""
    ramp_end: float = 0.2
    """The share of the training after which the weight is the full one."""
    condition: Condition = "none"
    """What the discriminator sees beside a target: nothing, or the mean of the stream's support
    targets."""
    hidden_dim: int = 64
    rate: float = 1e-3
    penalty: float = 0.1
    """γ of R1: γ/2 times the squared gradient at true targets (Mescheder et al. 2018)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that, together with the data, decides θ."""

    generator: GeneratorKind = "mlp"
    generator_config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `model.mappings.attention.AttentionConfig` other than the dims, and of a mixture
    `rank`; what is not there has its default."""
    learner: LearnerKind = "maml"
    inner_steps: int = 5
    inner_loss: Loss = MSE
    inner_rate: float | None = None
    """Initial inner learning rates (r2d2, alpaca: ridge penalties); None for what suits the dims,
    see `model.inner.learners.fresh_learner`."""
    first_order: bool = False
    """For meta-sgd, anil and adam: whether inner gradients count as constants in the outer one."""
    learn_rates: bool = False
    """Whether maml, fomaml, anil and adam learn their rates too; meta-sgd, r2d2 and alpaca always
    do, and alpaca its covariance factor."""
    outer_losses: tuple[Term, ...] = (Term(MSE), Term(Loss("infonce"), 0.2))
    hidden_dim: int = 128
    activation: Activation = "gelu"
    output_activation: OutputActivation = "none"
    min_support: int = 3
    max_support: int = 64
    query: int = 64
    shared_steps: int = 0
    """Steps before the outer loop, in which θ's mapping alone learns features that streams share up
    to rotations of their own; for a generator that turns them. None are done from a parent."""
    streams: int = 16
    """Streams in a batch, over all processes."""
    steps: int = 4_500
    """Outer steps, unless validation stops earlier."""
    rate: float = 2e-3
    """Peak outer learning rate (AdamW)."""
    mapping_rate: float | None = None
    """The same of θ's mapping alone, where it is to move less than its generator; None: `rate`."""
    epsilon: float = 0.5
    """For reptile, instead of `rate`: the peak of ε in θ += ε·(θ′ − θ)."""
    log_rate_rate: float = 4e-3
    """Peak outer learning rate of what is learned as a logarithm: inner rates, λ."""
    minibatches: int = 2
    """For reptile: the number of parts of an episode's pairs that its inner steps take turns
    with."""
    weight_decay: float = 0.0
    """Weight decay of the mapping and the generator (AdamW)."""
    warm_up: float = 0.05
    """The share of the steps in which the rates rise; then they fall along half a cosine."""
    max_gradient_norm: float = 1.0
    averaging: float = 5e-3
    """How much of each step's parameters goes into the moving average, which is the result."""
    validate_every: int = 100
    validation_streams: int = 64
    """Episodes that validation judges on, the same ones every time."""
    patience: int = 10
    """How many validations without a new best end the training."""
    max_skipped: int = 10
    """The number of steps in a row without a finite loss and gradient that ends the training."""
    adversary: Adversary = Adversary()
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for settings that are out of range or do not go together."""
        for name, choices in (
            ("generator", GeneratorKind),
            ("learner", LearnerKind),
            ("activation", Activation),
        ):
            if getattr(self, name) not in get_args(choices):
                allowed = ", ".join(get_args(choices))
                raise ValueError(f"{name} is {getattr(self, name)!r}, not one of {allowed}")
        for name in COUNTS:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}, not an integer of 1 or more")
        for name in ("rate", "log_rate_rate", "epsilon", "averaging", "max_gradient_norm"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 < value < math.inf:
                raise ValueError(f"{name} is {value!r}, not a number above 0")
        if type(self.shared_steps) is not int or self.shared_steps < 0:
            raise ValueError(f"shared_steps is {self.shared_steps!r}, not an integer of 0 or more")
        if self.mapping_rate is not None and not 0.0 < self.mapping_rate < math.inf:
            raise ValueError(f"mapping_rate is {self.mapping_rate!r}, not a number above 0")
        if not self.outer_losses:
            raise ValueError("outer_losses is empty")
        if self.learner == "reptile" and self.generator != "mlp":
            raise ValueError("reptile moves θ alone: it goes with the generator mlp")
        if self.generator in ("attention", "mixture") and self.output_activation != "none":
            raise ValueError(f"the generator {self.generator} needs the output activation none")
        self.episode_sizes()  # which checks the sizes of support and query

    def episode_sizes(self, temporal: bool = False) -> EpisodeSizes:
        """Return the sizes of an episode. Raises ValueError where they do not fit together."""
        return EpisodeSizes(self.min_support, self.max_support, self.query, temporal)

    def schedule(self) -> TrainingSchedule:
        """Return how long the outer loop goes on, and how its steps are taken."""
        return TrainingSchedule(
            self.steps,
            self.warm_up,
            math.inf if self.learner == "reptile" else self.max_gradient_norm,
            self.averaging,
            self.validate_every,
            self.patience,
            self.max_skipped,
        )

    def to_config(self) -> dict[str, Any]:
        """Return the recipe as a JSON-like dict, which `from_config` reads."""
        config = dataclasses.asdict(self)
        config["inner_loss"] = self.inner_loss.config()
        config["outer_losses"] = [
            {"loss": term.loss.config(), "weight": term.weight} for term in self.outer_losses
        ]
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Recipe":
        """Read what `to_config` wrote, or a part of it; what is not there has its default.

        Raises ValueError, which names the setting that is wrong.
        """
        settings = dict(config)
        if unknown := sorted(set(settings) - {f.name for f in dataclasses.fields(cls)}):
            raise ValueError(f"a recipe has no setting {', '.join(unknown)}")
        try:
            if "inner_loss" in settings:
                settings["inner_loss"] = Loss.from_config(settings["inner_loss"])
            if "outer_losses" in settings:
                terms = settings["outer_losses"]
                settings["outer_losses"] = tuple(
                    Term(Loss.from_config(term["loss"]), float(term["weight"])) for term in terms
                )
            if "adversary" in settings:
                settings["adversary"] = Adversary(**settings["adversary"])
            return cls(**settings)
        except (TypeError, KeyError, BadMetaInit) as error:
            raise ValueError(f"recipe: {error}") from error
