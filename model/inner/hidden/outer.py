"""What θ′ makes of the queries, for the outer loop: differentiable, and no θ′ is written out.

C = streams in a batch, S = support pairs (padded), Q = query pairs (padded), D = source dim,
E = target dim, H = hidden

Outputs are made in full, so that any loss may follow and nothing cancels. Only the support is
projected onto θ's second layer.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.inner.hidden.loop import Descent, Projected, Terms
from model.inner.hidden.losses import hidden_features
from model.inner.hidden.result import outputs
from model.inner.learner import Support


class Outer(NamedTuple):
    """Of C streams."""

    o_CQE: Tensor
    healthy_C: Tensor
    """False where the descent was not finite: leave those streams out and run the rest again."""


def query_outputs(
    terms: Terms,
    support: Support,
    x_CQD: Tensor,
    adapt: Callable[[Terms, Projected], Descent],
) -> Outer:
    """`adapt` is one of `hidden.descend`, `hidden_head.descend_head`, `.solve_head`, with rates.

    Queries need not be cleaned of what stands in padded ones, if the loss is.
    """
    real_CS1 = support.real_BS.unsqueeze(2)
    x_CSD, y_CSE = (torch.where(real_CS1, t, 0.0) for t in (support.x_BSD, support.y_BSE))
    support = Support(x_CSD, y_CSE, support.real_BS)
    descent = adapt(terms, _projected(terms, support))
    g_CSQ = torch.bmm(x_CSD, x_CQD.transpose(1, 2))
    h_CQH = hidden_features(functional.linear(x_CQD, terms.w1, terms.b1), g_CSQ, descent)
    return Outer(outputs(terms, descent, h_CQH, y_CSE), descent.healthy_C)


def _projected(terms: Terms, support: Support) -> Projected:
    """The support as `hidden.project` has it, but for p of padded pairs, which counts for nothing.

    b2 is taken from products instead of from targets: its gradient is then no product of targets.
    """
    x_CSD, y_CSE, real_CS = support
    one_CS = real_CS.to(y_CSE.dtype)
    yb_CS = y_CSE @ terms.b2
    gamma_CSS = torch.bmm(y_CSE, y_CSE.transpose(1, 2)) - _sums(yb_CS, one_CS)
    gamma_CSS = gamma_CSS - _sums(one_CS, yb_CS - terms.bb * one_CS)
    return Projected(
        p_CNH=functional.linear(x_CSD, terms.w1, terms.b1),
        r_CNH=y_CSE @ terms.w2 - one_CS.unsqueeze(2) * terms.w2b_H,
        t_CN=yb_CS - terms.bb * one_CS,
        g_CSN=torch.bmm(x_CSD, x_CSD.transpose(1, 2)),
        gamma_CSN=gamma_CSS,
        yy_CN=gamma_CSS.diagonal(dim1=1, dim2=2),
        real_CN=real_CS,
    )


def _sums(a_CS: Tensor, b_CS: Tensor) -> Tensor:
    """a·bᵀ (C, S, S)."""
    return a_CS.unsqueeze(2) * b_CS.unsqueeze(1)
