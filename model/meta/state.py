"""A training's whole state: what a checkpoint holds, and what the next step starts from.

Random numbers need no state: those of step k come from the seed and k alone, see
`model.meta.progress.seeded`.
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from model.meta import distributed
from model.meta.checkpoint import (
    Checkpoint,
    check_identity,
    copy_into,
    optimiser_tensors,
    read_checkpoint,
    restore_optimiser,
    write_checkpoint,
)
from model.meta.progress import Progress

M = TypeVar("M", bound=nn.Module)


class TrainingState(Generic[M]):
    """What is learned, its moving average, the best of it so far, optimisers and progress."""

    def __init__(
        self,
        module: M,
        optimiser: Optimizer,
        *,
        averaged: bool = False,
        rival: tuple[nn.Module, Optimizer] | None = None,
        name: str = "training",
    ) -> None:
        """Begin a training of `module`. The rates of the optimiser's groups are their peaks.
        `rival` is a discriminator with its optimiser, whose steps the caller makes."""
        self.module, self.optimiser, self.rival = module, optimiser, rival
        self.average: M = copy.deepcopy(module).requires_grad_(False) if averaged else module
        """The module itself where there is no average."""
        self.best: M = copy.deepcopy(self.average)
        self.progress = Progress(name)
        self._peaks = [float(group["lr"]) for group in optimiser.param_groups]

    @property
    def learned(self) -> list[nn.Parameter]:
        """The parameters that the outer loop moves."""
        return [p for p in self.module.parameters() if p.requires_grad]

    @property
    def result(self) -> M:
        """What validated best; without validation the last average."""
        return self.average if self.progress.best_loss is None else self.best

    def set_rates(self, factor: float) -> None:
        """Set every group's rate to its peak times `factor`."""
        for group, peak in zip(self.optimiser.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    def judge(self, loss: float, patience: int) -> None:
        """Keep the average if its validation loss is the lowest so far; end the training after
        `patience` validations without a new best."""
        if self.progress.judge(loss, patience):
            self.best.load_state_dict(self.average.state_dict())

    def save(self, path: Path, identity: Mapping[str, object]) -> None:
        """Write the checkpoint of the training with this identity, in process 0 alone."""
        if distributed.rank() == 0:
            write_checkpoint(path, self.to_bytes(identity))

    def take_over(self, path: Path, identity: Mapping[str, object]) -> None:
        """Restore process 0's checkpoint, if there is one, in every process. Raises BadCheckpoint
        unless it is of the same identity."""
        self.restore(read_checkpoint(path) if distributed.rank() == 0 else None, identity, path)

    def to_bytes(self, identity: Mapping[str, object]) -> bytes:
        """Return the content of a checkpoint file."""
        tensors = self._tensors() | optimiser_tensors("optimiser", self.optimiser)
        if self.rival is not None:
            tensors |= optimiser_tensors("rival_optimiser", self.rival[1])
        return Checkpoint(identity, asdict(self.progress), tensors).to_bytes()

    def restore(self, here: bytes | None, identity: Mapping[str, Any], where: Path | str) -> None:
        """Take over what `to_bytes` returned in process 0; nothing where it passes None. Errors
        name the place `where`. Raises BadCheckpoint."""
        found = distributed.from_rank_0(here)
        if found is None:
            return
        checkpoint = Checkpoint.from_bytes(found, str(where))
        check_identity(checkpoint.identity, identity, str(where))
        copy_into(self._tensors(), checkpoint.tensors, str(where))
        restore_optimiser("optimiser", self.optimiser, checkpoint.tensors)
        if self.rival is not None:
            restore_optimiser("rival_optimiser", self.rival[1], checkpoint.tensors)
        self.progress = checkpoint.progress_at(str(where))

    def _tensors(self) -> dict[str, Tensor]:
        modules: dict[str, nn.Module] = {"module": self.module, "best": self.best}
        if self.average is not self.module:
            modules["average"] = self.average
        if self.rival is not None:
            modules["rival"] = self.rival[0]
        return {
            f"{m}.{n}": t for m, module in modules.items() for n, t in module.state_dict().items()
        }
