"""σ and its derivative where the hidden-space inner loop needs them: into given memory.

C = streams in a chunk, S = support pairs, H = hidden
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
    """What z may come multiplied with, to spare `forward` a pass over it."""
    return 2.0 if activation == "tanh" and dtype == torch.float32 else 1.0


def forward(
    activation: AnyActivation,
    z_CSH: Tensor,
    out: Tensor | None = None,
    spare: Tensor | None = None,
    *,
    gained: bool = False,
) -> Tensor:
    """σ(z), into `out` (whose streams may lie apart) unless that is None; `spare` is contiguous.

    `gained`: z comes multiplied with `gain`.
    """
    if gain(activation, z_CSH.dtype) == 2.0:
        return _fast_tanh(z_CSH if gained else torch.mul(z_CSH, 2.0, out=out), out)
    if activation == "gelu":
        return _gelu(z_CSH.contiguous(), out, spare)
    if out is not None:
        return _INTO[activation](z_CSH, out)
    # a copy: without gradients (first order), z itself would keep its own
    return z_CSH.clone() if activation == "none" else sigma(activation)(z_CSH)


def backward(
    activation: AnyActivation, dh_CSH: Tensor, z_CSH: Tensor, h_CSH: Tensor, out: Tensor | None
) -> Tensor:
    """dh ∘ σ′(z), where h = σ(z); differentiable in all of them."""
    if activation == "none":
        return dh_CSH
    op, of = _BACKWARD[activation]
    of_CSH = z_CSH.contiguous() if of == "z" else h_CSH
    arguments = (dh_CSH, of_CSH, *((0,) if activation == "relu" else ()))
    result: Tensor = op(*arguments) if out is None else op.grad_input(*arguments, grad_input=out)
    return result


def second(
    activation: AnyActivation,
    along_CSH: Tensor,
    dh_CSH: Tensor,
    dz_CSH: Tensor,
    z_CSH: Tensor,
    h_CSH: Tensor,
) -> Tensor | float:
    """along ∘ dh ∘ σ″(z), where dz = dh ∘ σ′(z) and h = σ(z)."""
    if activation == "tanh":  # σ″ = −2·h·σ′
        return (along_CSH * dz_CSH).mul_(h_CSH).mul_(-2.0)
    if activation == "sigmoid":  # σ″ = (1 − 2·h)·σ′
        return (along_CSH * dz_CSH).mul_(1.0 - 2.0 * h_CSH)
    if activation == "gelu":  # σ″ = φ(z)·(2 − z²), φ the normal density
        square_CSH = z_CSH.square()
        density_CSH = torch.exp(-0.5 * square_CSH).mul_((2.0 * math.pi) ** -0.5)
        return (along_CSH * dh_CSH).mul_(density_CSH).mul_(2.0 - square_CSH)
    return 0.0


def _fast_tanh(twice_z_CSH: Tensor, out: Tensor | None) -> Tensor:
    """2·sigmoid(2z) − 1: off by at most 2e-7, and cheaper than torch's float32 tanh."""
    h_CSH = torch.sigmoid(twice_z_CSH, out=out)
    return torch.add(_minus_one(h_CSH.device), h_CSH, alpha=2.0, out=out)


@cache
def _minus_one(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(-1.0, device=device)


def _gelu(z_CSH: Tensor, out: Tensor | None, spare: Tensor | None) -> Tensor:
    """Contiguous to contiguous: for those torch (2.15, float32 on a CPU) has a kernel with bits of
    its own, which ignores the strides of an `out` that is not."""
    if out is None:
        return sigma("gelu")(z_CSH)
    return out.copy_(_aten.gelu.out(z_CSH, out=spare))


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
