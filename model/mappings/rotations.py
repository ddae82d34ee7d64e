"""Orthogonal matrices, batched, from fixed sequences of products: no data-dependent path.

B = streams in batch, one matrix each, E = its side, P = directions, F = E·E

Every matrix is computed by the same products in the same order whatever else is in the batch (of
`torch.matrix_exp` that is not so: it sorts the batch by norm). NaN stays in its own matrix.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

SQUARINGS = 5
"""2⁵: a matrix of norm up to 16 is scaled to 0.5 before the series."""
TERMS = 7
"""0.5⁸/8! = 1e-7: what the series leaves out is below float32's rounding."""
MAX_COORDINATES = 12.0
"""Largest norm of a manifold's coordinates: more than any of the generators as they begin, of norm
about 1.4, needs to go round, and within what `expm` is accurate for."""
POLAR_STEPS = 10
"""A singular value of 0.05 (against the largest, about) gets to 1; much smaller ones stay small."""


def expm(a_BEE: Tensor) -> Tensor:
    """Returns the matrix exponential (B, E, E), by a Taylor series with scaling and squaring.

    Moler and Van Loan 2003, method 3, at fixed orders: accurate for norms up to 16.
    """
    x_BEE = a_BEE / 2.0**SQUARINGS
    one_BEE = torch.eye(a_BEE.shape[2], dtype=a_BEE.dtype, device=a_BEE.device).expand_as(a_BEE)
    r_BEE = one_BEE
    for term in range(TERMS, 0, -1):
        r_BEE = one_BEE + torch.bmm(x_BEE, r_BEE) / term
    for _ in range(SQUARINGS):
        r_BEE = torch.bmm(r_BEE, r_BEE)
    return r_BEE


def expm_with_derivatives(a_BEE: Tensor, directions_PEE: Tensor) -> tuple[Tensor, Tensor]:
    """Returns expm(a), and ∂expm(a + t·D_p)/∂t at t = 0 for each direction D_p (B, P, E, E).

    They are the products of `expm`, differentiated one by one.
    """
    streams, side, _ = a_BEE.shape
    count = len(directions_PEE)
    shape = (streams, count, side, side)

    def for_each_direction(m_BEE: Tensor) -> Tensor:
        return m_BEE.unsqueeze(1).expand(shape).reshape(-1, side, side)

    dx = (directions_PEE / 2.0**SQUARINGS).expand(shape).reshape(-1, side, side)
    x_BEE = a_BEE / 2.0**SQUARINGS
    x = for_each_direction(x_BEE)
    one_BEE = torch.eye(side, dtype=a_BEE.dtype, device=a_BEE.device).expand_as(a_BEE)
    r_BEE, dr = one_BEE, torch.zeros_like(dx)
    for term in range(TERMS, 0, -1):
        dr = (torch.bmm(dx, for_each_direction(r_BEE)) + torch.bmm(x, dr)) / term
        r_BEE = one_BEE + torch.bmm(x_BEE, r_BEE) / term
    for _ in range(SQUARINGS):
        r = for_each_direction(r_BEE)
        dr = torch.bmm(dr, r) + torch.bmm(r, dr)
        r_BEE = torch.bmm(r_BEE, r_BEE)
    return r_BEE, dr.view(shape)


def towards_orthogonal(m_BEE: Tensor, steps: int = POLAR_STEPS) -> Tensor:
    """Returns the matrix pulled towards its nearest orthogonal one: singular values go to 1.

    Newton-Schulz, X ← 1.5·X − 0.5·X·Xᵀ·X (Björck and Bowie 1971). Singular values that are small
    against the largest stay small: what the support says nothing about is left out, and a matrix
    of zeros stays zero.
    """
    gram_BEE = torch.bmm(m_BEE.transpose(1, 2), m_BEE)
    # the 4-norm of the singular values: no less than the largest, and closer to it than Frobenius
    norm_B11 = gram_BEE.square().sum((1, 2), keepdim=True).clamp(min=1e-30).sqrt().sqrt()
    x_BEE = m_BEE / norm_B11
    for _ in range(steps):
        gram_BEE = torch.bmm(x_BEE.transpose(1, 2), x_BEE)
        x_BEE = 1.5 * x_BEE - 0.5 * torch.bmm(x_BEE, gram_BEE)
    return x_BEE


class Manifold(nn.Module):
    """A learned family of rotations with few degrees of freedom: expm(Σ a_p·(G_p − G_pᵀ))."""

    def __init__(self, count: int, dim: int, side: int, refinements: int) -> None:
        """Makes a family of `count` degrees of freedom; dims beyond `dim` stay as they are."""
        super().__init__()
        self.generators_PEE = nn.Parameter(torch.randn(count, dim, dim) * 0.5 / math.sqrt(dim))
        self._idle = side - dim
        self.log_damping = nn.Parameter(torch.tensor(-2.0))
        self._refinements = refinements

    def forward(self, a_BP: Tensor, uu_BEE: Tensor, yu_BEE: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the rotations (B, E, E) that map u to y best, and their coordinates (B, P).

        The search begins at coordinates `a_BP`.

        `uu_BEE` = Σ w·u·uᵀ and `yu_BEE` = Σ w·y·uᵀ over a stream's pairs are all that the squared
        error Σ w·|y − R(a)·u|² needs. The search is Gauss-Newton with a learned damping
        (Levenberg 1944). Where it converges, the minimum no longer depends on its start; the
        gradient accordingly passes a step's Jacobian by, and reaches `a_BP` as if unmoved.
        """
        directions_PEE = self.generators_PEE - self.generators_PEE.transpose(1, 2)
        directions_PEE = functional.pad(directions_PEE, (0, self._idle, 0, self._idle))
        for _ in range(self._refinements):
            a_BP = within(MAX_COORDINATES, a_BP + self._step(a_BP, directions_PEE, uu_BEE, yu_BEE))
        return expm(_combined(a_BP, directions_PEE)), a_BP

    def _step(self, a_BP: Tensor, directions_PEE: Tensor, uu_BEE: Tensor, yu_BEE: Tensor) -> Tensor:
        """(JᵀJ + μ)⁻¹·Jᵀ·residual, of the residuals y − R·u and their derivatives in a."""
        streams, count = a_BP.shape
        with torch.no_grad():
            r_BEE, dr_BPEE = expm_with_derivatives(_combined(a_BP, directions_PEE), directions_PEE)
            dr_BPF = dr_BPEE.flatten(2)
            druu_BPF = torch.bmm(dr_BPEE.flatten(1, 2), uu_BEE).view(streams, count, -1)
            normal_BPP = torch.bmm(dr_BPF, druu_BPF.transpose(1, 2))
        descent_BEE = yu_BEE - torch.bmm(r_BEE, uu_BEE)
        right_BP1 = times_vector(dr_BPF, descent_BEE.flatten(1)).unsqueeze(2)
        damping = functional.softplus(self.log_damping)
        one_PP = torch.eye(count, dtype=a_BP.dtype, device=a_BP.device)
        return solve_small(normal_BPP + damping * one_PP, right_BP1).squeeze(2)


def solve(left_BEE: Tensor, right_BEF: Tensor) -> Tensor:
    """Returns left⁻¹·right; a matrix that is singular or not finite spoils its own stream alone."""
    # torch.linalg.solve would raise for the whole batch
    solution: Tensor = torch.linalg.solve_ex(left_BEE, right_BEF)[0]
    return solution


def within(radius: float, a_BP: Tensor) -> Tensor:
    """Returns the vectors, those longer than `radius` shortened to it."""
    length_B1 = a_BP.square().sum(1, keepdim=True).clamp(min=1e-30).sqrt()
    return a_BP * (radius / length_B1).clamp(max=1.0)


def times_vector(m_BEF: Tensor, v_BF: Tensor) -> Tensor:
    """Returns each stream's matrix times its vector (B, E), by sums over rows.

    A `bmm` with one column takes another routine for one stream than for several.
    """
    return (m_BEF * v_BF.unsqueeze(1)).sum(2)


def solve_small(left_BPP: Tensor, right_BP1: Tensor) -> Tensor:
    """Returns left⁻¹·right of small positive definite matrices, by Gauss-Jordan without pivoting.

    Elementwise operations alone: LAPACK's bits depend on where in memory so small a matrix starts.
    """
    count = left_BPP.shape[2]
    rows_BPR = torch.cat([left_BPP, right_BP1], dim=2)
    others_PP = 1.0 - torch.eye(count, dtype=left_BPP.dtype, device=left_BPP.device)
    for p in range(count):
        pivot_B1R = rows_BPR[:, p : p + 1] / rows_BPR[:, p : p + 1, p : p + 1]
        factor_BP1 = rows_BPR[:, :, p : p + 1] * others_PP[p, :, None]
        here_P1 = 1.0 - others_PP[p, :, None]
        rows_BPR = (rows_BPR - factor_BP1 * pivot_B1R) * others_PP[p, :, None] + pivot_B1R * here_P1
    return rows_BPR[:, :, count:]


def _combined(a_BP: Tensor, directions_PEE: Tensor) -> Tensor:
    # a product of small odd shapes could sum in another order for another batch; this cannot
    return (a_BP.unsqueeze(2).unsqueeze(3) * directions_PEE).sum(1)
