"""A meta-training's whole state: what a checkpoint holds, and what the next step starts from.

Random numbers need no state: those of step k come from the seed and k alone, see `seeded`.
"""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from model.meta.adversary import Discriminator
from model.meta.checkpoint import Checkpoint, copy_into
from model.meta.parameters import MetaParameters
from model.meta.recipe import Recipe
from model.values.errors import BadCheckpoint

MOMENTS = (0.0, 0.9)
"""Of the discriminator's optimiser: momentum makes two sides that chase each other swing."""


def seeded(seed: int, purpose: str, step: int = 0) -> torch.Generator:
    """Random numbers for one purpose at one step; the same on every process."""
    digest = hashlib.sha256(f"{seed} {purpose} {step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass(slots=True)
class Progress:
    """How far it is, JSON-like throughout."""

    step: int = 0
    """Outer steps done, the skipped ones included."""
    skipped: int = 0
    """Steps without effect, for their loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    best_loss: float | None = None
    """The lowest validation loss; None before the first validation, or without any."""
    best_step: int = 0
    since_best: int = 0
    """Validations since."""
    ended: str | None = None
    """Why it is over: "steps" or "patience"."""
    recent: dict[str, float] = field(default_factory=dict)
    """Sums of figures since the last row of history, and their "count"."""
    history: list[dict[str, float]] = field(default_factory=list)
    """A row every `validate_every` steps: means over those steps, and the validation loss."""


class TrainingState:
    """Parameters, their average, the best average so far, optimisers, progress."""

    def __init__(self, parameters: MetaParameters, target_dim: int) -> None:
        recipe = parameters.recipe
        self.recipe = recipe
        self.parameters = parameters
        self.average = copy.deepcopy(parameters).requires_grad_(False)
        self.best = copy.deepcopy(self.average)
        self.optimiser = _optimiser(parameters)
        self.discriminator: Discriminator | None = None
        self.discriminator_optimiser: Optimizer | None = None
        if recipe.generator == "adversarial":
            self.discriminator = Discriminator(target_dim, recipe)
            self.discriminator_optimiser = AdamW(
                self.discriminator.parameters(),
                lr=recipe.adversary.rate,
                betas=MOMENTS,
                weight_decay=0.0,
            )
        self.progress = Progress()

    @property
    def learned(self) -> list[nn.Parameter]:
        """What the outer loop moves."""
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    def checkpoint(self, identity: Mapping[str, Any]) -> Checkpoint:
        """All of it."""
        tensors = self._modules() | moments("optimiser", self.optimiser)
        if self.discriminator_optimiser is not None:
            tensors |= moments("discriminator_optimiser", self.discriminator_optimiser)
        return Checkpoint(identity, asdict(self.progress), tensors)

    def restore(self, checkpoint: Checkpoint, where: str) -> None:
        """Take over what a checkpoint of the same identity holds. Raises BadCheckpoint."""
        copy_into(self._modules(), checkpoint.tensors, where)
        restore_moments("optimiser", self.optimiser, checkpoint.tensors)
        if self.discriminator_optimiser is not None:
            restore_moments(
                "discriminator_optimiser", self.discriminator_optimiser, checkpoint.tensors
            )
        try:
            self.progress = Progress(**checkpoint.progress)
        except TypeError as error:
            raise BadCheckpoint(f"{where}: progress is malformed: {error}") from error

    def _modules(self) -> dict[str, Tensor]:
        modules: dict[str, nn.Module] = {
            "parameters": self.parameters,
            "average": self.average,
            "best": self.best,
        }
        if self.discriminator is not None:
            modules["discriminator"] = self.discriminator
        return {
            f"{m}.{n}": t for m, module in modules.items() for n, t in module.state_dict().items()
        }


def _optimiser(parameters: MetaParameters) -> Optimizer:
    recipe = parameters.recipe
    if recipe.learner == "reptile":
        theta = list(parameters.mapping.values())
        return SGD([{"params": theta, "lr": recipe.epsilon, "peak": recipe.epsilon}])
    return AdamW(_groups(parameters, recipe))


def _groups(parameters: MetaParameters, recipe: Recipe) -> list[dict[str, Any]]:
    """What is learned as it is, and what as a logarithm: each with its peak rate and decay."""
    logarithms = [p for p in parameters.learner_tensors.values() if p.requires_grad]
    known = {id(p) for p in logarithms}
    plain = [p for p in parameters.parameters() if p.requires_grad and id(p) not in known]
    kinds = ((plain, recipe.rate, recipe.weight_decay), (logarithms, recipe.log_rate_rate, 0.0))
    return [
        {"params": params, "lr": rate, "peak": rate, "weight_decay": decay}
        for params, rate, decay in kinds
        if params
    ]


def moments(name: str, optimiser: Optimizer) -> dict[str, Tensor]:
    """An optimiser's state, as tensors whose names begin with `name`."""
    state = optimiser.state_dict()["state"]
    return {f"{name}.{i}.{key}": t for i, each in state.items() for key, t in each.items()}


def restore_moments(name: str, optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take it over from those among the tensors."""
    state: dict[int, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        owner, _, rest = path.partition(".")
        if owner == name:
            index, _, key = rest.partition(".")
            state.setdefault(int(index), {})[key] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
