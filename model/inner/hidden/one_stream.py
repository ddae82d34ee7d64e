"""Gradient descent in hidden space in twenty lines, for one stream and the mse. Read this first.

S = support pairs, D = source dim, H = hidden units, E = target dim, K = inner steps, V = spanning
rows (H + S)

It is plain gradient descent (`model.inner.reference`) in other coordinates;
`model.inner.hidden.descent` says why they are enough, and numbers the equations. Nothing in the
loop has D or E numbers, so a daemon that keeps p and the products of every pair meets features
again only when a mapping is published. Nothing that serves calls this: tests compare it with the
reference and with the batched descent.
"""

import torch
from torch import Tensor

from model.mappings.mlp import AnyActivation, Mlp, sigma, sigma_prime


def descend_one_stream(
    theta: Mlp, rates_K4: Tensor, x_SD: Tensor, y_SE: Tensor, activation: AnyActivation
) -> Mlp:
    """Returns θ′ after K steps on one stream's support, by the mse; columns of rates as in θ."""
    p_SH, g_SS = x_SD @ theta.w1.T + theta.b1, x_SD @ x_SD.T
    v_VE = torch.cat([theta.w2.T, y_SE - theta.b2])  # W2ᵀ, and ŷ of every pair
    gram_VV = v_VE @ v_VE.T  # [M, Rᵀ; R, Γ]
    a_SH, beta_H, sums_V = torch.zeros_like(p_SH), torch.zeros_like(p_SH[0]), 0.0 * gram_VV[0]
    steps: list[tuple[Tensor, Tensor]] = []  # of every step: h (S, H), and how far it moved W2
    for w1, b1, w2, b2 in -2.0 / y_SE.numel() * rates_K4:
        z_SH = p_SH + g_SS @ a_SH + beta_H  # (1)
        h_SH = sigma(activation)(z_SH)
        c_SV = torch.cat([h_SH, -torch.eye(len(h_SH)).to(h_SH)], 1) + sums_V  # o − ŷ, by (2)
        c_SV = c_SV + sum(h_SH @ past_SH.T @ moved_SV for past_SH, moved_SV in steps)
        products_SV = c_SV @ gram_VV  # of D with V (3)
        dh_SH = products_SV[:, : h_SH.shape[1]]
        dh_SH = dh_SH + sum(products_SV @ moved_SV.T @ past_SH for past_SH, moved_SV in steps)
        dz_SH = dh_SH * sigma_prime(activation)(z_SH)  # (4)
        a_SH, beta_H = a_SH + w1 * dz_SH, beta_H + b1 * dz_SH.sum(0)
        steps, sums_V = [*steps, (h_SH, w2 * c_SV)], sums_V + b2 * c_SV.sum(0)
    return Mlp(
        w1=theta.w1 + a_SH.T @ x_SD,
        b1=theta.b1 + beta_H,
        w2=theta.w2 + sum(v_VE.T @ moved_SV.T @ past_SH for past_SH, moved_SV in steps),
        b2=theta.b2 + v_VE.T @ sums_V,
    )
