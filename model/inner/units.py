"""The units of a stream's targets, measured on its support: what the inner loop sees has size 1.

B = streams in batch, S = support pairs (padded), E = target dim

A θ was meta-trained on targets of about unit size in each dimension, with rates and decisions to
fit. Whatever a user's targets are measured in, the inner loop adapts to ŷ = (y − c)/s instead, and
the second layer that comes out is multiplied with s, its bias moved by c. s is the root mean square
of the support's targets. c is 0, unless the targets' mean stands out: with n pairs, mean ȳ and
variance v = Σ|y − ȳ|²/(n − 1), the size of the mean beyond chance is

    effect = (n·|ȳ|²/v − 1)/n

and above CENTRE_FROM c is ȳ, which costs too much of a few pairs to be subtracted always.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.learner import Support
from model.mappings.mlp import Mlp

CENTRE_FROM = 1.5
LEAST_AROUND = 2.0**-20
"""What targets may differ by at least, in their mean's size: constant ones give a constant."""
NEAR_ONE = 2.0**-6
"""A scale so near to 1 is taken for 1: targets in units keep their bits."""


class Units(NamedTuple):
    """What each stream's targets are divided by, and whether their mean is subtracted before."""

    scale_B: Tensor
    centred_B: Tensor


class Frame(NamedTuple):
    """Units with the centre itself: ŷ = (y − centre)/scale."""

    units: Units
    centre_B1E: Tensor
    """0 where targets are not centred."""


class Sums(NamedTuple):
    """What units are chosen by."""

    n_B: Tensor
    """Pairs of the support."""
    squares_B: Tensor
    """Σ|y|²."""
    around_B: Tensor
    """Σ|y − ȳ|²."""
    mean_B: Tensor
    """|ȳ|²."""


def choose_units(sums: Sums, target_dim: int, centred_B: Tensor | None = None) -> Units:
    """Returns each stream's units; the scale is 1 where targets are 0, no numbers or out of range.

    `centred_B` says which are centred, instead of the effect of their mean.
    """
    n_B, squares_B, around_B, mean_B = sums
    if centred_B is None:
        chance_B = (CENTRE_FROM * n_B + 1.0) * around_B
        centred_B = (n_B > 1) & (n_B * (n_B - 1.0) * mean_B > chance_B)
    least_B = LEAST_AROUND**2 * n_B * mean_B
    total_B = torch.where(centred_B, torch.maximum(around_B, least_B), squares_B)
    size_B = (total_B / (n_B * target_dim)).sqrt()
    usable_B = size_B.isfinite() & (size_B > 0.0) & ((size_B - 1.0).abs() > NEAR_ONE)
    return Units(torch.where(usable_B, size_B, 1.0), centred_B)


def frame_of(support: Support, centred_B: Tensor | None = None) -> Frame:
    """Returns the frame of every stream's targets; `choose_units` says how. Padding is ignored."""
    _, y_BSE, real_BS = support.cleaned()
    n_B = real_BS.sum(1).to(y_BSE.dtype)
    mean_B1E = mean_target(support)
    around_BSE = (y_BSE - mean_B1E).masked_fill(~real_BS.unsqueeze(2), 0.0)
    squares = (y_BSE.square().sum((1, 2)), around_BSE.square().sum((1, 2)))
    sums = Sums(n_B, *squares, mean_B1E.square().sum((1, 2)))
    units = choose_units(sums, y_BSE.shape[2], centred_B)
    centred_B11 = units.centred_B.view(-1, 1, 1)
    return Frame(units, torch.where(centred_B11, mean_B1E, torch.zeros_like(mean_B1E)))


def mean_target(support: Support) -> Tensor:
    """Returns the mean of each stream's targets (B, 1, E); 0 without pairs."""
    _, y_BSE, real_BS = support.cleaned()
    n_B = real_BS.sum(1).clamp(min=1).to(y_BSE.dtype)
    return y_BSE.sum(1, keepdim=True) / n_B.view(-1, 1, 1)


def whole_units(support: Support) -> Frame:
    """Returns the frame in which targets are what they are."""
    ones_B = torch.ones_like(support.y_BSE[:, 0, 0])
    units = Units(ones_B, torch.zeros_like(ones_B, dtype=torch.bool))
    return Frame(units, torch.zeros_like(support.y_BSE[:, :1]))


def in_frame(support: Support, frame: Frame) -> Support:
    """Returns the support with targets ŷ."""
    scale_B11 = frame.units.scale_B.view(-1, 1, 1)
    return support._replace(y_BSE=(support.y_BSE - frame.centre_B1E) / scale_B11)


def out_of_frame(mlp: Mlp, frame: Frame) -> Mlp:
    """Returns mappings to y, of mappings to ŷ without output activation."""
    scale_B1 = frame.units.scale_B.unsqueeze(1)
    b2 = mlp.b2 * scale_B1 + frame.centre_B1E.squeeze(1)
    return Mlp(mlp.w1, mlp.b1, mlp.w2 * scale_B1.unsqueeze(2), b2)
