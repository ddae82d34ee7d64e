"""Augmentation: pictures as another vendor might draw them, so that an encoder learns to ignore
the difference.

N = pictures, C = 3 colours, P = pixels a side

All changes work on ink (N, 3, P, P) in 0..1, 0 on paper, and draw from the generator alone. None
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


def redrawn(ink_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Apply all of the changes below, each to a part of the pictures."""
    ink_NCPP = sometimes(0.3, thicker_or_thinner, ink_NCPP, generator)
    ink_NCPP = recoloured(warped(ink_NCPP, generator), generator)
    ink_NCPP = sometimes(0.15, outlined, ink_NCPP, generator)
    ink_NCPP = sometimes(0.3, blurred_or_sharpened, ink_NCPP, generator)
    return sometimes(0.25, with_a_hole, ink_NCPP, generator)


def sometimes(
    probability: float, change: Change, ink_NCPP: Tensor, generator: torch.Generator
) -> Tensor:
    """Apply a change to each picture with this probability. Returns a copy."""
    chosen = torch.nonzero(torch.rand(len(ink_NCPP), generator=generator) < probability).flatten()
    ink_NCPP = ink_NCPP.clone()
    if len(chosen):
        ink_NCPP[chosen] = change(ink_NCPP[chosen], generator)
    return ink_NCPP


def mixed(
    ink_NCPP: Tensor, other_NCPP: Tensor, probability: float, generator: torch.Generator
) -> Tensor:
    """Mix each picture, with this probability, with another of the same concept: half the time as a
    blend (mixup, arXiv:1710.09412), half the time with a box cut from the other (CutMix,
    1905.04899)."""
    n = len(ink_NCPP)
    over_NCPP = torch.lerp(ink_NCPP, other_NCPP, _uniform(generator, 0.0, 1.0, n, 1, 1, 1))
    box_N1PP = _boxes(n, ink_NCPP.shape[-1], 6.0, 20.0, generator)
    cut_NCPP = torch.where(box_N1PP, other_NCPP, ink_NCPP)
    draw_N111 = torch.rand(n, 1, 1, 1, generator=generator)
    either_NCPP = torch.where(draw_N111 < probability / 2, over_NCPP, cut_NCPP)
    return torch.where(draw_N111 < probability, either_NCPP, ink_NCPP)


def warped(ink_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Change size, proportion, angle, slant and place, and bend smoothly; 0 comes in from
    outside."""
    n, _, height, width = ink_NCPP.shape
    size_N = torch.exp(_uniform(generator, math.log(0.75), math.log(1.3), n))
    aspect_N = torch.exp(_uniform(generator, -0.12, 0.12, n))
    angle_N, slant_N = _uniform(generator, -0.25, 0.25, n), _uniform(generator, -0.15, 0.15, n)
    shift_N2 = _uniform(generator, -0.15, 0.15, n, 2)
    cos_N, sin_N = torch.cos(angle_N), torch.sin(angle_N)
    wide_N, high_N = size_N * aspect_N, size_N / aspect_N
    row0_N3 = torch.stack([cos_N * wide_N, slant_N - sin_N * high_N, shift_N2[:, 0]], 1)
    row1_N3 = torch.stack([sin_N * wide_N, cos_N * high_N, shift_N2[:, 1]], 1)
    grid_NPP2 = functional.affine_grid(
        torch.stack([row0_N3, row1_N3], 1), [n, 3, height, width], align_corners=False
    )
    bend = 0.06 * torch.randn(n, 2, 4, 4, generator=generator)
    bend = bend * torch.rand(n, 1, 1, 1, generator=generator)
    bend = functional.interpolate(bend, (height, width), mode="bilinear", align_corners=True)
    grid_NPP2 = grid_NPP2 + bend.permute(0, 2, 3, 1)
    return functional.grid_sample(ink_NCPP, grid_NPP2, align_corners=False)


def recoloured(ink_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Change hue (far away in two of five), saturation (grey in one of seven), contrast and
    gain."""
    n = len(ink_NCPP)
    far_N = torch.rand(n, generator=generator) < 0.4
    turn_N = _uniform(generator, -1.0, 1.0, n) * torch.where(far_N, 1.2, 0.25)
    grey_N = torch.rand(n, generator=generator) < 0.15
    vivid_N = _uniform(generator, 0.5, 1.6, n).masked_fill(grey_N, 0.0)
    ink_NCPP = _turned(ink_NCPP, turn_N, vivid_N).clamp(0.0, 1.0)
    gamma_N111 = torch.exp(_uniform(generator, -0.5, 0.5, n, 1, 1, 1))
    gain_NC11 = _uniform(generator, 0.7, 1.25, n, 1, 1, 1) * _uniform(
        generator, 0.8, 1.2, n, 3, 1, 1
    )
    return (ink_NCPP**gamma_N111 * gain_NC11).clamp(0.0, 1.0)


def thicker_or_thinner(ink_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Grow or shrink lines and shapes by up to a pixel."""
    n = len(ink_NCPP)
    grow_N111 = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
    new_NCPP = torch.where(
        grow_N111, _over_3x3(ink_NCPP, torch.maximum), _over_3x3(ink_NCPP, torch.minimum)
    )
    return torch.lerp(ink_NCPP, new_NCPP, _uniform(generator, 0.3, 1.0, n, 1, 1, 1))


def blurred_or_sharpened(ink_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Move each pixel towards the mean of its 3 × 3 neighbourhood, or away from it."""
    mean_NCPP = _over_3x3(ink_NCPP, torch.add) / 9.0
    amount_N111 = _uniform(generator, -0.8, 1.0, len(ink_NCPP), 1, 1, 1)
    return torch.lerp(ink_NCPP, mean_NCPP, amount_N111).clamp(0.0, 1.0)


def outlined(ink_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the contours in grey: over the picture, or (in two of five) alone."""
    n = len(ink_NCPP)
    grey_N1PP = ink_NCPP.mean(1, keepdim=True)
    edge_N1PP = _over_3x3(grey_N1PP, torch.maximum) - _over_3x3(grey_N1PP, torch.minimum)
    edge_N1PP = (edge_N1PP * _uniform(generator, 1.0, 2.5, n, 1, 1, 1)).clamp(0.0, 1.0)
    alone_N111 = torch.rand(n, 1, 1, 1, generator=generator) < 0.4
    weight_N111 = _uniform(generator, 0.2, 0.8, n, 1, 1, 1).masked_fill(alone_N111, 1.0)
    return torch.lerp(ink_NCPP, edge_N1PP.expand_as(ink_NCPP), weight_N111)


def with_a_hole(ink_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Blank a box of 4 to 12 pixels a side (Cutout, arXiv:1708.04552)."""
    box_N1PP = _boxes(len(ink_NCPP), ink_NCPP.shape[-1], 4.0, 12.0, generator)
    return ink_NCPP.masked_fill(box_N1PP, 0.0)


def _turned(ink_NCPP: Tensor, turn_N: Tensor, vivid_N: Tensor) -> Tensor:
    to_yiq = torch.tensor(_TO_YIQ)
    a_N, b_N = turn_N.cos() * vivid_N, turn_N.sin() * vivid_N
    zero_N, one_N = torch.zeros_like(a_N), torch.ones_like(a_N)
    rows = [[one_N, zero_N, zero_N], [zero_N, a_N, -b_N], [zero_N, b_N, a_N]]
    chroma_NCC = torch.stack([torch.stack(row, 1) for row in rows], 1)
    colour_NCC: Tensor = torch.linalg.inv(to_yiq) @ chroma_NCC @ to_yiq
    return (colour_NCC @ ink_NCPP.flatten(2)).view_as(ink_NCPP)


def _boxes(
    n: int, side: int, smallest: float, largest: float, generator: torch.Generator
) -> Tensor:
    """Return a mask (N, 1, P, P) that is true inside one box per picture, centred anywhere."""
    centre_N2 = _uniform(generator, 0.0, float(side), n, 2, 1)
    half_N2 = 0.5 * _uniform(generator, smallest, largest, n, 2, 1)
    inside_N2P = (torch.arange(side) - centre_N2).abs() < half_N2
    return (inside_N2P[:, 0, :, None] & inside_N2P[:, 1, None, :]).unsqueeze(1)


def _over_3x3(x_NCPP: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combine each pixel's 3 × 3 neighbourhood; the border's pixels are repeated beyond it."""
    x = functional.pad(x_NCPP, (1, 1, 1, 1), mode="replicate")
    x = combine(combine(x[..., :-2], x[..., 1:-1]), x[..., 2:])
    return combine(combine(x[..., :-2, :], x[..., 1:-1, :]), x[..., 2:, :])


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator) * (high - low) + low
