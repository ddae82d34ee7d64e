"""Ridge regression on the support (`model.serving.rival`) judged out of products alone.

C = streams in a chunk, S = support pairs (padded), N = S + queries (padded)

`model.serving.rival` predicts Σ_s w_ns·(y_s − ȳ) + ȳ with w_n = k_n·(K + λI)⁻¹, where K and k_n are
the products of inputs less the support's mean x̄:

    k_ns = (x_n − x̄)·(x_s − x̄) = g_ns − mean_s g_ns − mean_t g_ts + mean_st g_st

That is Σ_s q_ns·y_s with q_ns = w_ns + (1 − Σ_t w_nt)/n over the n real pairs. They sum to 1, so
that it is b2 + Σ_s q_ns·ŷ_s as well. The mapping of a stream that publishes it is made from its raw
pairs (`model.serving.rival.as_mapping`).
"""

import torch
from torch import Tensor

from model.inner.hidden.loop import Projected, Terms
from model.inner.hidden.losses import Outputs, loss_of
from model.losses import Loss


def ridge_losses(terms: Terms, projected: Projected, penalty: float, loss: Loss) -> Tensor:
    """The loss of every pair (C, N) by ridge regression; mse or cosine."""
    size = projected.g_CSN.shape[1]
    q_CNS = combinations(projected, penalty)
    gamma_CNS = projected.gamma_CSN.transpose(1, 2)
    t_CS1 = projected.t_CN[:, :size].unsqueeze(2)
    # without a pair it predicts 0: less b2 that is −b2
    b_C1 = -(~projected.real_CN[:, :size].any(1, keepdim=True)).to(q_CNS.dtype)
    oo_CN = (torch.bmm(q_CNS, projected.gamma_CSN[:, :, :size]) * q_CNS).sum(2)
    outputs = Outputs(
        oo_CN + b_C1.square() * terms.bb,
        (q_CNS * gamma_CNS).sum(2) + b_C1 * projected.t_CN,
        torch.bmm(q_CNS, t_CS1).squeeze(2) + b_C1 * terms.bb,
    )
    return loss_of(terms, projected, outputs, loss)


def combinations(projected: Projected, penalty: float) -> Tensor:
    """q (C, N, S): each prediction as a combination of the support's targets."""
    size = projected.g_CSN.shape[1]
    real_CS = projected.real_CN[:, :size].to(projected.g_CSN.dtype)
    share_CS = real_CS / real_CS.sum(1, keepdim=True).clamp(min=1.0)
    k_CNS = _centred(projected.g_CSN, share_CS, real_CS)
    identity_SS = torch.eye(size, dtype=k_CNS.dtype, device=k_CNS.device)
    factor_CSS, _ = torch.linalg.cholesky_ex(k_CNS[:, :size] + penalty * identity_SS)
    w_CNS = torch.cholesky_solve(k_CNS.transpose(1, 2), factor_CSS).transpose(1, 2)
    return w_CNS * real_CS.unsqueeze(1) + (1.0 - w_CNS.sum(2, keepdim=True)) * share_CS.unsqueeze(1)


def _centred(g_CSN: Tensor, share_CS: Tensor, real_CS: Tensor) -> Tensor:
    """k (C, N, S): 0 where s is padded (and where n is padded support)."""
    size = g_CSN.shape[1]
    mean_CN1 = torch.bmm(g_CSN.transpose(1, 2), share_CS.unsqueeze(2))
    mean_C1S = mean_CN1[:, :size].transpose(1, 2)
    mean_C11 = torch.bmm(mean_C1S, share_CS.unsqueeze(2))
    k_CNS = (g_CSN.transpose(1, 2) - mean_CN1 - mean_C1S + mean_C11) * real_CS.unsqueeze(1)
    support_CSS = k_CNS[:, :size] * real_CS.unsqueeze(2)
    return torch.cat([support_CSS, k_CNS[:, size:]], 1)
