"""σ and its first two derivatives as the hidden-space inner loop needs them: into given memory.

B = streams in batch, S = support pairs, H = hidden units
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from model.mappings.mlp import AnyActivation, sigma

_aten = torch.ops.aten


def gain(activation: AnyActivation, dtype: torch.dtype) -> float:
    """Returns the factor that z may come multiplied with, to save `apply_sigma` a pass over it."""
    return 2.0 if activation == "tanh" and dtype == torch.float32 else 1.0


def apply_sigma(
    activation: AnyActivation,
    z_BSH: Tensor,
    out: Tensor | None = None,
    spare: Tensor | None = None,
    *,
    gained: bool = False,
) -> Tensor:
    """Returns σ(z), in `out` (whose streams may lie apart) unless that is None.

    With `out` comes `spare`, contiguous memory of z's shape. `gained` says that z comes multiplied
    with `gain`. float32's tanh is off by at most 2e-7.
    """
    if gain(activation, z_BSH.dtype) == 2.0:
        return _fast_tanh(z_BSH if gained else torch.mul(z_BSH, 2.0, out=out), out)
    if activation == "gelu":
        return _gelu(z_BSH.contiguous(), out, spare)
    if out is not None:
        return _INTO[activation](z_BSH, out)
    # a copy: without gradients (first order), z itself would keep its own
    return z_BSH.clone() if activation == "none" else sigma(activation)(z_BSH)


def sigma_backward(
    activation: AnyActivation, dh_BSH: Tensor, z_BSH: Tensor, h_BSH: Tensor, out: Tensor | None
) -> Tensor:
    """Returns dh ∘ σ′(z), where h = σ(z), in `out` unless that is None; then it is differentiable.

    For the activation "none" that is dh itself.
    """
    if activation == "none":
        return dh_BSH
    op, of = _BACKWARD[activation]
    of_BSH = z_BSH.contiguous() if of == "z" else h_BSH
    arguments = (dh_BSH, of_BSH, *((0,) if activation == "relu" else ()))
    result: Tensor = op(*arguments) if out is None else op.grad_input(*arguments, grad_input=out)
    return result


def sigma_second(
    activation: AnyActivation,
    along_BSH: Tensor,
    dh_BSH: Tensor,
    dz_BSH: Tensor,
    z_BSH: Tensor,
    h_BSH: Tensor,
) -> Tensor | float:
    """Returns along ∘ dh ∘ σ″(z), where dz = dh ∘ σ′(z) and h = σ(z); 0.0 where σ″ is 0."""
    if activation == "tanh":  # σ″ = −2·h·σ′
        return (along_BSH * dz_BSH).mul_(h_BSH).mul_(-2.0)
    if activation == "sigmoid":  # σ″ = (1 − 2·h)·σ′
        return (along_BSH * dz_BSH).mul_(1.0 - 2.0 * h_BSH)
    if activation == "gelu":  # σ″ = φ(z)·(2 − z²), φ the normal density
        square_BSH = z_BSH.square()
        density_BSH = torch.exp(-0.5 * square_BSH).mul_((2.0 * math.pi) ** -0.5)
        return (along_BSH * dh_BSH).mul_(density_BSH).mul_(2.0 - square_BSH)
    return 0.0


def _fast_tanh(twice_z_BSH: Tensor, out: Tensor | None) -> Tensor:
    """2·sigmoid(2z) − 1: off by at most 2e-7, and cheaper than torch's float32 tanh."""
    h_BSH = torch.sigmoid(twice_z_BSH, out=out)
    return torch.add(_minus_one(h_BSH.device), h_BSH, alpha=2.0, out=out)


@cache
def _minus_one(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(-1.0, device=device)


def _gelu(z_BSH: Tensor, out: Tensor | None, spare: Tensor | None) -> Tensor:
    """Contiguous to contiguous: for those torch (2.15, float32 on a CPU) has a kernel with bits of
    its own, which ignores the strides of an `out` that is not."""
    if out is None:
        return sigma("gelu")(z_BSH)
    return out.copy_(_aten.gelu.out(z_BSH, out=spare))


_INTO: dict[AnyActivation, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda z, out: out.copy_(z),
    "relu": lambda z, out: torch.clamp(z, min=0.0, out=out),
    "tanh": lambda z, out: torch.tanh(z, out=out),
    "sigmoid": lambda z, out: torch.sigmoid(z, out=out),
}
_BACKWARD: dict[AnyActivation, tuple[Any, Literal["z", "h"]]] = {
    "relu": (_aten.threshold_backward, "h"),
    "gelu": (_aten.gelu_backward, "z"),
    "tanh": (_aten.tanh_backward, "h"),
    "sigmoid": (_aten.sigmoid_backward, "h"),
}
