"""Adam as the inner loop, as in the article that adaptd started from (Kingma & Ba 2015, alg. 1).

B = streams in batch, K = inner steps

    m ← β1·m + (1 − β1)·g,  v ← β2·v + (1 − β2)·g²,  m̂ = m/(1 − β1^t),  v̂ = v/(1 − β2^t)
    θ ← θ − α · m̂ / √(v̂ + ε²)

ε stands under the root: √v̂ + ε, as usual, has no derivative where a gradient is 0 (a dead unit),
and the outer loop needs one. The two differ by less than ε beside a gradient far above ε.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from model.inner.batched import Objective, gradients
from model.inner.learner import State, Support, first_state, stepped
from model.losses import Loss
from model.mappings.mlp import Mlp


@dataclass(frozen=True, slots=True)
class AdamSteps:
    """Takes steps of bias-corrected Adam, whose moments start at 0 in every stream and episode."""

    rates_K4: Tensor
    """Columns w1, b1, w2, b2: about how far each number moves in a step."""
    objective: Objective
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    """ε, in units of a gradient's numbers; 1/ε bounds the curvature where a gradient is 0."""
    first_order: bool = False
    """The outer gradient takes the inner gradients for constants."""

    @property
    def loss(self) -> Loss:
        """See Learner."""
        return self.objective.loss

    def init(self, start: Mlp, support: Support) -> State:
        """See Learner. The memory holds the four first moments, then the four second."""
        zeros = [torch.zeros_like(tensor, requires_grad=False) for tensor in start]
        return first_state(start, *zeros, *zeros)

    def step(self, state: State, support: Support) -> State:
        """See Learner. Beyond K steps the last step's rates are used."""
        with torch.no_grad() if self.first_order else nullcontext():
            gradient = gradients(state.mlp, support, self.objective)
        rate_4 = self.rates_K4[min(state.step, len(self.rates_K4) - 1)]
        (beta1, beta2), t = self.betas, state.step + 1
        pairs = list(zip(state.memory[:4], state.memory[4:], gradient, strict=True))
        m_4 = [m.lerp(g, 1.0 - beta1) for m, _, g in pairs]
        v_4 = [(beta2 * v).addcmul(g, g, value=1.0 - beta2) for _, v, g in pairs]
        correction1, correction2 = 1.0 - beta1**t, 1.0 - beta2**t
        scale_4 = rate_4 * (-(correction2**0.5) / correction1)
        eps = self.eps**2 * correction2
        tensors = zip(state.mlp, scale_4, m_4, v_4, strict=True)
        # both bias corrections taken out of the quotient: fewer passes over memory
        mlp = Mlp(*(torch.addcmul(p, m * scale, (v + eps).rsqrt()) for p, scale, m, v in tensors))
        return stepped(state, mlp, *m_4, *v_4)

    def terminate(self, state: State) -> bool:
        """See Learner."""
        return state.step >= len(self.rates_K4)
