"""Meta-training on several processes: each takes its share of every batch's streams.

B = streams in batch, S = support pairs, D = source dim

    torchrun --nproc-per-node 2 --module ...

Every process draws the whole batch from the same seed and keeps a slice of it. Losses are sums
over streams divided by the whole batch's B, so that summing the processes' gradients gives the
gradient of one process, however unevenly B splits. Without a process group everything here is
the identity.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed

from model.meta.episodes import EpisodeBatch

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others before it gives up."""


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started, over gloo, while the context lasts. Do nothing when
    torchrun did not start this process."""
    if "WORLD_SIZE" not in os.environ or distributed.is_initialized():
        yield
        return
    distributed.init_process_group("gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Return this process's number; process 0 writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share(batch: EpisodeBatch) -> EpisodeBatch:
    """Return this process's streams of the batch: neighbours, and as many as any other process has,
    give or take one."""
    streams = len(batch.x_support_BSD)
    first = streams * rank() // world()
    last = streams * (rank() + 1) // world()
    return EpisodeBatch(*(tensor[first:last] for tensor in batch))


def sum_gradients(parameters: Iterable[torch.nn.Parameter], figures: Tensor) -> Tensor:
    """Sum every parameter's gradient, in place, and `figures` over all processes, in one message.

    A missing gradient counts as zeros. Returns the summed figures.
    """
    parameters = list(parameters)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if world() == 1:
        return figures
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([*(g.flatten() for g in gradients), figures.to(gradients[0].dtype)])
    distributed.all_reduce(flat)
    begin = 0
    for gradient in gradients:
        gradient.copy_(flat[begin : begin + gradient.numel()].view_as(gradient))
        begin += gradient.numel()
    return flat[begin:].to(figures.dtype)


def total(figures: Tensor) -> Tensor:
    """Return the sum of `figures` over all processes."""
    if world() > 1:
        distributed.all_reduce(figures)
    return figures


def from_rank_0(data: bytes | None) -> bytes | None:
    """Return on every process the bytes that process 0 passes (None stays None), so that all of
    them continue from the same checkpoint."""
    if world() == 1:
        return data
    size = torch.tensor([-1 if data is None else len(data)])
    distributed.broadcast(size, src=0)
    if size.item() < 0:
        return None
    content = torch.empty(int(size.item()), dtype=torch.uint8)
    if rank() == 0:
        assert data is not None
        content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    distributed.broadcast(content, src=0)
    return content.numpy().tobytes()
