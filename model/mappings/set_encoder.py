"""A stream's support as a set of pairs, of any size: evidence, a context vector, a ridge step.

B = streams in batch, S = support pairs (padded), N = pairs of a stream (or one, about the stream
itself), E = target dim, I = inputs of a layer, O = outputs of a layer, U = numbers of an embedding,
C = channels (heads)

Every product is a `bmm` over streams, with the shared weights expanded: a stream's numbers are then
the product of its own matrices, whatever company it has.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.mappings.rotations import solve, times_vector

Squash = Callable[[Tensor], Tensor]

EPSILON = 1e-6
NEVER = -1e9
"""A logit whose softmax is 0 next to any other, and still finite where there is no other."""
EVIDENCE = 16
"""Inputs of a `SmallMlp`, unused ones 0: whole cache lines, as `model.serving.packing` says why."""


class Pairs(NamedTuple):
    """The support as the generator sees it: about unit norms, 0 in padded pairs and dims."""

    u_BSE: Tensor
    y_BSE: Tensor
    real_BS: Tensor


class Evidence(NamedTuple):
    """What is known about pairs and streams before anything is fitted."""

    u_BS: Tensor
    """Squared norms of the u's."""
    y_BS: Tensor
    kept_BS: Tensor
    """Correlation of a pair's inner products with the others, between u's and y's."""
    count_BS: Tensor
    """A logarithm of the number of pairs, the same for all of a stream's."""
    kept_B1: Tensor
    count_B1: Tensor
    spread_B1: Tensor
    """How far from 1 the squared norms of y are, in the root mean square."""
    empty_B1: Tensor
    """1 where there is no pair, else 0."""


def linear(layer: nn.Linear, x_BNI: Tensor) -> Tensor:
    """Returns the layer's outputs on every stream's N inputs (B, N, O)."""
    weight_BIO = layer.weight.T.expand(x_BNI.shape[0], *layer.weight.T.shape)
    return torch.bmm(x_BNI, weight_BIO) + layer.bias


class SmallMlp(nn.Module):
    """Makes one or two decisions of a few numbers of evidence; before training they are `first`."""

    def __init__(self, first: tuple[float, ...]) -> None:
        super().__init__()
        self.hidden = nn.Linear(EVIDENCE, 2 * EVIDENCE)
        self.out = nn.Linear(2 * EVIDENCE, EVIDENCE)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.first_O = nn.Parameter(torch.tensor(first))

    def forward(self, squash: Squash, *evidence: Tensor) -> tuple[Tensor, ...]:
        """Returns the decisions, (B, N) each, after `squash`, from evidence, (B, N) each."""
        x_BNI = torch.stack(evidence, dim=2)
        x_BNI = functional.pad(x_BNI, (0, EVIDENCE - len(evidence)))
        o_BNO = linear(self.out, functional.gelu(linear(self.hidden, x_BNI)))
        first_O = functional.pad(self.first_O, (0, EVIDENCE - len(self.first_O)))
        # in whole vectors: what is left over after the last one is rounded by another routine
        decisions: tuple[Tensor, ...] = squash(o_BNO + first_O).unbind(2)
        return decisions[: len(self.first_O)]


class AttentionBlock(nn.Module):
    """Self-attention among the pairs, then a pointwise MLP (Vaswani et al. 2017, normed before)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attended_norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.merge = nn.Linear(width, width)
        self.widened_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)

    def forward(self, h_BSU: Tensor, real_BS: Tensor) -> Tensor:
        """Returns the pairs' new features (B, S, U); padded pairs are attended to by none."""
        normed_BSU = self.attended_norm(h_BSU)
        layers = (self.query, self.key, self.value)
        q, k, v = (self._split(linear(layer, normed_BSU)) for layer in layers)
        logits = torch.bmm(q, k.transpose(1, 2)) / math.sqrt(q.shape[2])
        padded = ~real_BS.repeat_interleave(self.heads, dim=0).unsqueeze(1)
        mixed = torch.bmm(logits.masked_fill(padded, NEVER).softmax(2), v)
        h_BSU = h_BSU + linear(self.merge, self._joined(mixed))
        widened = functional.gelu(linear(self.widen, self.widened_norm(h_BSU)))
        return h_BSU + linear(self.narrow, widened)

    def _split(self, h_BSU: Tensor) -> Tensor:
        """(B·C, S, width of a head)."""
        streams, pairs, _ = h_BSU.shape
        split = h_BSU.view(streams, pairs, self.heads, -1)
        return split.transpose(1, 2).reshape(streams * self.heads, pairs, -1)

    def _joined(self, mixed: Tensor) -> Tensor:
        """(B, S, U)."""
        split = mixed.view(-1, self.heads, *mixed.shape[1:])
        return split.transpose(1, 2).flatten(2)


class SetEncoder(nn.Module):
    """Pairs (u, y) to a context: tokens, blocks, and a pooling by learned attention.

    A token holds a nonlinear sum of both sides and products of their projections: y ≈ R·u is
    linear in R given such products, summed over pairs (bilinear attention).
    """

    def __init__(self, side: int, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.sum_u, self.sum_y = nn.Linear(side, width), nn.Linear(side, width)
        self.product_u, self.product_y = nn.Linear(side, width), nn.Linear(side, width)
        self.merge = nn.Linear(2 * width, width)
        self.blocks = nn.ModuleList(AttentionBlock(width, heads) for _ in range(blocks))
        self.pool = nn.Linear(width, heads)

    def forward(self, u_BSE: Tensor, y_BSE: Tensor, real_BS: Tensor) -> Tensor:
        """Returns the context (B, C·U), 0 without pairs. Padded pairs must hold finite numbers."""
        sums_BSU = functional.gelu(linear(self.sum_u, u_BSE) + linear(self.sum_y, y_BSE))
        products_BSU = linear(self.product_u, u_BSE) * linear(self.product_y, y_BSE)
        h_BSU = linear(self.merge, torch.cat([sums_BSU, products_BSU], dim=2))
        for block in self.blocks:
            h_BSU = block(h_BSU, real_BS)
        logits_BCS = linear(self.pool, h_BSU).transpose(1, 2)
        padded_B1S = ~real_BS.unsqueeze(1)
        share_BCS = logits_BCS.masked_fill(padded_B1S, NEVER).softmax(2)
        pooled_BCU: Tensor = torch.bmm(share_BCS.masked_fill(padded_B1S, 0.0), h_BSU)
        return pooled_BCU.flatten(1)


def evidence_of(pairs: Pairs) -> Evidence:
    """Returns norms, and how well u to y keeps inner products, as a rotation would."""
    u_BSS = torch.bmm(pairs.u_BSE, pairs.u_BSE.transpose(1, 2))
    y_BSS = torch.bmm(pairs.y_BSE, pairs.y_BSE.transpose(1, 2))
    u_BS, y_BS = (torch.diagonal(t, dim1=1, dim2=2) for t in (u_BSS, y_BSS))
    apart_SS = 1.0 - torch.eye(u_BSS.shape[1], dtype=u_BSS.dtype, device=u_BSS.device)
    uy_BS, uu_BS, yy_BS = (
        (a * b * apart_SS).sum(2) for a, b in ((u_BSS, y_BSS), (u_BSS, u_BSS), (y_BSS, y_BSS))
    )
    kept_BS = uy_BS / (uu_BS * yy_BS + 1e-4).sqrt()
    all_uu_B1, all_yy_B1 = uu_BS.sum(1, keepdim=True), yy_BS.sum(1, keepdim=True)
    kept_B1 = uy_BS.sum(1, keepdim=True) / (all_uu_B1 * all_yy_B1 + 1e-4).sqrt()
    pairs_B1 = pairs.real_BS.sum(1, keepdim=True).to(u_BSS.dtype)
    off_BS = (y_BS - 1.0).square().masked_fill(~pairs.real_BS, 0.0)
    spread_B1 = (off_BS.sum(1, keepdim=True) / (pairs_B1 + EPSILON) + 1e-8).sqrt()
    # in whole vectors, as in `SmallMlp`
    count_BS = torch.log1p(pairs_B1.expand_as(u_BS).contiguous()) / 4.0
    empty_B1 = (pairs_B1 == 0).to(u_BSS.dtype)
    return Evidence(u_BS, y_BS, kept_BS, count_BS, kept_B1, count_BS[:, :1], spread_B1, empty_B1)


def weighted(w_BS: Tensor, left_BSE: Tensor, right_BSE: Tensor) -> Tensor:
    """Returns Σ w·left·rightᵀ over a stream's pairs (B, E, E)."""
    return torch.bmm((w_BS.unsqueeze(2) * left_BSE).transpose(1, 2), right_BSE)


def fit_of(pairs: Pairs, matrix_BEE: Tensor) -> Tensor:
    """Returns how well R explains each pair: y · R·u, (B, S)."""
    return (pairs.y_BSE * torch.bmm(pairs.u_BSE, matrix_BEE.transpose(1, 2))).sum(2)


def explained_of(w_BS: Tensor, fit_BS: Tensor, known: Evidence) -> Tensor:
    """Returns how well all of a stream's pairs are explained: a cosine, (B, 1)."""
    fit_B1, u_B1, y_B1 = ((w_BS * t).sum(1, keepdim=True) for t in (fit_BS, known.u_BS, known.y_BS))
    explained_B1: Tensor = fit_B1 / (u_B1 * y_B1 + EPSILON).sqrt()
    return explained_B1


def ridge_towards(
    pairs: Pairs, w_BS: Tensor, strength_B1: Tensor, towards_BEE: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns R and b of y on u by weighted least squares with λ·|R − towards|² + λ·|b|² added.

    b is eliminated first: what is left is one solve per stream. λ is at least what float32 needs.
    """
    lengths_BS = pairs.u_BSE.square().sum(2)
    strength_B1 = strength_B1 + EPSILON * (w_BS * lengths_BS).sum(1, keepdim=True)
    share_B1 = 1.0 / (w_BS.sum(1, keepdim=True) + strength_B1)
    u_BE, y_BE = ((w_BS.unsqueeze(2) * t).sum(1) for t in (pairs.u_BSE, pairs.y_BSE))
    drift_B1E = (u_BE * share_B1).unsqueeze(1)
    one_EE = torch.eye(towards_BEE.shape[1], dtype=w_BS.dtype, device=w_BS.device)
    lambda_B11 = strength_B1.unsqueeze(2)
    uu_BEE = weighted(w_BS, pairs.u_BSE, pairs.u_BSE) - u_BE.unsqueeze(2) * drift_B1E
    yu_BEE = weighted(w_BS, pairs.y_BSE, pairs.u_BSE) - y_BE.unsqueeze(2) * drift_B1E
    right_BEE = yu_BEE + lambda_B11 * towards_BEE
    left_BEE = uu_BEE + lambda_B11 * one_EE
    matrix_BEE = solve(left_BEE, right_BEE.transpose(1, 2)).transpose(1, 2).contiguous()
    bias_BE = (y_BE - times_vector(matrix_BEE, u_BE)) * share_B1
    return matrix_BEE, bias_BE
