"""The inner loop as every learner runs it: init, step, terminate, over explicit state.

B = streams in batch, S = support pairs (padded), D = source dim, H = hidden units, E = target dim

A learner takes each stream's start (θ, or what a generator made of θ and the support) to θ′. All
operations are ordinary differentiable torch operations, so that the outer loop's gradient runs
through the code that serves. None mixes streams: a stream that diverges is a result
(`healthy_B` false), never an exception, and leaves its companions as they are, to the bit.

Forward only, that is. Backward, a diverged stream's graph holds NaN, which reaches whatever streams
share (θ, rates): an outer loop leaves streams that are not healthy out and runs the rest again.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from model.losses import Loss
from model.mappings.mlp import Mlp


class Support(NamedTuple):
    """The pairs to adapt on. Padded pairs hold finite numbers and count for nothing."""

    x_BSD: Tensor
    y_BSE: Tensor
    real_BS: Tensor

    def cleaned(self) -> "Support":
        """Returns the same pairs with 0 in padded ones, whatever stood there."""
        padded_BS1 = ~self.real_BS.unsqueeze(2)
        x_BSD, y_BSE = self.x_BSD.masked_fill(padded_BS1, 0), self.y_BSE.masked_fill(padded_BS1, 0)
        return Support(x_BSD, y_BSE, self.real_BS)


class State(NamedTuple):
    """Where the inner loop stands, after `step` steps."""

    mlp: Mlp
    """Every stream's own parameters, stacked along B."""
    healthy_B: Tensor
    """False from the step on at which a stream's parameters stopped being finite; it keeps those
    before that step."""
    step: int = 0
    memory: tuple[Tensor, ...] = ()
    """What the learner carries from step to step: moments, hidden features, best loss so far."""


class Learner(Protocol):
    """One way to adapt."""

    @property
    def loss(self) -> Loss:
        """The loss that steps lower on the support."""

    def init(self, start: Mlp, support: Support) -> State:
        """Returns the state before the first step; `start` is stacked along B."""

    def step(self, state: State, support: Support) -> State:
        """Returns the state after one more inner step of all streams."""

    def terminate(self, state: State) -> bool:
        """Returns whether the inner loop is over for all streams."""


def adapt(learner: Learner, start: Mlp, support: Support) -> State:
    """Runs a learner from `start` to its end, and returns its last state.

    Padded pairs are cleaned here, once, for all steps.
    """
    support = support.cleaned()
    state = learner.init(start, support)
    while not learner.terminate(state):
        state = learner.step(state, support)
    return state


def first_state(start: Mlp, *memory: Tensor) -> State:
    """Returns the state before the first step, every stream healthy.

    A start that is not finite shows after the first step.
    """
    healthy_B = torch.ones(len(start.w1), dtype=torch.bool, device=start.w1.device)
    return State(start, healthy_B, 0, memory)


def stepped(state: State, mlp: Mlp, *memory: Tensor) -> State:
    """Returns the state one step on, with the new parameters and the learner's memory.

    A stream whose new parameters are not finite, now or at an earlier step, stays where it was.
    """
    changed = [new for new, old in zip(mlp, state.mlp, strict=True) if new is not old]
    healthy_B = state.healthy_B & finite(changed)
    if not bool(healthy_B.all()):
        mlp = select_streams(healthy_B, mlp, state.mlp)
    return State(mlp, healthy_B, state.step + 1, memory)


def select_streams(first_B: Tensor, first: Mlp, second: Mlp) -> Mlp:
    """Returns each stream's parameters of `first` where `first_B` is true, else of `second`."""
    return Mlp(
        *(
            torch.where(first_B.view(-1, *[1] * (a.dim() - 1)), a, b)
            for a, b in zip(first, second, strict=True)
        )
    )


def finite(tensors: Sequence[Tensor]) -> Tensor:
    """Returns whether each stream's numbers are finite (B), and their sum too."""
    with torch.no_grad():
        sums = torch.stack([tensor.flatten(1).sum(1) for tensor in tensors])
        return torch.isfinite(sums).all(0)
