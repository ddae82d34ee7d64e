"""R2D2 and ALPaCA: the head in closed form, a ridge regression on hidden features.

B = streams in batch, S = support pairs (padded), H = hidden units, E = target dim, U = numbers of
an embedding (rows of the covariance factor)

*r2d2* (Bertinetto et al. 2019) shrinks all changes of the head alike:

    argmin over W2, b2 of  Σ_i |W2·h_i + b2 − y_i|² + λw·|W2 − W2₀|² + λb·|b2 − b2₀|²

The prior W2₀, b2₀ is the start's own head (θ's, or a generator's): few pairs move it little. In
the dual, with R the start's residual on the support and 1 = 1 on real pairs, 0 on padded ones:

    C = (I + H·Hᵀ/λw + 1·1ᵀ/λb)⁻¹·R,  W2 = W2₀ + Cᵀ·H/λw,  b2 = b2₀ + Σ C/λb

*alpaca* (Harrison et al. 2018) learns which changes streams have in common: W2 = W2₀ + V·P with a
learned factor P (U, H), and |V|² is shrunk. With φ = P·h for h, and Φ for H:

    C = (I + Φ·Φᵀ/λw + 1·1ᵀ/λb)⁻¹·R,  W2 = W2₀ + Cᵀ·Φ·P/λw,  b2 = b2₀ + Σ C/λb

*Two readings.* Bayesian linear regression: every row of W2 is normal a priori, around that of W2₀
with the covariance PᵀP/λw, pairs have noise of variance 1, and what is computed is the posterior
mean (Rasmussen and Williams 2006, §2.1). A Gaussian process: θ is the mean function, and the kernel
k(x, x′) = φ(x)·φ(x′)/λw + 1/λb is learned (§2.2, §2.7). So λ, which these papers learn by marginal
likelihood, is learned with P by the query's loss instead.

The matrix (S, S) has no eigenvalue below 1, whatever the features: padded pairs and idle hidden
units are rows of the identity, or nothing. λw and λb are learned as logarithms.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

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
    factor_UH: Tensor | None = None
    """P; None for the identity, r2d2. Hidden units beyond its columns are idle."""

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
        phi_BSU, moved_BSH = kernel_features(h_BSH, self.factor_UH)
        c_BSE = _solve(phi_BSU, ones_BS1, residual_BSE, precision_w, precision_b)
        w2 = torch.baddbmm(mlp.w2, (c_BSE * precision_w).transpose(1, 2), moved_BSH)
        return stepped(state, Mlp(mlp.w1, mlp.b1, w2, mlp.b2 + precision_b * c_BSE.sum(1)))

    def terminate(self, state: State) -> bool:
        """See Learner."""
        return state.step >= 1


def kernel_features(h_BSH: Tensor, factor_UH: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns Φ (B, S, U), and Φ·P (B, S, H) by whose rows W2 moves."""
    if factor_UH is None:
        return h_BSH, h_BSH
    streams, _, hidden = h_BSH.shape
    factor_UH = functional.pad(factor_UH, (0, hidden - factor_UH.shape[1]))
    factor_BUH = factor_UH.expand(streams, -1, -1)
    phi_BSU = torch.bmm(h_BSH, factor_BUH.transpose(1, 2))
    return phi_BSU, torch.bmm(phi_BSU, factor_BUH)


def _solve(
    phi_BSU: Tensor, ones_BS1: Tensor, r_BSE: Tensor, precision_w: Tensor, precision_b: Tensor
) -> Tensor:
    """C (B, S, E); a stream that cannot be solved gets NaN or infinity."""
    identity_SS = torch.eye(phi_BSU.shape[1], dtype=phi_BSU.dtype, device=phi_BSU.device)
    gram_BSS = torch.bmm(phi_BSU, phi_BSU.transpose(1, 2)) * precision_w
    gram_BSS = gram_BSS + torch.bmm(ones_BS1, ones_BS1.transpose(1, 2)) * precision_b
    c_BSE: Tensor = torch.linalg.solve_ex(gram_BSS + identity_SS, r_BSE).result
    return c_BSE
