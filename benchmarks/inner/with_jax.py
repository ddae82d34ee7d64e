"""The inner loop in JAX: grad for ONE stream, all streams by vmap, all of it compiled by jit.

B = streams in batch, S = support pairs, Q = query pairs, N = pairs of a stream, D = source dim,
E = target dim, K = inner steps

The loop over K is unrolled while tracing. `chunked` takes a few streams at a time: not as the
documentation has it, but a chunk's weights then stay in cache, and it is the fastest that we could
make JAX. Compiling is in nobody's time.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.inner.peers import CannotTakePart, Timed, What, imported
from benchmarks.inner.problem import Given, Tensors

CHUNK = (
    4  # streams: of 1, 2, 4, 8 and 16 the fastest or close to it, at d = 512 and 2048, both ways
)


def by_jax(given: Given, what: What, *, chunked: bool = False) -> Timed:
    """jit over vmap over a loop of grad. Raises CannotTakePart without JAX, on a device, and for an
    outer gradient in chunks that do not divide B."""
    if given.theta.w1.device.type != "cpu":
        raise CannotTakePart("JAX is measured on the CPU alone")
    streams = len(given.x_BSD)
    if chunked and what == "gradient" and streams % CHUNK:
        raise CannotTakePart(f"its chunks are of {CHUNK} streams: {streams} do not divide")
    jax = imported("jax")
    arrays = tuple(jax.numpy.asarray(t.numpy()) for t in (*given.theta, *given[1:]))
    learned, pairs = arrays[:5], arrays[5:] if what == "gradient" else arrays[5:7]
    compute = _adapt(jax, chunked) if what == "adapt" else _gradient(jax, streams, chunked)
    compiled = jax.jit(compute).lower(learned, pairs).compile()

    def found(result: Any, chosen: list[int]) -> Tensors:
        arrays = (np.asarray(a)[chosen] if what == "adapt" else np.array(a) for a in result)
        return tuple(torch.from_numpy(array) for array in arrays)

    return Timed(lambda: jax.block_until_ready(compiled(learned, pairs)), found)


def _adapt(jax: Any, chunked: bool) -> Callable[[Any, Any], Any]:
    def adapt(learned: Any, pairs: Any) -> Any:
        def one(x_SD: Any, y_SE: Any) -> Any:
            return _descended(jax, learned, x_SD, y_SE)

        if not chunked:
            return jax.vmap(one)(*pairs)
        size = min(CHUNK, len(pairs[0]))
        return jax.lax.map(lambda p: one(*p), pairs, batch_size=size)

    return adapt


def _gradient(jax: Any, streams: int, chunked: bool) -> Callable[[Any, Any], Any]:
    def loss(learned: Any, pairs: Any) -> Any:
        def one(x_SD: Any, y_SE: Any, x_QD: Any, y_QE: Any) -> Any:
            return _loss(jax, _descended(jax, learned, x_SD, y_SE), x_QD, y_QE)

        return jax.vmap(one)(*pairs).sum() / streams

    def added_up(learned: Any, pairs: Any) -> Any:
        chunks = tuple(p.reshape(-1, CHUNK, *p.shape[1:]) for p in pairs)
        nothing = jax.tree.map(jax.numpy.zeros_like, learned)

        def add(total: Any, chunk: Any) -> Any:
            return jax.tree.map(jax.numpy.add, total, jax.grad(loss)(learned, chunk)), None

        return jax.lax.scan(add, nothing, chunks)[0]

    return added_up if chunked else jax.grad(loss)


def _loss(jax: Any, theta: Any, x_ND: Any, y_NE: Any) -> Any:
    w1, b1, w2, b2 = theta
    return ((jax.numpy.tanh(x_ND @ w1.T + b1) @ w2.T + b2 - y_NE) ** 2).mean()


def _descended(jax: Any, learned: Any, x_SD: Any, y_SE: Any) -> Any:
    """Returns one stream's θ′."""
    *theta, rates_K4 = learned
    for rate_4 in rates_K4:
        found = jax.grad(lambda tensors: _loss(jax, tensors, x_SD, y_SE))(theta)
        theta = [t - r * g for t, r, g in zip(theta, rate_4, found, strict=True)]
    return tuple(theta)
