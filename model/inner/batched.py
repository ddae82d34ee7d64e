"""The inner loop for many streams at once, with hand-derived gradients.

B = streams in batch, S = support pairs (padded), D = source dim, H = hidden, E = target dim,
K = inner steps

The same mathematics as `model.inner.reference`, with every stream's parameters materialised and
the gradients of the masked MSE written out:

    z = W1·x + b1,  h = σ(z),  o = W2·h + b2
    D  = 2/(n·E) · (o − y) on real pairs, 0 on padded ones
    ∇W2 = Dᵀ·h,  ∇b2 = Σ D,  dz = (D·W2) ∘ σ′(z),  ∇W1 = dzᵀ·x,  ∇b1 = Σ dz

Everything is an ordinary differentiable torch operation, so the outer loop gets exact
second-order gradients through it. No operation mixes streams: one stream's NaN stays its own.
"""

import torch
from torch import Tensor

from model.losses import masked_residual, pair_weight
from model.mappings.mlp import (
    Activation,
    Mlp,
    expand,
    hidden_batched,
    output_batched,
    sigma,
    sigma_prime,
)


def adapt(
    theta: Mlp,
    rates_K4: Tensor,
    x_BSD: Tensor,
    y_BSE: Tensor,
    real_BS: Tensor,
    activation: Activation,
) -> Mlp:
    """θ′ of every stream after K steps, stacked along a leading B.

    `theta` is one mapping shared by all streams. `real_BS` is true on real pairs; whatever stands
    in `x_BSD` and `y_BSE` on padded pairs (NaN included) changes nothing. A stream without real
    pairs keeps θ. Streams do not influence each other.
    """
    x_BSD = x_BSD.masked_fill(~real_BS.unsqueeze(2), 0.0)
    y_BSE = y_BSE.masked_fill(~real_BS.unsqueeze(2), 0.0)
    mlp = expand(theta, x_BSD.shape[0])
    for rate_4 in rates_K4:
        gradients = support_gradients(mlp, x_BSD, y_BSE, real_BS, activation)
        rates = rate_4.unbind()
        mlp = Mlp(*(t - rate * g for t, rate, g in zip(mlp, rates, gradients, strict=True)))
    return mlp


def support_gradients(
    mlp: Mlp, x_BSD: Tensor, y_BSE: Tensor, real_BS: Tensor, activation: Activation
) -> Mlp:
    """∇L_S of every stream at its own parameters; padded pairs must hold finite numbers."""
    z_BSH = hidden_batched(mlp, x_BSD)
    h_BSH = sigma(activation)(z_BSH)
    residual_BSE = masked_residual(output_batched(mlp, h_BSH), y_BSE, real_BS)
    weight_B11 = pair_weight(real_BS, y_BSE.shape[2], like=y_BSE).view(-1, 1, 1)
    d_BSE = residual_BSE * (2.0 * weight_B11)
    dz_BSH = torch.bmm(d_BSE, mlp.w2) * sigma_prime(activation)(z_BSH)
    return Mlp(
        w1=torch.bmm(dz_BSH.transpose(1, 2), x_BSD),
        b1=dz_BSH.sum(1),
        w2=torch.bmm(d_BSE.transpose(1, 2), h_BSH),
        b2=d_BSE.sum(1),
    )
