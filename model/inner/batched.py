"""The gradients of many streams at once, hand-derived, and plain descent along them.

B = streams in batch, S = support pairs (padded), D = source dim, H = hidden units, E = target dim,
K = inner steps, O = outputs of a layer, I = inputs of a layer

The same mathematics as `model.inner.reference`, with every stream's parameters materialised:

    z = W1·x + b1,  h = σ(z),  a = W2·h + b2,  o = σo(a)
    d  = ∂L/∂o ∘ σo′(a) on real pairs, 0 on padded ones          (∂L/∂o: `model.losses`)
    ∇W2 = dᵀ·h,  ∇b2 = Σ d,  dz = (d·W2) ∘ σ′(z),  ∇W1 = dzᵀ·x,  ∇b1 = Σ dz

Everything is an ordinary differentiable torch operation, so the outer loop gets exact
second-order gradients through it. No operation mixes streams: one stream's NaN stays its own.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.learner import Support
from model.losses import MSE, Loss, output_gradient
from model.mappings.mlp import (
    AnyActivation,
    Mlp,
    expand,
    hidden_batched,
    output_batched,
    sigma,
    sigma_prime,
)


class Objective(NamedTuple):
    """What steps lower: a loss of the outputs, and the activations that those come through."""

    loss: Loss
    activation: AnyActivation
    output_activation: AnyActivation


class GradientFactors(NamedTuple):
    """The gradients of all four tensors, as factors of outer products: dz·xᵀ, Σ dz, d·hᵀ, Σ d."""

    h_BSH: Tensor
    d_BSE: Tensor
    dz_BSH: Tensor


def backward(mlp: Mlp, support: Support, objective: Objective) -> GradientFactors:
    """Returns every stream's gradient at its own parameters; padded pairs must be finite."""
    z_BSH = hidden_batched(mlp, support.x_BSD)
    h_BSH = sigma(objective.activation)(z_BSH)
    d_BSE = head_gradient(mlp, h_BSH, support, objective)
    dz_BSH = torch.bmm(d_BSE, mlp.w2)
    if objective.activation != "none":
        dz_BSH = dz_BSH * sigma_prime(objective.activation)(z_BSH)
    return GradientFactors(h_BSH, d_BSE, dz_BSH)


def head_gradient(mlp: Mlp, h_BSH: Tensor, support: Support, objective: Objective) -> Tensor:
    """Returns the loss's gradient in the outputs before σo, a, (B, S, E)."""
    a_BSE = output_batched(mlp, h_BSH)
    name = objective.output_activation
    d_BSE = output_gradient(objective.loss, sigma(name)(a_BSE), support.y_BSE, support.real_BS)
    return d_BSE if name == "none" else d_BSE * sigma_prime(name)(a_BSE)


def gradients(mlp: Mlp, support: Support, objective: Objective) -> Mlp:
    """Returns every stream's gradient at its own parameters, one tensor for each of θ's four."""
    h_BSH, d_BSE, dz_BSH = backward(mlp, support, objective)
    return Mlp(
        w1=torch.bmm(dz_BSH.transpose(1, 2), support.x_BSD),
        b1=dz_BSH.sum(1),
        w2=torch.bmm(d_BSE.transpose(1, 2), h_BSH),
        b2=d_BSE.sum(1),
    )


def descended(mlp: Mlp, x_BSD: Tensor, factors: GradientFactors, rate_4: Tensor) -> Mlp:
    """Returns every stream's parameters one step down, θ − α ∘ ∇L_S.

    `rate_4` is α for w1, b1, w2, b2. It meets the small factor: no gradient is ever written out.
    """
    h_BSH, d_BSE, dz_BSH = factors
    w1, b1 = layer_descended(mlp.w1, mlp.b1, dz_BSH, x_BSD, rate_4[:2])
    return Mlp(w1, b1, *layer_descended(mlp.w2, mlp.b2, d_BSE, h_BSH, rate_4[2:]))


def layer_descended(
    w_BOI: Tensor, b_BO: Tensor, d_BSO: Tensor, input_BSI: Tensor, rate_2: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns one layer (O outputs, I inputs) a step down, by the rates of weights and biases."""
    step_BOS = (d_BSO * -rate_2[0]).transpose(1, 2)
    return torch.baddbmm(w_BOI, step_BOS, input_BSI), b_BO - rate_2[1] * d_BSO.sum(1)


def adapt_batched(
    theta: Mlp,
    rates_K4: Tensor,
    x_BSD: Tensor,
    y_BSE: Tensor,
    real_BS: Tensor,
    activation: AnyActivation,
    output_activation: AnyActivation = "none",
    loss: Loss = MSE,
) -> Mlp:
    """Returns θ′ of every stream after K steps from one shared θ, stacked along a leading B.

    `real_BS` is true on real pairs; whatever stands in padded ones (NaN included) changes nothing.
    A stream without real pairs keeps θ; one that diverges is not stopped here (`model.inner.sgd`).
    """
    support = Support(x_BSD, y_BSE, real_BS).cleaned()
    objective = Objective(loss, activation, output_activation)
    mlp = expand(theta, x_BSD.shape[0])
    for rate_4 in rates_K4:
        mlp = descended(mlp, support.x_BSD, backward(mlp, support, objective), rate_4)
    return mlp
