"""More inner steps than θ was trained for, each kept only where it helped. For serving only.

B = streams in batch, S = support pairs (padded), D = source dim, E = target dim, K = inner steps
(those trained for)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.learner import Learner, State, Support, select_streams
from model.losses import Loss, value
from model.mappings.mlp import Mlp, apply_batched


@dataclass(frozen=True, slots=True)
class ExtraSteps:
    """Runs `inner` through its K steps, then on for up to `extra` more.

    A stream whose support loss did not fall in an extra step is set back to where it was and stops:
    more steps never make its support loss worse than after K. The memory begins with the best loss
    and with whether the stream goes on, once there are both.
    """

    inner: Learner
    trained_steps: int
    extra: int
    objective: Objective

    @property
    def loss(self) -> Loss:
        """See Learner."""
        return self.objective.loss

    def init(self, start: Mlp, support: Support) -> State:
        """See Learner."""
        return self.inner.init(start, support)

    def step(self, state: State, support: Support) -> State:
        """See Learner."""
        if state.step < self.trained_steps:
            state = self.inner.step(state, support)
            return state if state.step < self.trained_steps else self._with_best(state, support)
        best_B, active_B, *memory = state.memory
        tried = self.inner.step(state._replace(memory=tuple(memory)), support)
        loss_B = self._support_loss(tried.mlp, support)
        fell_B = active_B & tried.healthy_B & (loss_B < best_B)
        return State(
            mlp=select_streams(fell_B, tried.mlp, state.mlp),
            healthy_B=state.healthy_B,
            step=tried.step,
            memory=(torch.where(fell_B, loss_B, best_B), fell_B, *tried.memory),
        )

    def terminate(self, state: State) -> bool:
        """See Learner."""
        if state.step < self.trained_steps:
            return False
        done = state.step >= self.trained_steps + self.extra
        return done or not bool(state.memory[1].any())

    def _with_best(self, state: State, support: Support) -> State:
        loss_B = self._support_loss(state.mlp, support)
        return state._replace(memory=(loss_B, state.healthy_B, *state.memory))

    def _support_loss(self, mlp: Mlp, support: Support) -> Tensor:
        _, activation, output_activation = self.objective
        o_BSE = apply_batched(mlp, support.x_BSD, activation, output_activation)
        return value(self.loss, o_BSE, support.y_BSE, support.real_BS)
