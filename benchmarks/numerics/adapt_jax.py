"""The inner loop in JAX: grad for ONE stream, all streams by vmap, all of it compiled by jit.

B = streams, C = streams of a chunk, S = support pairs, N = support or query pairs, D = source dim,
E = target dim, K = inner steps

The loop over K is unrolled while tracing. `chunked` goes over the streams by `lax.map`, C at a
time: not how the documentation has it, but a chunk's weights then stay in cache, and it is the
fastest that we could make JAX. Compiling is in nobody's time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.numerics.adapt_peers import CannotTakePart, Timed, imported, whole
from benchmarks.numerics.adapt_problem import Given

CHUNK = 4
"""C: of 1, 2, 4, 8 and 16 the fastest or close to it, at d = 512 and 2048, both ways."""


def adapt_jax(given: Given) -> Timed:
    """θ′ by jit(vmap(loop of grad))."""
    return _adapt(given, lambda jax, one, pairs: jax.vmap(one)(*pairs))


def adapt_jax_chunked(given: Given) -> Timed:
    """The same, C streams at a time."""
    size = min(CHUNK, len(given.x_BSD))
    return _adapt(
        given, lambda jax, one, pairs: jax.lax.map(lambda p: one(*p), pairs, batch_size=size)
    )


def gradient_jax(given: Given) -> Timed:
    """The outer gradient by jit(grad(mean over vmap(loop of grad)))."""
    return _gradient(given, lambda jax, of_pairs, learned, pairs: of_pairs(learned, *pairs))


def gradient_jax_chunked(given: Given) -> Timed:
    """The same, added up over chunks of C streams. Raises CannotTakePart if C does not divide B."""
    if len(given.x_BSD) % CHUNK:
        raise CannotTakePart(f"its chunks are of {CHUNK} streams: {len(given.x_BSD)} do not divide")
    return _gradient(given, _added_up)


def _adapt(given: Given, over_streams: Callable[[Any, Any, Any], Any]) -> Timed:
    jax, arrays = _arrays(given)

    def adapt(theta: Any, rates: Any, pairs: Any) -> Any:
        return over_streams(jax, partial(_descended, jax, theta, rates), pairs)

    arguments = (arrays[:4], arrays[4], arrays[5:7])
    compiled = jax.jit(adapt).lower(*arguments).compile()
    return Timed(lambda: jax.block_until_ready(compiled(*arguments)), _picked)


def _gradient(given: Given, over_streams: Callable[[Any, Any, Any, Any], Any]) -> Timed:
    jax, arrays = _arrays(given)
    streams = len(given.x_BSD)

    def loss(learned: Any, *pairs: Any) -> Any:
        def one(x_SD: Any, y_SE: Any, x_QD: Any, y_QE: Any) -> Any:
            return _loss(jax, _descended(jax, learned[:4], learned[4], x_SD, y_SE), x_QD, y_QE)

        return jax.vmap(one)(*pairs).sum() / streams

    arguments = (arrays[:5], arrays[5:])
    compiled = jax.jit(partial(over_streams, jax, jax.grad(loss))).lower(*arguments).compile()
    return Timed(lambda: jax.block_until_ready(compiled(*arguments)), _all)


def _added_up(jax: Any, of_pairs: Any, learned: Any, pairs: Any) -> Any:
    chunks = tuple(p.reshape(-1, CHUNK, *p.shape[1:]) for p in pairs)
    nothing = jax.tree.map(jax.numpy.zeros_like, learned)

    def add(total: Any, chunk: Any) -> Any:
        return jax.tree.map(jax.numpy.add, total, of_pairs(learned, *chunk)), None

    return jax.lax.scan(add, nothing, chunks)[0]


def _arrays(given: Given) -> tuple[Any, tuple[Any, ...]]:
    """The module, and w1, b1, w2, b2, rates and pairs as its arrays."""
    if given.theta.w1.device.type != "cpu":
        raise CannotTakePart("JAX is measured on the CPU alone")
    jax = imported("jax")
    return jax, tuple(jax.numpy.asarray(t.numpy()) for t in (*given.theta, *given[1:]))


def _loss(jax: Any, theta: Any, x_ND: Any, y_NE: Any) -> Any:
    w1, b1, w2, b2 = theta
    return ((jax.numpy.tanh(x_ND @ w1.T + b1) @ w2.T + b2 - y_NE) ** 2).mean()


def _descended(jax: Any, theta: Any, rates_K4: Any, x_SD: Any, y_SE: Any) -> Any:
    """One stream's θ′."""
    for rate_4 in rates_K4:
        found = jax.grad(lambda tensors: _loss(jax, tensors, x_SD, y_SE))(theta)
        theta = tuple(t - r * g for t, r, g in zip(theta, rate_4, found, strict=True))
    return theta


def _picked(arrays: Any, streams: list[int]) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.asarray(array)[streams]) for array in arrays)


def _all(arrays: Any, streams: list[int]) -> tuple[Tensor, ...]:
    return whole(tuple(torch.from_numpy(np.array(array)) for array in arrays), streams)
