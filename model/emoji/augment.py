"""Augmentation: pictures as another vendor might draw them, so that an encoder learns to ignore
the difference.

R = rows (pictures), C = channels (3 colours), P = pixels a side

All changes work on ink (R, 3, P, P) in 0..1, 0 on paper, and draw from the generator alone. None
flips a picture: left and right mean something. The colour and contour changes are of the kind that
generalises to unseen styles (domain randomisation, Tobin et al., arXiv:1703.06907).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# the YIQ colour space: brightness, and a plane of chroma in which hue is an angle
_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))

Change = Callable[[Tensor, torch.Generator], Tensor]


def redrawn(ink_RCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Apply all of the changes below, each to a part of the pictures."""
    ink_RCPP = sometimes(0.3, thicker_or_thinner, ink_RCPP, generator)
    ink_RCPP = recoloured(warped(ink_RCPP, generator), generator)
    ink_RCPP = sometimes(0.15, outlined, ink_RCPP, generator)
    ink_RCPP = sometimes(0.3, blurred_or_sharpened, ink_RCPP, generator)
    return sometimes(0.25, with_a_hole, ink_RCPP, generator)


def sometimes(
    probability: float, change: Change, ink_RCPP: Tensor, generator: torch.Generator
) -> Tensor:
    """Apply a change to each picture with this probability. Returns a copy."""
    chosen = torch.nonzero(torch.rand(len(ink_RCPP), generator=generator) < probability).flatten()
    ink_RCPP = ink_RCPP.clone()
    if len(chosen):
        ink_RCPP[chosen] = change(ink_RCPP[chosen], generator)
    return ink_RCPP


def mixed(
    ink_RCPP: Tensor, other_RCPP: Tensor, probability: float, generator: torch.Generator
) -> Tensor:
    """Mix each picture, with this probability, with another of the same concept: half the time as a
    blend (mixup, arXiv:1710.09412), half the time with a box cut from the other (CutMix,
    1905.04899)."""
    n = len(ink_RCPP)
    over_RCPP = torch.lerp(ink_RCPP, other_RCPP, _uniform(generator, 0.0, 1.0, n, 1, 1, 1))
    box_R1PP = _boxes(n, ink_RCPP.shape[-1], 6.0, 20.0, generator)
    cut_RCPP = torch.where(box_R1PP, other_RCPP, ink_RCPP)
    draw_R111 = torch.rand(n, 1, 1, 1, generator=generator)
    either_RCPP = torch.where(draw_R111 < probability / 2, over_RCPP, cut_RCPP)
    return torch.where(draw_R111 < probability, either_RCPP, ink_RCPP)


def warped(ink_RCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Change size, proportion, angle, slant and place, and bend smoothly; 0 comes in from
    outside."""
    n, _, height, width = ink_RCPP.shape
    size_R = torch.exp(_uniform(generator, math.log(0.75), math.log(1.3), n))
    aspect_R = torch.exp(_uniform(generator, -0.12, 0.12, n))
    angle_R, slant_R = _uniform(generator, -0.25, 0.25, n), _uniform(generator, -0.15, 0.15, n)
    shift_R2 = _uniform(generator, -0.15, 0.15, n, 2)
    cos_R, sin_R = torch.cos(angle_R), torch.sin(angle_R)
    wide_R, high_R = size_R * aspect_R, size_R / aspect_R
    row0_R3 = torch.stack([cos_R * wide_R, slant_R - sin_R * high_R, shift_R2[:, 0]], 1)
    row1_R3 = torch.stack([sin_R * wide_R, cos_R * high_R, shift_R2[:, 1]], 1)
    grid_RPP2 = functional.affine_grid(
        torch.stack([row0_R3, row1_R3], 1), [n, 3, height, width], align_corners=False
    )
    bend = 0.06 * torch.randn(n, 2, 4, 4, generator=generator)
    bend = bend * torch.rand(n, 1, 1, 1, generator=generator)
    bend = functional.interpolate(bend, (height, width), mode="bilinear", align_corners=True)
    grid_RPP2 = grid_RPP2 + bend.permute(0, 2, 3, 1)
    return functional.grid_sample(ink_RCPP, grid_RPP2, align_corners=False)


def recoloured(ink_RCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Change hue (far away in two of five), saturation (grey in one of seven), contrast and
    gain."""
    n = len(ink_RCPP)
    far_R = torch.rand(n, generator=generator) < 0.4
    turn_R = _uniform(generator, -1.0, 1.0, n) * torch.where(far_R, 1.2, 0.25)
    grey_R = torch.rand(n, generator=generator) < 0.15
    vivid_R = _uniform(generator, 0.5, 1.6, n).masked_fill(grey_R, 0.0)
    ink_RCPP = _turned(ink_RCPP, turn_R, vivid_R).clamp(0.0, 1.0)
    gamma_R111 = torch.exp(_uniform(generator, -0.5, 0.5, n, 1, 1, 1))
    gain_RC11 = _uniform(generator, 0.7, 1.25, n, 1, 1, 1) * _uniform(
        generator, 0.8, 1.2, n, 3, 1, 1
    )
    return (ink_RCPP**gamma_R111 * gain_RC11).clamp(0.0, 1.0)


def thicker_or_thinner(ink_RCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Grow or shrink lines and shapes by up to a pixel."""
    n = len(ink_RCPP)
    grow_R111 = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
    new_RCPP = torch.where(
        grow_R111, _over_3x3(ink_RCPP, torch.maximum), _over_3x3(ink_RCPP, torch.minimum)
    )
    return torch.lerp(ink_RCPP, new_RCPP, _uniform(generator, 0.3, 1.0, n, 1, 1, 1))


def blurred_or_sharpened(ink_RCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Move each pixel towards the mean of its 3 × 3 neighbourhood, or away from it."""
    mean_RCPP = _over_3x3(ink_RCPP, torch.add) / 9.0
    amount_R111 = _uniform(generator, -0.8, 1.0, len(ink_RCPP), 1, 1, 1)
    return torch.lerp(ink_RCPP, mean_RCPP, amount_R111).clamp(0.0, 1.0)


def outlined(ink_RCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the contours in grey: over the picture, or (in two of five) alone."""
    n = len(ink_RCPP)
    grey_R1PP = ink_RCPP.mean(1, keepdim=True)
    edge_R1PP = _over_3x3(grey_R1PP, torch.maximum) - _over_3x3(grey_R1PP, torch.minimum)
    edge_R1PP = (edge_R1PP * _uniform(generator, 1.0, 2.5, n, 1, 1, 1)).clamp(0.0, 1.0)
    alone_R111 = torch.rand(n, 1, 1, 1, generator=generator) < 0.4
    weight_R111 = _uniform(generator, 0.2, 0.8, n, 1, 1, 1).masked_fill(alone_R111, 1.0)
    return torch.lerp(ink_RCPP, edge_R1PP.expand_as(ink_RCPP), weight_R111)


def with_a_hole(ink_RCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Blank a box of 4 to 12 pixels a side (Cutout, arXiv:1708.04552)."""
    box_R1PP = _boxes(len(ink_RCPP), ink_RCPP.shape[-1], 4.0, 12.0, generator)
    return ink_RCPP.masked_fill(box_R1PP, 0.0)


def _turned(ink_RCPP: Tensor, turn_R: Tensor, vivid_R: Tensor) -> Tensor:
    to_yiq = torch.tensor(_TO_YIQ)
    a_R, b_R = turn_R.cos() * vivid_R, turn_R.sin() * vivid_R
    zero_R, one_R = torch.zeros_like(a_R), torch.ones_like(a_R)
    rows = [[one_R, zero_R, zero_R], [zero_R, a_R, -b_R], [zero_R, b_R, a_R]]
    chroma_RCC = torch.stack([torch.stack(row, 1) for row in rows], 1)
    colour_RCC: Tensor = torch.linalg.inv(to_yiq) @ chroma_RCC @ to_yiq
    return (colour_RCC @ ink_RCPP.flatten(2)).view_as(ink_RCPP)


def _boxes(
    n: int, side: int, smallest: float, largest: float, generator: torch.Generator
) -> Tensor:
    """Return a mask (R, 1, P, P) that is true inside one box per picture, centred anywhere."""
    centre_R2 = _uniform(generator, 0.0, float(side), n, 2, 1)
    half_R2 = 0.5 * _uniform(generator, smallest, largest, n, 2, 1)
    inside_R2P = (torch.arange(side) - centre_R2).abs() < half_R2
    return (inside_R2P[:, 0, :, None] & inside_R2P[:, 1, None, :]).unsqueeze(1)


def _over_3x3(x_RCPP: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combine each pixel's 3 × 3 neighbourhood; the border's pixels are repeated beyond it."""
    x = functional.pad(x_RCPP, (1, 1, 1, 1), mode="replicate")
    x = combine(combine(x[..., :-2], x[..., 1:-1]), x[..., 2:])
    return combine(combine(x[..., :-2, :], x[..., 1:-1, :]), x[..., 2:, :])


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator) * (high - low) + low
