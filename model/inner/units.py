"""The units of a stream's pairs, measured on its support: what the inner loop sees has size 1.

B = streams in batch, S = support pairs (padded), D = source dim, E = target dim, X = source or
target dim

A θ works on sources and targets of about unit size in each dimension, with rates and decisions to
fit. Whatever a user's are measured in, the inner loop adapts f̂ to x̂ = (x − z)/r, ŷ = (y − c)/s
instead, and the mapping that comes out is f(x) = s·f̂((x − z)/r) + c, folded into its weights.

*The centre* is a share w of the support's mean m. With n pairs and variance v = Σ|x − m|²/(n − 1),
the mean is F = |m|²/v large, of which 1/n is expected of chance alone, and USUAL is what a mean
may have that belongs to the data, so that a θ knows it:

    w = 1 − ((1/n + USUAL)/F)², or 0 where that is negative

So a mean that stands out is subtracted, and one that does not is left, which matters with few
pairs: their mean says little, and to subtract it always costs much. In between nothing jumps.

*The scale* is the root mean square of what is left of the support: of targets always. Sources that
lie within a factor of FAMILIAR of unit size are what a trained θ has met: it keeps them.

*A trained θ's sources* had a mean μ and a spread ρ, which it may tell (`UsualSources`). A stream is
then moved to μ and not to 0: z = w·(m − r·μ), so that x̂ has the mean μ where w = 1. F is measured
from r·μ, the scale is that at which x̂ has the spread ρ, and little is left to USUAL: NEAR_USUAL.

*A θ that was never meta-trained* knows nothing of sources. It gets all of them standardised: their
whole mean is subtracted, and their scale is always divided by.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.learner import Support
from model.mappings.mlp import Mlp

USUAL = 0.35
NEAR_USUAL = 0.1
"""The same of sources, around the mean of those that θ was trained on."""
FAMILIAR = 1.25
LEAST_AROUND = 2.0**-20
"""What pairs may differ by at least, in their mean's size: constant targets give a constant."""
SIZE_OF_ZEROS = 2.0**-60
"""The scale of targets that are all 0: whatever θ′ gives is then 0 too, but for rounding."""
NEAR_ONE = 2.0**-6
"""A scale so near to 1 is taken for 1: what is in units already keeps its bits."""


class SideUnits(NamedTuple):
    """What one side of each stream is divided by, and the share of its mean that is subtracted."""

    scale_B: Tensor
    share_B: Tensor


class Units(NamedTuple):
    """The units of both sides."""

    source: SideUnits
    target: SideUnits


class UsualSources(NamedTuple):
    """The sources that a θ was trained on."""

    mean_D: Tensor
    """μ."""
    spread: float
    """ρ: the root mean squared distance from μ in one dimension."""


class UsualSums(NamedTuple):
    """What usual sources are to a stream's own."""

    onto_B: Tensor
    """m·μ."""
    own: Tensor
    """μ·μ, a scalar."""
    spread: float


class Frame(NamedTuple):
    """Units with the centres themselves."""

    units: Units
    source_centre_B1D: Tensor | None
    """z; None where all streams keep their sources."""
    target_centre_B1E: Tensor
    """c."""


class Sums(NamedTuple):
    """What units of one side are chosen by."""

    n_B: Tensor
    """Pairs of the support."""
    around_B: Tensor
    """Σ|x − m|²."""
    mean_B: Tensor
    """|m|²."""


def target_units(sums: Sums, dim: int) -> SideUnits:
    """Returns the units of targets; the scale is 1 where they are no numbers or out of range."""
    share_B = _share(sums)
    size_B = _size(sums, dim, share_B)
    scale_B = torch.where(size_B == 0.0, SIZE_OF_ZEROS, _usable(size_B))
    return SideUnits(scale_B, share_B)


def source_units(
    sums: Sums, dim: int, *, standardise: bool, usual: UsualSums | None = None
) -> SideUnits:
    """Returns the units of sources: of a θ that wants all `standardise`d, or of a trained one, with
    what is `usual` for it where it tells."""
    if standardise:
        share_B = (sums.n_B > 1).to(sums.mean_B.dtype)
        return SideUnits(_usable(_size(sums, dim, share_B)), share_B)
    if usual is not None:
        return _beside_usual(sums, dim, usual)
    share_B = _share(sums)
    return SideUnits(_familiar(_size(sums, dim, share_B)), share_B)


def _beside_usual(sums: Sums, dim: int, usual: UsualSums) -> SideUnits:
    n_B, around_B, mean_B = sums
    spread_B = (around_B / (dim * (n_B - 1.0).clamp(min=1.0))).sqrt()
    guess_B = _familiar(spread_B / usual.spread)
    away_B = mean_B + guess_B * (guess_B * usual.own - 2.0 * usual.onto_B)
    share_B = _share(Sums(n_B, around_B, away_B.clamp(min=0.0)), NEAR_USUAL)
    # of n usual sources with this share of their mean subtracted
    left_B, square = (1.0 - share_B).square(), usual.spread**2
    shares_B = 1.0 / n_B.clamp(min=1.0)
    expected_B = square * (1.0 - shares_B) + left_B * (square * shares_B + usual.own / dim)
    return SideUnits(_familiar(_size(sums, dim, share_B) / expected_B.sqrt()), share_B)


def _familiar(size_B: Tensor) -> Tensor:
    scale_B = _usable(size_B)
    familiar_B = (scale_B <= FAMILIAR) & (scale_B >= 1.0 / FAMILIAR)
    return torch.where(familiar_B, 1.0, scale_B)


def _share(sums: Sums, usual: float = USUAL) -> Tensor:
    n_B, around_B, mean_B = sums
    variance_B = around_B / (n_B - 1.0).clamp(min=1.0)
    expected_B = (1.0 / n_B.clamp(min=1.0) + usual) * variance_B
    share_B = 1.0 - (expected_B / mean_B).square()
    return torch.where((n_B > 1) & (expected_B < mean_B), share_B, 0.0)


def _size(sums: Sums, dim: int, share_B: Tensor) -> Tensor:
    n_B, around_B, mean_B = sums
    left_B = n_B * (1.0 - share_B).square() * mean_B
    total_B = torch.maximum(around_B + left_B, LEAST_AROUND**2 * n_B * mean_B)
    return (total_B / (n_B * dim)).sqrt()


def _usable(size_B: Tensor) -> Tensor:
    usable_B = size_B.isfinite() & (size_B > 0.0) & ((size_B - 1.0).abs() > NEAR_ONE)
    return torch.where(usable_B, size_B, 1.0)


def frame_of(support: Support, *, standardise: bool, usual: UsualSources | None = None) -> Frame:
    """Returns the frame of every stream's pairs. Padding is ignored.

    `standardise` says that θ was never meta-trained; `usual` are the sources that it was trained
    on, where it tells.
    """
    x_BSD, y_BSE, real_BS = support.cleaned()
    x_mean_B1D, y_mean_B1E = _mean(x_BSD, real_BS), _mean(y_BSE, real_BS)
    source = source_units(
        _sums(x_BSD, x_mean_B1D, real_BS),
        x_BSD.shape[2],
        standardise=standardise,
        usual=None if usual is None else _beside(usual, x_mean_B1D),
    )
    target = target_units(_sums(y_BSE, y_mean_B1E, real_BS), y_BSE.shape[2])
    if usual is not None and not standardise:
        x_mean_B1D = x_mean_B1D - source.scale_B.view(-1, 1, 1) * usual.mean_D
    centre_B1D = _shared(source, x_mean_B1D) if moves_any(source) else None
    return Frame(Units(source, target), centre_B1D, _shared(target, y_mean_B1E))


def moves_any(units: SideUnits) -> bool:
    """Returns whether any stream's side is changed at all. Those that are not keep their bits, so
    what is done to them may be left out."""
    return bool(((units.share_B != 0.0) | (units.scale_B != 1.0)).any())


def mean_target(support: Support) -> Tensor:
    """Returns the mean of each stream's targets (B, 1, E); 0 without pairs."""
    return _mean(support.cleaned().y_BSE, support.real_BS)


def _beside(usual: UsualSources, mean_B1D: Tensor) -> UsualSums:
    onto_B = (mean_B1D.squeeze(1) * usual.mean_D).sum(1)
    return UsualSums(onto_B, usual.mean_D.square().sum(), usual.spread)


def _mean(t_BSX: Tensor, real_BS: Tensor) -> Tensor:
    n_B = real_BS.sum(1).clamp(min=1).to(t_BSX.dtype)
    return t_BSX.sum(1, keepdim=True) / n_B.view(-1, 1, 1)


def _sums(t_BSX: Tensor, mean_B1X: Tensor, real_BS: Tensor) -> Sums:
    around_BSX = (t_BSX - mean_B1X).masked_fill(~real_BS.unsqueeze(2), 0.0)
    squares_B = (t.square().sum((1, 2)) for t in (around_BSX, mean_B1X))
    return Sums(real_BS.sum(1).to(t_BSX.dtype), *squares_B)


def _shared(units: SideUnits, mean_B1X: Tensor) -> Tensor:
    share_B11 = units.share_B.view(-1, 1, 1)
    return torch.where(share_B11 > 0.0, share_B11 * mean_B1X, 0.0)


def with_whole_targets(frame: Frame) -> Frame:
    """Returns the frame with targets as they are: an output activation cannot be scaled inside."""
    ones_B = torch.ones_like(frame.units.target.scale_B)
    whole = SideUnits(ones_B, torch.zeros_like(ones_B))
    return Frame(
        frame.units._replace(target=whole),
        frame.source_centre_B1D,
        torch.zeros_like(frame.target_centre_B1E),
    )


def in_frame(support: Support, frame: Frame) -> Support:
    """Returns the support with sources x̂ and targets ŷ."""
    x_BSD, (source_B11, target_B11) = support.x_BSD, (u.scale_B.view(-1, 1, 1) for u in frame.units)
    if frame.source_centre_B1D is not None:
        x_BSD = (x_BSD - frame.source_centre_B1D) / source_B11
    return support._replace(
        x_BSD=x_BSD, y_BSE=(support.y_BSE - frame.target_centre_B1E) / target_B11
    )


def out_of_frame(mlp: Mlp, frame: Frame) -> Mlp:
    """Returns mappings from x to y, of mappings from x̂ to ŷ without output activation."""
    w1, b1, target_B1 = mlp.w1, mlp.b1, frame.units.target.scale_B.unsqueeze(1)
    if frame.source_centre_B1D is not None:
        w1 = w1 / frame.units.source.scale_B.view(-1, 1, 1)
        b1 = b1 - (w1 * frame.source_centre_B1D).sum(2)  # no order of summation to choose
    b2 = mlp.b2 * target_B1 + frame.target_centre_B1E.squeeze(1)
    return Mlp(w1, b1, mlp.w2 * target_B1.unsqueeze(2), b2)
