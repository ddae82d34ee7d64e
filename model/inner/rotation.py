"""Orthogonal Procrustes about 0, with the best scale, for many streams at once, from Grams.

B = streams in batch, S = support pairs (padded)

    minimise over W = c·R:  Σ |W·x − y|²,  R the orthogonal factor of M = Σ y·xᵀ

R is what M becomes when all its singular values are made 1 (Schönemann 1966), and given R the best
c has a closed form. With K and C the Grams of sources X and of targets Y, and their Cholesky
factors, K = F·Fᵀ and C = G·Gᵀ, the rows of F⁻¹·X and of G⁻¹·Y are orthonormal. So M has the
singular values of T = Gᵀ·F, and where T becomes R̂,

    R·x = (G⁻¹·Y)ᵀ · N·R̂ · F⁻¹·X·x

To the Grams a little δ is added, so that they have such factors even where pairs depend on each
other. N = G⁻¹·C·G⁻ᵀ = I − δ·G⁻¹·G⁻ᵀ leaves out the rows that are δ's alone.

No singular values are computed: a polynomial with odd powers, applied again and again to T/|T|, in
which they are at most 1, brings them all near 1 (Björck and Bowie 1971; the large first steps are
those of Jordan et al., "Muon", 2024). Directions in which the support says nothing, as with fewer
pairs than dims, are mapped to 0: a rotation completed at will would invent something there.

It is about 0 because there it finds what ridge regression, which is centred, does not: of vectors
of unit norm, say, the mean is part of what is turned.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.inner.leave_one_out import mean_diagonal

LEAST = 3e-6
"""What is added to the Grams, in units of their mean diagonal, so that they have Cholesky factors:
what is smaller is rounding of float32."""
WIDENING = (3.4445, -4.775, 2.0315)
"""Factors of T, T·TᵀT and T·(TᵀT)² in the first steps, which take singular values above 0.001 to
between 0.6 and 1.2."""
SETTLING = (1.875, -1.25, 0.375)
"""The same in the last steps: an error of e becomes one of about 2.5·e³."""
STEPS = (WIDENING,) * 6 + (SETTLING,) * 3


class RotationDual(NamedTuple):
    """The fit, W = (from_targets·Y)ᵀ·from_sources·X. NaN where it cannot be computed."""

    from_sources_BSS: Tensor
    """c·N·R̂·F⁻¹."""
    from_targets_BSS: Tensor
    """G⁻¹."""
    inner_BSS: Tensor
    """N, the products of the rows of G⁻¹·Y."""


def fit_rotation(k_BSS: Tensor, c_BSS: Tensor, real_BS: Tensor) -> RotationDual:
    """Returns the fit of each stream, from Grams whose padded rows and columns are 0."""
    n_B = real_BS.sum(1).clamp(min=1).to(k_BSS.dtype)
    k_unit_B11, c_unit_B11 = (mean_diagonal(t, n_B).view(-1, 1, 1) for t in (k_BSS, c_BSS))
    k_BSS, c_BSS = k_BSS / k_unit_B11, c_BSS / c_unit_B11
    (f_BSS, f_inverse_BSS), (g_BSS, g_inverse_BSS) = (_factored(t) for t in (k_BSS, c_BSS))
    identity_SS = torch.eye(k_BSS.shape[1], dtype=k_BSS.dtype, device=k_BSS.device)
    inner_BSS = torch.baddbmm(
        identity_SS, g_inverse_BSS, g_inverse_BSS.transpose(1, 2), alpha=-LEAST
    )
    turn_BSS = torch.bmm(inner_BSS, _orthogonal(torch.bmm(g_BSS.transpose(1, 2), f_BSS)))
    # G⁻¹·Y of the support's targets, and what its sources become there; no large numbers to cancel
    meant_BSS = g_BSS.transpose(1, 2) - LEAST * g_inverse_BSS
    made_BSS = torch.bmm(turn_BSS, f_BSS.transpose(1, 2) - LEAST * f_inverse_BSS)
    onto_B11 = (made_BSS * meant_BSS).sum((1, 2), keepdim=True)
    own_B11 = (torch.bmm(inner_BSS, made_BSS) * made_BSS).sum((1, 2), keepdim=True)
    scale_B11 = torch.where(own_B11 == 0.0, 0.0, onto_B11 / own_B11)
    root_B11 = c_unit_B11.sqrt()
    from_sources_BSS = scale_B11 * root_B11 / k_unit_B11 * torch.bmm(turn_BSS, f_inverse_BSS)
    return RotationDual(from_sources_BSS, g_inverse_BSS / root_B11, inner_BSS)


def _factored(gram_BSS: Tensor) -> tuple[Tensor, Tensor]:
    """The Cholesky factor and its inverse, made in float64; NaN where there is none."""
    identity_SS = torch.eye(gram_BSS.shape[1], dtype=torch.float64, device=gram_BSS.device)
    factor_BSS, info_B = torch.linalg.cholesky_ex(gram_BSS + LEAST * identity_SS)
    failed_B11 = ((info_B != 0) | ~gram_BSS.sum((1, 2)).isfinite()).view(-1, 1, 1)
    factor_BSS = torch.where(failed_B11, identity_SS, factor_BSS)
    inverse_BSS = torch.linalg.solve_triangular(factor_BSS, identity_SS, upper=False)
    inverse_BSS = inverse_BSS.masked_fill(failed_B11, torch.nan)
    return factor_BSS.to(gram_BSS.dtype), inverse_BSS.to(gram_BSS.dtype)


def _orthogonal(t_BSS: Tensor) -> Tensor:
    """The orthogonal factor."""
    size_B11 = t_BSS.square().sum((1, 2), keepdim=True).sqrt()
    t_BSS = t_BSS / size_B11
    for own, third, fifth in STEPS:
        square_BSS = torch.bmm(t_BSS.transpose(1, 2), t_BSS)
        by_BSS = torch.baddbmm(square_BSS, square_BSS, square_BSS, beta=third, alpha=fifth)
        t_BSS = torch.baddbmm(t_BSS, t_BSS, by_BSS, beta=own)
    return t_BSS
