"""How far a training is: steps, losses and their history, and the learning rate that goes with it.

Progress is JSON-like throughout,
because checkpoints hold it.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class Saving:
    """Where and how often a training writes its checkpoint."""

    path: Path
    every: int = 250
    """Steps between two checkpoints: the most that a crash costs."""


@dataclass(frozen=True, slots=True)
class TrainingSchedule:
    """How long a training goes on, and how its steps are taken."""

    steps: int
    warm_up: float = 0.05
    """The share of the steps in which the rates rise; then they fall along half a cosine."""
    max_gradient_norm: float = math.inf
    averaging: float | None = None
    """How much of each step's parameters goes into the moving average; None: no average."""
    validate_every: int = 100
    """Steps in a row of history; validation, where there is any, closes it."""
    patience: int = 10
    """How many validations without a new best end the training."""
    max_skipped: int = 10
    """The number of steps in a row that are not finite which ends the training."""
    minutes: float | None = None
    """After so long the training ends too, and its rates have fallen by then. The result then
    depends on the machine's speed."""


@dataclass(slots=True)
class Progress:
    """Where a training stands."""

    name: str = "training"
    """What is trained, for people."""
    step: int = 0
    """Steps done, the skipped ones included."""
    steps: int = 0
    """Steps after which the training is over, if nothing ends it earlier."""
    skipped: int = 0
    """Steps without effect, because their loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    best_loss: float | None = None
    """The lowest validation loss; None before the first validation, or without any."""
    best_step: int = 0
    since_best: int = 0
    """Validations since the best one."""
    ended: str | None = None
    """Why the training is over: "steps", "patience" or "time"; None while it goes on."""
    recent: dict[str, float] = field(default_factory=dict)
    """Sums of figures since the last row of history, and their "count"."""
    history: list[dict[str, float]] = field(default_factory=list)
    """A row per validation interval: means over its steps, and the validation loss."""

    def count(self, figures: Mapping[str, float]) -> None:
        """Add the figures of a step that had its effect to the row under way."""
        self.skipped_in_a_row = 0
        for name, figure in {**figures, "count": 1.0}.items():
            self.recent[name] = self.recent.get(name, 0.0) + figure

    def skip(self) -> None:
        """Count a step that had no effect."""
        self.skipped += 1
        self.skipped_in_a_row += 1

    def close_row(self) -> dict[str, float]:
        """Append the row of history that is under way, and return it for further figures."""
        sums, self.recent = self.recent, {}
        count = sums.pop("count", 0.0)
        row = {"step": float(self.step), "skipped": float(self.skipped)}
        row |= {name: total / count for name, total in sums.items()}
        self.history.append(row)
        return row

    def judge(self, loss: float, patience: int) -> bool:
        """Take a validation loss in, and end the training after `patience` validations without a
        new best. Return whether this one is the best so far."""
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            self.best_loss, self.best_step, self.since_best = loss, self.step, 0
            return True
        self.since_best += 1
        if self.since_best >= patience:
            self.ended = "patience"
        return False

    def is_due(self, saving: Saving) -> bool:
        """Return whether a checkpoint is to be written after this step."""
        return self.step % saving.every == 0 or self.ended is not None


def cosine(progress: float, warm_up: float) -> float:
    """Return the factor of the learning rate at a progress of 0 to 1: it rises linearly to 1 during
    the share `warm_up` of the training, then falls to 0 along half a cosine."""
    if progress < warm_up:
        return max(progress, 0.1 * warm_up) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warm_up) / (1.0 - warm_up)))


def seeded(seed: int, purpose: str, step: int = 0) -> torch.Generator:
    """Return a generator of random numbers for one purpose at one step; every process gets the
    same. So a continued training needs no generator state."""
    digest = hashlib.sha256(f"{seed} {purpose} {step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
