"""A meta-training's whole state: what a checkpoint holds, and what the next step starts from.

Random numbers need no state: those of step k come from the seed and k alone, see
`model.meta.progress.seeded`.
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from model.inner import learners
from model.meta.adversary import Discriminator
from model.meta.checkpoint import Checkpoint, copy_into, optimiser_tensors, restore_optimiser
from model.meta.parameters import MetaParameters
from model.meta.progress import Progress
from model.meta.recipe import Recipe

BETAS = (0.0, 0.9)
"""Betas of the discriminator's AdamW. Without momentum, because it makes two sides that chase each
other swing."""


class TrainingState:
    """Parameters, their moving average, the best average so far, optimisers and progress."""

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
                betas=BETAS,
                weight_decay=0.0,
            )
        self.progress = Progress()

    @property
    def learned(self) -> list[nn.Parameter]:
        """The parameters that the outer loop moves."""
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    def checkpoint(self, identity: Mapping[str, Any]) -> Checkpoint:
        """Return the whole state as a checkpoint of the training with this identity."""
        tensors = self._modules() | optimiser_tensors("optimiser", self.optimiser)
        if self.discriminator_optimiser is not None:
            tensors |= optimiser_tensors("discriminator_optimiser", self.discriminator_optimiser)
        return Checkpoint(identity, asdict(self.progress), tensors)

    def restore(self, checkpoint: Checkpoint, where: str) -> None:
        """Take over the state that a checkpoint of the same identity holds. Raises
        BadCheckpoint."""
        copy_into(self._modules(), checkpoint.tensors, where)
        restore_optimiser("optimiser", self.optimiser, checkpoint.tensors)
        if self.discriminator_optimiser is not None:
            restore_optimiser(
                "discriminator_optimiser", self.discriminator_optimiser, checkpoint.tensors
            )
        self.progress = checkpoint.progress_at(where)

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
    """Parameters learned as they are, and those learned as logarithms: each group with its peak
    rate and weight decay."""
    learner = parameters.learner_tensors.items()
    logarithms = [p for n, p in learner if p.requires_grad and n != learners.FACTOR]
    known = {id(p) for p in logarithms}
    plain = [p for p in parameters.parameters() if p.requires_grad and id(p) not in known]
    kinds = ((plain, recipe.rate, recipe.weight_decay), (logarithms, recipe.log_rate_rate, 0.0))
    return [
        {"params": params, "lr": rate, "peak": rate, "weight_decay": decay}
        for params, rate, decay in kinds
        if params
    ]
