"""Which descent a learner asks for, and the fastest way to run it on the device where θ lies.

B = streams in batch, S = support pairs, N = pairs of a stream, H = hidden units, K = inner steps,
J = rows of all inner steps, V = spanning rows, U = numbers of an embedding (rows of the covariance
factor)

On a CPU the torch form serves as it is. On a GPU a fused kernel (`model.inner.hidden.triton`) does
what it can. Of what it cannot, the torch form launches some 20 kernels a step: on a small chunk
that is all the time there is. So it is recorded once for every shape of chunk, as a CUDA graph, and
replayed in one launch (`Captured`). A graph reads and writes where it was recorded: inputs are
copied there first, and results last until the next call. Chunks come in all sizes and each
recording holds memory, so each is made for B up to a power of two. What lies in the rows above B is
left from before: no operation mixes streams.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.hidden import triton
from model.inner.hidden.coefficients import head_of
from model.inner.hidden.descent import Descent, descend
from model.inner.hidden.head import descend_head, solve_head
from model.inner.hidden.memory import Workspace
from model.inner.hidden.projected import Projected, Terms
from model.inner.learner import Learner
from model.inner.ridge_head import RidgeHead
from model.inner.sgd import GradientSteps, HeadSteps

Descend = Callable[[Projected, Workspace], Descent]
OuterDescend = Callable[[Terms, Projected], Descent]
"""Differentiable, for the outer loop."""
Shapes = tuple[torch.Size, ...]
Result = TypeVar("Result")
LEAST = 32
"""Streams of a recording: fewer cost a GPU as much."""


def descend_by(learner: Learner, terms: Terms) -> Descend | None:
    """Returns the learner's inner loop from projections to θ′, for serving.

    None for a learner whose steps are no sums of plain gradients (adam, steps that may be taken
    back). θ and the learner's tensors must stay where they are in memory.
    """
    match learner:
        case GradientSteps(rates, objective):
            return _all_layers(terms, rates, objective)
        case HeadSteps(rates, objective):
            return _captured(
                terms, lambda projected, _: descend_head(terms, projected, rates, objective)
            )
        case RidgeHead(log_penalties, objective, factor_UH):
            return lambda projected, _: solve_head(
                terms, projected, log_penalties, objective, factor_UH
            )
        case _:
            return None


def outer_descend_by(learner: Learner) -> OuterDescend | None:
    """Returns the learner's inner loop for the outer loop, which moves θ; None as `descend_by`."""
    match learner:
        case GradientSteps(rates, objective, first_order):
            return lambda terms, projected: descend(
                terms, projected, rates, objective, first_order=first_order
            )
        case HeadSteps(rates, objective, first_order):
            return lambda terms, projected: descend_head(
                terms, projected, rates, objective, first_order
            )
        case RidgeHead(log_penalties, objective, factor_UH):
            return lambda terms, projected: solve_head(
                terms, projected, log_penalties, objective, factor_UH
            )
        case _:
            return None


def _all_layers(terms: Terms, rates_K4: Tensor, objective: Objective) -> Descend:
    """On CUDA the fused kernel, where it can and its check agrees; else torch's operations."""

    def by_torch(projected: Projected, space: Workspace) -> Descent:
        return descend(terms, projected, rates_K4, objective, space)

    device = terms.m_HH.device
    by_graph = _captured(terms, by_torch)
    if device.type != "cuda" or not triton.available(device):
        return by_graph

    def by_kernel(projected: Projected, space: Workspace) -> Descent:
        if not triton.fits(projected.g_BSN.shape[1], objective, projected.p_BNH.dtype):
            return by_graph(projected, space)
        return triton.descend_by_kernel(terms, projected, rates_K4, objective)

    return by_kernel


def _captured(terms: Terms, work: Descend) -> Descend:
    """On CUDA as one graph, so that launches do not dominate."""
    return Captured(work) if terms.m_HH.device.type == "cuda" else work


class Recording(NamedTuple):
    """The recorded graph of one shape of chunk, and where it reads."""

    inputs: Projected
    replay: Callable[[], Descent]


class Captured:
    """Replays `descend` from graphs. Called as it is, without autograd; θ and rates must stay where
    they are in memory."""

    def __init__(self, descend: Descend) -> None:
        self._descend = descend
        self._recordings: WeakKeyDictionary[Workspace, dict[Shapes, Recording]] = (
            WeakKeyDictionary()
        )

    @torch.inference_mode()
    def __call__(self, projected: Projected, workspace: Workspace) -> Descent:
        """Returns θ′, which lasts until the next call with the same workspace (whose memory is not
        used)."""
        streams = len(projected.p_BNH)
        room = max(LEAST, 1 << (streams - 1).bit_length())
        made = self._recordings.setdefault(workspace, {})
        shapes = tuple(torch.Size((room, *each.shape[1:])) for each in projected)
        if shapes not in made:
            made[shapes] = self._recorded(projected, room)
        inputs, replay = made[shapes]
        for mine, given in zip(inputs, projected, strict=True):
            mine[:streams].copy_(given)
        return _first(replay(), streams)

    def _recorded(self, like: Projected, room: int) -> Recording:
        """Inputs of 0 are streams without a pair. The workspace is the recording's own: one that
        is used elsewhere may grow, away from under the graph."""
        inputs = Projected(*(each.new_zeros((room, *each.shape[1:])) for each in like))
        workspace = Workspace()
        return Recording(
            inputs, _recorded(lambda: self._descend(inputs, workspace), inputs.p_BNH.device)
        )


def _recorded(work: Callable[[], Result], device: torch.device) -> Callable[[], Result]:
    """Returns what does `work` again, with results in the same place: on a CPU, `work` itself."""
    if device.type == "cpu":
        return work
    with torch.cuda.device(device):
        work()  # what is made once (workspace, constants, cuBLAS's own) is no part of the graph
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = work()

    def replay() -> Result:
        graph.replay()
        return result

    return replay


def _first(descent: Descent, streams: int) -> Descent:
    """The descent of the first streams; views."""
    h_BJH, c_BJV, sums_B1V = (part[:streams] for part in descent.head[:3])
    return descent._replace(
        a_BSH=descent.a_BSH[:streams],
        beta_BH=descent.beta_BH[:streams],
        head=head_of(h_BJH, c_BJV, sums_B1V),
        healthy_B=descent.healthy_B[:streams],
    )
