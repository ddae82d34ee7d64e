"""The inner loop on any differentiable mapping, batched over streams by autograd.

B = streams in batch, S = support pairs (padded), D = source dim, E = target dim,
K = inner steps

    θ_{k+1} = θ_k − α_k ∘ ∇L_S(θ_k)

One call of autograd gives every stream's gradient: each has its own copy of the parameters, so
the gradient of the losses' sum with respect to stream b's copy is that of stream b's loss alone.
One stream's NaN stays its own.

A step's rates α are one number for all parameters (MAML, Finn et al. 2017, eq. 1), one per
parameter tensor (after Antoniou et al. 2019), or one per parameter, of θ's own shapes, any sign
(Meta-SGD, Li et al. 2017, eq. 2). Mappings are known by their parameters, a tuple of tensors with
a leading B, and a function of those and the inputs; for a network of layers that is

    lambda tensors, x: deep.apply_batched(deep.layered(tensors), x, "relu")

A one-hidden-layer mapping has its gradients written out (`model.inner.batched`), which is faster.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.inner.learner import Support
from model.losses import masked_mean_squared_error

Parameters = tuple[Tensor, ...]
Forward = Callable[[Parameters, Tensor], Tensor]
"""(parameters with a leading B, x (B, S, D)) to outputs (B, S, E); mixes no streams."""
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(outputs, targets, real) to a loss per stream (B)."""
Rates = float | Tensor | Sequence[Tensor]
"""One step's: a number (0-d tensor), or a tensor per parameter tensor, 0-d or of its shape
(without B, or with it for rates of each stream's own)."""


def adapt(
    forward: Forward,
    theta: Parameters,
    rates_K: Sequence[Rates],
    support: Support,
    *,
    second_order: bool,
    loss: Loss = masked_mean_squared_error,
) -> Parameters:
    """θ′ of every stream after K steps, stacked along a leading B.

    `theta` is one mapping's parameters, shared by all streams. With `second_order` the result is
    differentiable in θ and the rates exactly (MAML); without, the inner gradients count as
    constants (FOMAML). A stream without real pairs keeps θ. Raises ValueError when a step's rates
    are neither one nor one per parameter tensor.
    """
    streams = len(support.x_BSD)
    parameters = tuple(tensor.expand(streams, *tensor.shape) for tensor in theta)
    for rates in rates_K:
        parameters = step(forward, parameters, rates, support, second_order=second_order, loss=loss)
    return parameters


def step(
    forward: Forward,
    parameters: Parameters,
    rates: Rates,
    support: Support,
    *,
    second_order: bool,
    loss: Loss = masked_mean_squared_error,
) -> Parameters:
    """One inner step of every stream from its own parameters. See `adapt`."""
    found = gradients(forward, parameters, support, second_order=second_order, loss=loss)
    each = _per_tensor(rates, len(parameters))
    return tuple(t - rate * g for t, rate, g in zip(parameters, each, found, strict=True))


def gradients(
    forward: Forward,
    parameters: Parameters,
    support: Support,
    *,
    second_order: bool,
    loss: Loss = masked_mean_squared_error,
) -> Parameters:
    """∇L_S of every stream at its own parameters; constants unless `second_order`."""
    with torch.enable_grad():
        at = tuple(_leaf(tensor, keep=second_order) for tensor in parameters)
        padded_BS1 = ~support.real_BS.unsqueeze(2)
        outputs = forward(at, support.x_BSD.masked_fill(padded_BS1, 0.0))
        targets = support.y_BSE.masked_fill(padded_BS1, 0.0)
        losses_B = loss(outputs, targets, support.real_BS)
        return torch.autograd.grad(losses_B.sum(), at, create_graph=second_order)


def _leaf(tensor: Tensor, *, keep: bool) -> Tensor:
    """Something to differentiate at; `keep` its history where it has one."""
    return tensor if keep and tensor.requires_grad else tensor.detach().requires_grad_()


def _per_tensor(rates: Rates, tensors: int) -> Sequence[float | Tensor]:
    if isinstance(rates, float) or (isinstance(rates, Tensor) and rates.ndim == 0):
        return [rates] * tensors
    if isinstance(rates, Tensor) or len(rates) != tensors:
        raise ValueError(f"rates are neither one number nor {tensors} tensors, one per parameter")
    return rates
