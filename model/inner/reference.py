"""The inner loop for ONE stream, as the textbook has it: the oracle of every faster form.

S = support pairs, D = source dim, E = target dim, K = inner steps

MAML's inner loop (Finn et al. 2017, eq. 1) with one learned rate per step and per tensor (after
Antoniou et al. 2019): θ_{k+1} = θ_k − α_k ∘ ∇L_S(θ_k).
"""

import torch
from torch import Tensor

from model.losses import mean_squared_error
from model.mappings.mlp import Activation, Mlp, apply


def adapt(
    theta: Mlp,
    rates_K4: Tensor,
    x_support_SD: Tensor,
    y_support_SE: Tensor,
    activation: Activation,
) -> Mlp:
    """θ′ after K steps of gradient descent on the support.

    The result is differentiable with respect to `theta` and `rates_K4` (second order), if those
    require gradients.
    """
    differentiable = rates_K4.requires_grad or any(tensor.requires_grad for tensor in theta)
    mlp = Mlp(*(t if t.requires_grad else t.detach().requires_grad_() for t in theta))
    for rate_4 in rates_K4:
        loss = mean_squared_error(apply(mlp, x_support_SD, activation), y_support_SE)
        gradients = torch.autograd.grad(loss, mlp, create_graph=differentiable)
        moved = (t - rate * g for t, rate, g in zip(mlp, rate_4.unbind(), gradients, strict=True))
        mlp = Mlp(*moved) if differentiable else Mlp(*(t.detach().requires_grad_() for t in moved))
    return mlp if differentiable else Mlp(*(tensor.detach() for tensor in mlp))
