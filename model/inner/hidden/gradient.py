"""The losses' gradients in hidden space: out of products of outputs and targets, never of vectors.

C = streams in a chunk, S = support pairs (padded), H = hidden, E = target dim, A = anchors

The losses of `model.losses` but mse see outputs O and targets Y through c_ij = u_i·v_j,
u = o/√(|o|² + ε), v = y/√(|y|² + ε), and the gradient of n times the loss (n real pairs) is

    (Σ_j dc_ij·v_j − u_i·Σ_j dc_ij·c_ij)/√(|o_i|² + ε),   dc = ∂(n·L)/∂c

that is diag(b)·O + C·Y with b_i = −Σ_j dc_ij·c_ij/(|o_i|² + ε) and
C_ij = dc_ij/(√(|o_i|² + ε)·√(|y_j|² + ε)).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.hidden.span import Anchors, Parts, targets
from model.losses import EPSILON, SAME_TARGET, Loss, ranking_gradient


class Products(NamedTuple):
    """Of outputs and targets with their biases, pair by pair."""

    oo_CS: Tensor
    oy_CSS: Tensor
    yy_CSS: Tensor


def pair_weights(loss: Loss, target_dim: int, real_CS: Tensor, dtype: torch.dtype) -> Tensor:
    """Minus what every pair's gradient is multiplied with (C, S); 0 on padded pairs."""
    scale = -2.0 / target_dim if loss.kind == "mse" else -1.0
    one_CS = real_CS.to(dtype)
    return one_CS * (scale / one_CS.sum(1, keepdim=True).clamp_(min=1.0))


def direction(loss: Loss, o: Parts, g: Parts, at: Anchors, real_CS: Tensor) -> tuple[Tensor, Parts]:
    """The gradient's coefficients (C, S, V) and products, from the outputs'; anchors with b2."""
    size = real_CS.shape[1]
    y = Parts(*(p[:, :size] + p[:, size : size + 1] for p in (at.r_CAH, at.gram_CAA)))
    b_CS1, c_CSS = gradient(loss, products(o, g, y), real_CS)
    targets_SA = targets(size, o.a.dtype, o.a.device)
    c_a = torch.baddbmm(b_CS1 * o.a, c_CSS, targets_SA.expand(len(c_CSS), -1, -1))
    g_h, g_a = (torch.baddbmm(b_CS1 * p_o, c_CSS, p_y) for p_o, p_y in zip(g, y, strict=True))
    return torch.cat([b_CS1 * o.h, c_a], 2), Parts(g_h, g_a)


def products(o: Parts, g: Parts, y: Parts) -> Products:
    """From the outputs' coefficients and products and the targets' products."""
    size = o.h.shape[1]
    oo_CS = (o.h * g.h).sum(2) + (o.a * g.a).sum(2)
    oy_CSS, yy_CSS = (part.a[:, :, :size] + part.a[:, :, size, None] for part in (g, y))
    return Products(oo_CS, oy_CSS, yy_CSS)


def gradient(loss: Loss, products: Products, real_CS: Tensor) -> tuple[Tensor, Tensor]:
    """b (C, S, 1) and C (C, S, S) of any loss but mse."""
    oo_CS, oy_CSS, yy_CSS = products
    inverse_o_CS1 = (oo_CS + EPSILON).rsqrt().unsqueeze(2)
    inverse_y_C1S = (yy_CSS.diagonal(dim1=1, dim2=2) + EPSILON).rsqrt().unsqueeze(1)
    cosines_CSS = oy_CSS * inverse_o_CS1 * inverse_y_C1S
    if loss.kind == "cosine":
        dc_CSS = -torch.eye(oo_CS.shape[1], dtype=oo_CS.dtype, device=oo_CS.device)
    else:
        with torch.no_grad():
            target_cosines_CSS = yy_CSS * inverse_y_C1S * inverse_y_C1S.transpose(1, 2)
            candidates_CSS = candidates(target_cosines_CSS, real_CS)
        dc_CSS = ranking_gradient(loss, cosines_CSS, candidates_CSS)
    b_CS1 = -(dc_CSS * cosines_CSS).sum(2, keepdim=True) * inverse_o_CS1.square()
    return b_CS1, dc_CSS * inverse_o_CS1 * inverse_y_C1S


def candidates(cosines_CSS: Tensor, real_CS: Tensor) -> Tensor:
    """True where target j is pair i's own or one of its negatives (`model.losses`)."""
    own_SS = torch.eye(cosines_CSS.shape[1], dtype=torch.bool, device=cosines_CSS.device)
    other_CSS = cosines_CSS <= SAME_TARGET
    return (other_CSS | own_SS) & real_CS.unsqueeze(1) & real_CS.unsqueeze(2)
