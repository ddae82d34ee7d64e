"""R2D2: the head in closed form, a ridge regression on hidden features (Bertinetto et al. 2019).

B = streams in batch, S = support pairs (padded), H = hidden units, E = target dim

    argmin over W2, b2 of  Σ_i |W2·h_i + b2 − y_i|² + λw·|W2 − W2₀|² + λb·|b2 − b2₀|²

The prior W2₀, b2₀ is the start's own head (θ's, or a generator's): few pairs move it little. In
the dual, with R the start's residual on the support and 1 = 1 on real pairs, 0 on padded ones:

    C = (I + H·Hᵀ/λw + 1·1ᵀ/λb)⁻¹·R,  W2 = W2₀ + Cᵀ·H/λw,  b2 = b2₀ + Σ C/λb

The matrix (S, S) has no eigenvalue below 1, whatever the features: padded pairs and idle hidden
units are rows of the identity, or nothing. λw and λb are learned as logarithms.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.learner import State, Support, first_state, stepped
from model.inner.sgd import support_features
from model.losses import Loss, masked_residual
from model.mappings.mlp import Mlp, output_batched


@dataclass(frozen=True, slots=True)
class RidgeHead:
    """Solves for w2 and b2 in one step: least squares, whatever the loss, which then only judges.

    The output activation must be none.
    """

    log_penalties_2: Tensor
    """log λw, log λb."""
    objective: Objective

    @property
    def loss(self) -> Loss:
        """See Learner."""
        return self.objective.loss

    def init(self, start: Mlp, support: Support) -> State:
        """See Learner."""
        return first_state(start)

    def step(self, state: State, support: Support) -> State:
        """See Learner."""
        mlp = state.mlp
        real_BS1 = support.real_BS.unsqueeze(2)
        h_BSH = support_features(mlp, support, self.objective).masked_fill(~real_BS1, 0.0)
        ones_BS1 = real_BS1.to(h_BSH.dtype)
        residual_BSE = masked_residual(support.y_BSE, output_batched(mlp, h_BSH), support.real_BS)
        precision_w, precision_b = (-self.log_penalties_2).exp().unbind()
        c_BSE = _solve(h_BSH, ones_BS1, residual_BSE, precision_w, precision_b)
        w2 = torch.baddbmm(mlp.w2, (c_BSE * precision_w).transpose(1, 2), h_BSH)
        return stepped(state, Mlp(mlp.w1, mlp.b1, w2, mlp.b2 + precision_b * c_BSE.sum(1)))

    def terminate(self, state: State) -> bool:
        """See Learner."""
        return state.step >= 1


def _solve(
    h_BSH: Tensor, ones_BS1: Tensor, r_BSE: Tensor, precision_w: Tensor, precision_b: Tensor
) -> Tensor:
    """C (B, S, E); a stream that cannot be solved gets NaN or infinity."""
    identity_SS = torch.eye(h_BSH.shape[1], dtype=h_BSH.dtype, device=h_BSH.device)
    gram_BSS = torch.bmm(h_BSH, h_BSH.transpose(1, 2)) * precision_w
    gram_BSS = gram_BSS + torch.bmm(ones_BS1, ones_BS1.transpose(1, 2)) * precision_b
    c_BSE: Tensor = torch.linalg.solve_ex(gram_BSS + identity_SS, r_BSE).result
    return c_BSE
