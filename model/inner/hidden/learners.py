"""Learners as hidden space has them, on the device where θ lies."""

from collections.abc import Callable

from torch import Tensor

from model.inner.batched import Objective
from model.inner.hidden import triton as hidden_triton
from model.inner.hidden.captured import Captured
from model.inner.hidden.head import descend_head, solve_head
from model.inner.hidden.loop import Descent, Projected, Terms, descend
from model.inner.hidden.workspace import Workspace
from model.inner.learner import Learner
from model.inner.ridge_head import RidgeHead
from model.inner.sgd import GradientSteps, HeadSteps

Descend = Callable[[Projected, Workspace], Descent]
OuterDescend = Callable[[Terms, Projected], Descent]
"""Differentiable, for the outer loop."""


def descend_by(learner: Learner, terms: Terms) -> Descend | None:
    """What a learner does, from projections to θ′; None for one whose steps are no sums of plain
    gradients (adam, steps that may be taken back)."""
    match learner:
        case GradientSteps(rates, objective):
            return _all_layers(terms, rates, objective)
        case HeadSteps(rates, objective):
            return _captured(
                terms, lambda projected, _: descend_head(terms, projected, rates, objective)
            )
        case RidgeHead(log_penalties, objective):
            return lambda projected, _: solve_head(terms, projected, log_penalties, objective)
        case _:
            return None


def outer_descend_by(learner: Learner) -> OuterDescend | None:
    """The same for the outer loop, which moves θ."""
    match learner:
        case GradientSteps(rates, objective, first_order):
            return lambda terms, projected: descend(
                terms, projected, rates, objective, first_order=first_order
            )
        case HeadSteps(rates, objective, first_order):
            return lambda terms, projected: descend_head(
                terms, projected, rates, objective, first_order
            )
        case RidgeHead(log_penalties, objective):
            return lambda terms, projected: solve_head(terms, projected, log_penalties, objective)
        case _:
            return None


def _all_layers(terms: Terms, rates_K4: Tensor, objective: Objective) -> Descend:
    """On CUDA one fused kernel, where it can and its check agrees; else torch's operations."""

    def by_torch(projected: Projected, space: Workspace) -> Descent:
        return descend(terms, projected, rates_K4, objective, space)

    device = terms.m_HH.device
    by_graph = _captured(terms, by_torch)
    if device.type != "cuda" or not hidden_triton.available(device):
        return by_graph

    def by_kernel(projected: Projected, space: Workspace) -> Descent:
        if not hidden_triton.fits(projected.g_CSN.shape[1], objective, projected.p_CNH.dtype):
            return by_graph(projected, space)
        return hidden_triton.descend(terms, projected, rates_K4, objective)

    return by_kernel


def _captured(terms: Terms, work: Descend) -> Descend:
    """On CUDA as one graph, so that launches do not dominate."""
    return Captured(work) if terms.m_HH.device.type == "cuda" else work
