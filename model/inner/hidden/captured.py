"""The hidden-space inner loop recorded once and replayed: a CUDA graph for every shape of chunk.

C = streams in a chunk, B = streams of a recording, at least C

Of what `model.inner.hidden.triton` does not do, the torch form launches some 20 kernels a step:
on a small chunk that is all the time there is. A graph launches them at once. It reads and writes
where it was recorded, so inputs are copied there first, and results last until the next call.
Chunks come in all sizes and each recording holds memory, so B is C up to a power of two. What lies
in the rows above C is left from before: no operation mixes streams.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch

from model.inner.hidden.loop import Descent, Projected
from model.inner.hidden.span import head_of
from model.inner.hidden.workspace import Workspace

Descend = Callable[[Projected, Workspace], Descent]
Shapes = tuple[torch.Size, ...]
Result = TypeVar("Result")
LEAST = 32
"""Streams: fewer cost a GPU as much."""


class Recording(NamedTuple):
    """One shape's."""

    inputs: Projected
    replay: Callable[[], Descent]


class Captured:
    """`descend`, from graphs. Called as it is, without autograd; θ and rates must stay in place."""

    def __init__(self, descend: Descend) -> None:
        self._descend = descend
        self._recordings: WeakKeyDictionary[Workspace, dict[Shapes, Recording]] = (
            WeakKeyDictionary()
        )

    @torch.inference_mode()
    def __call__(self, projected: Projected, workspace: Workspace) -> Descent:
        """θ′, until the next call with the same workspace (whose memory is not used)."""
        streams = len(projected.p_CNH)
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
            inputs, _recorded(lambda: self._descend(inputs, workspace), inputs.p_CNH.device)
        )


def _recorded(work: Callable[[], Result], device: torch.device) -> Callable[[], Result]:
    """What does `work` again, with results in the same place. A CPU has no graphs: `work` it is."""
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
    """Of the first streams; views."""
    h_CJH, c_CJV, sums_C1V = (part[:streams] for part in descent.head[:3])
    return descent._replace(
        a_CSH=descent.a_CSH[:streams],
        beta_CH=descent.beta_CH[:streams],
        head=head_of(h_CJH, c_CJV, sums_C1V),
        healthy_C=descent.healthy_C[:streams],
    )
