"""The inner loop for ONE stream, as the textbook has it: the oracle of every faster form.

S = support pairs, N = pairs of a stream, D = source dim, E = target dim, K = inner steps

MAML's inner loop (Finn et al. 2017, eq. 1) with one learned rate per step and per tensor (after
Antoniou et al. 2019): θ_{k+1} = θ_k − α_k ∘ ∇L_S(θ_k), the gradient by autograd. With rates 0 for
w1 and b1 it is ANIL's.
"""

import torch
from torch import Tensor

from model.losses import MSE, Loss, value
from model.mappings.mlp import AnyActivation, Mlp, apply


def adapt_one_stream(
    theta: Mlp,
    rates_K4: Tensor,
    x_support_SD: Tensor,
    y_support_SE: Tensor,
    activation: AnyActivation,
    output_activation: AnyActivation = "none",
    loss: Loss = MSE,
    first_order: bool = False,
) -> Mlp:
    """Returns θ′ after K steps of gradient descent on the support.

    The result is differentiable with respect to `theta` and `rates_K4` if those require gradients:
    in second order, or with the inner gradients as constants (`first_order`).
    """
    differentiable = rates_K4.requires_grad or any(tensor.requires_grad for tensor in theta)
    mlp = Mlp(*(t if t.requires_grad else t.detach().requires_grad_() for t in theta))
    for rate_4 in rates_K4:
        o_SE = apply(mlp, x_support_SD, activation, output_activation)
        support_loss = one_stream(loss, o_SE, y_support_SE)
        gradients = torch.autograd.grad(
            support_loss, mlp, create_graph=differentiable and not first_order, retain_graph=True
        )
        moved = (t - rate * g for t, rate, g in zip(mlp, rate_4.unbind(), gradients, strict=True))
        mlp = Mlp(*moved) if differentiable else Mlp(*(t.detach().requires_grad_() for t in moved))
    return mlp if differentiable else Mlp(*(tensor.detach() for tensor in mlp))


def one_stream(loss: Loss, o_NE: Tensor, y_NE: Tensor) -> Tensor:
    """Returns the loss of one stream without padding, a scalar tensor."""
    real_1N = torch.ones(1, len(o_NE), dtype=torch.bool, device=o_NE.device)
    return value(loss, o_NE.unsqueeze(0), y_NE.unsqueeze(0), real_1N).squeeze(0)
