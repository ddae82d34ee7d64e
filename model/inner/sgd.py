"""Learners that take plain gradient steps: on all four tensors, or on the head alone.

B = streams in batch, S = support pairs, D = source dim, H = hidden units, E = target dim, K = inner
steps

Rates are learned per step and tensor (Meta-SGD, Li et al. 2017, per tensor instead of per number;
Antoniou et al. 2019). One rate everywhere is MAML's inner loop (Finn et al. 2017, eq. 1).
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from model.inner.batched import Objective, backward, descended, head_gradient, layer_descended
from model.inner.learner import State, Support, first_state, stepped
from model.losses import Loss
from model.mappings.mlp import Mlp, hidden_batched, sigma


@dataclass(frozen=True, slots=True)
class GradientSteps:
    """The inner loop of MAML, FOMAML, Reptile and Meta-SGD, which differ in the outer loop."""

    rates_K4: Tensor
    """Columns w1, b1, w2, b2."""
    objective: Objective
    first_order: bool = False
    """The outer gradient takes the inner gradients for constants (FOMAML); rates still learn."""

    @property
    def loss(self) -> Loss:
        """See Learner."""
        return self.objective.loss

    def init(self, start: Mlp, support: Support) -> State:
        """See Learner."""
        return first_state(start)

    def step(self, state: State, support: Support) -> State:
        """See Learner. Beyond K steps the last step's rates are used."""
        with torch.no_grad() if self.first_order else nullcontext():
            factors = backward(state.mlp, support, self.objective)
        rate_4 = self.rates_K4[min(state.step, len(self.rates_K4) - 1)]
        return stepped(state, descended(state.mlp, support.x_BSD, factors, rate_4))

    def terminate(self, state: State) -> bool:
        """See Learner."""
        return state.step >= len(self.rates_K4)


@dataclass(frozen=True, slots=True)
class HeadSteps:
    """The inner loop of ANIL (Raghu et al. 2020): w2 and b2 alone move, so h is computed once."""

    rates_K2: Tensor
    """Columns w2, b2."""
    objective: Objective
    first_order: bool = False

    @property
    def loss(self) -> Loss:
        """See Learner."""
        return self.objective.loss

    def init(self, start: Mlp, support: Support) -> State:
        """See Learner. The memory holds the hidden features (B, S, H)."""
        return first_state(start, support_features(start, support, self.objective))

    def step(self, state: State, support: Support) -> State:
        """See Learner. Beyond K steps the last step's rates are used."""
        mlp, (h_BSH,) = state.mlp, state.memory
        with torch.no_grad() if self.first_order else nullcontext():
            d_BSE = head_gradient(mlp, h_BSH, support, self.objective)
        rate_2 = self.rates_K2[min(state.step, len(self.rates_K2) - 1)]
        # first order: the gradient dᵀ·h is a constant, hence h in it too
        input_BSH = h_BSH.detach() if self.first_order else h_BSH
        head = layer_descended(mlp.w2, mlp.b2, d_BSE, input_BSH, rate_2)
        return stepped(state, Mlp(mlp.w1, mlp.b1, *head), h_BSH)

    def terminate(self, state: State) -> bool:
        """See Learner."""
        return state.step >= len(self.rates_K2)


def support_features(mlp: Mlp, support: Support, objective: Objective) -> Tensor:
    """Returns the support's hidden features σ(W1·x + b1), (B, S, H)."""
    return sigma(objective.activation)(hidden_batched(mlp, support.x_BSD))
