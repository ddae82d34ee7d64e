"""Orthogonal matrices, batched, from fixed sequences of products: no data-dependent path.

B = streams in batch (one matrix each), E = target dim (a matrix's side), L = learned numbers in one
vector (coordinates, each with its direction), R = rows (numbers of a flattened matrix, right sides)

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
_GENERATORS = "generators_PEE"
"""The parameter's name in files of θ, where it has to stay what it was."""


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


def expm_with_derivatives(a_BEE: Tensor, directions_LEE: Tensor) -> tuple[Tensor, Tensor]:
    """Returns expm(a), and ∂expm(a + t·D_l)/∂t at t = 0 for each direction D_l (B, L, E, E).

    They are the products of `expm`, differentiated one by one.
    """
    streams, side, _ = a_BEE.shape
    count = len(directions_LEE)
    shape = (streams, count, side, side)

    def for_each_direction(m_BEE: Tensor) -> Tensor:
        return m_BEE.unsqueeze(1).expand(shape).reshape(-1, side, side)

    dx = (directions_LEE / 2.0**SQUARINGS).expand(shape).reshape(-1, side, side)
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
    """A learned family of rotations with few degrees of freedom: expm(Σ a_l·(G_l − G_lᵀ))."""

    def __init__(self, count: int, dim: int, side: int, refinements: int) -> None:
        """Makes a family of `count` degrees of freedom; dims beyond `dim` stay as they are."""
        super().__init__()
        drawn_LEE = torch.randn(count, dim, dim) * 0.5 / math.sqrt(dim)
        self.register_parameter(_GENERATORS, nn.Parameter(drawn_LEE))
        self._idle = side - dim
        self.log_damping = nn.Parameter(torch.tensor(-2.0))
        self._refinements = refinements

    @property
    def generators_LEE(self) -> Tensor:
        """The G_l, learned."""
        generators: Tensor = getattr(self, _GENERATORS)
        return generators

    def forward(self, a_BL: Tensor, uu_BEE: Tensor, yu_BEE: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the rotations (B, E, E) that map u to y best, and their coordinates (B, L).

        The search begins at coordinates `a_BL`.

        `uu_BEE` = Σ w·u·uᵀ and `yu_BEE` = Σ w·y·uᵀ over a stream's pairs are all that the squared
        error Σ w·|y − R(a)·u|² needs. The search is Gauss-Newton with a learned damping
        (Levenberg 1944). Where it converges, the minimum no longer depends on its start; the
        gradient accordingly passes a step's Jacobian by, and reaches `a_BL` as if unmoved.
        """
        directions_LEE = self.generators_LEE - self.generators_LEE.transpose(1, 2)
        directions_LEE = functional.pad(directions_LEE, (0, self._idle, 0, self._idle))
        for _ in range(self._refinements):
            a_BL = within(MAX_COORDINATES, a_BL + self._step(a_BL, directions_LEE, uu_BEE, yu_BEE))
        return expm(_combined(a_BL, directions_LEE)), a_BL

    def _step(self, a_BL: Tensor, directions_LEE: Tensor, uu_BEE: Tensor, yu_BEE: Tensor) -> Tensor:
        """(JᵀJ + μ)⁻¹·Jᵀ·residual, of the residuals y − R·u and their derivatives in a."""
        streams, count = a_BL.shape
        with torch.no_grad():
            r_BEE, dr_BLEE = expm_with_derivatives(_combined(a_BL, directions_LEE), directions_LEE)
            dr_BLR = dr_BLEE.flatten(2)
            druu_BLR = torch.bmm(dr_BLEE.flatten(1, 2), uu_BEE).view(streams, count, -1)
            normal_BLL = torch.bmm(dr_BLR, druu_BLR.transpose(1, 2))
        descent_BEE = yu_BEE - torch.bmm(r_BEE, uu_BEE)
        right_BL1 = times_vector(dr_BLR, descent_BEE.flatten(1)).unsqueeze(2)
        damping = functional.softplus(self.log_damping)
        one_LL = torch.eye(count, dtype=a_BL.dtype, device=a_BL.device)
        return solve_small(normal_BLL + damping * one_LL, right_BL1).squeeze(2)


def solve(left_BEE: Tensor, right_BER: Tensor) -> Tensor:
    """Returns left⁻¹·right; a matrix that is singular or not finite spoils its own stream alone."""
    # torch.linalg.solve would raise for the whole batch
    solution: Tensor = torch.linalg.solve_ex(left_BEE, right_BER)[0]
    return solution


def within(radius: float, a_BL: Tensor) -> Tensor:
    """Returns the vectors, those longer than `radius` shortened to it."""
    length_B1 = a_BL.square().sum(1, keepdim=True).clamp(min=1e-30).sqrt()
    return a_BL * (radius / length_B1).clamp(max=1.0)


def times_vector(m_BER: Tensor, v_BR: Tensor) -> Tensor:
    """Returns each stream's matrix times its vector (B, E), by sums over rows.

    A `bmm` with one column takes another routine for one stream than for several.
    """
    return (m_BER * v_BR.unsqueeze(1)).sum(2)


def solve_small(left_BLL: Tensor, right_BL1: Tensor) -> Tensor:
    """Returns left⁻¹·right of small positive definite matrices, by Gauss-Jordan without pivoting.

    Elementwise operations alone: LAPACK's bits depend on where in memory so small a matrix starts.
    """
    count = left_BLL.shape[2]
    augmented = torch.cat([left_BLL, right_BL1], dim=2)
    others_LL = 1.0 - torch.eye(count, dtype=left_BLL.dtype, device=left_BLL.device)
    for i in range(count):
        pivot = augmented[:, i : i + 1] / augmented[:, i : i + 1, i : i + 1]
        factor_BL1 = augmented[:, :, i : i + 1] * others_LL[i, :, None]
        here_L1 = 1.0 - others_LL[i, :, None]
        augmented = (augmented - factor_BL1 * pivot) * others_LL[i, :, None] + pivot * here_L1
    return augmented[:, :, count:]


def _combined(a_BL: Tensor, directions_LEE: Tensor) -> Tensor:
    # a product of small odd shapes could sum in another order for another batch; this cannot
    return (a_BL.unsqueeze(2).unsqueeze(3) * directions_LEE).sum(1)
