"""Which form of the inner loop costs less, by counting.

D = source dim, H = hidden units, E = target dim, S = support pairs, K = inner steps, V = spanning
rows (H + S), Q = query pairs, N = pairs of a stream (S and Q, which the form in full pads)

What a stream with one new pair costs in one turn is taken to be, in either form,

    time = multiplications · m + numbers moved · n + units · u + calls

with the same m, n and u for both; a unit is one activation and its derivative. Counted are the
leading terms:

    in hidden space (`model.inner.hidden.descent`)
      multiplications  H·(D + E) + H²                         the new pair, projected and judged
                       K·S·H² + K(K − 1)/2·S²·(4·H + 2·S)     D·W2, and what earlier steps left
                       S²·H + (K − 1)·S²·(3·H + S)            among the support
                       N·H² + N·(K·S + S)·(H + V)             the losses after
                       Q·H² + S·(H + N + S) + N·V             units, and θ beside for the judge
      moved            N·(D + E + 2·H + 2·S)                  the window
      units            K·S·H
      calls            c + S·p + K·S·q                        per chunk: a fixed number of pairs
    in full (`model.inner.batched`)
      multiplications  K·S·H·(2·D + 3·E) + 2·N·H·(D + E)      the steps, the losses
      moved            (K + 2)·H·(D + E) + 2·N·(D + E)        the weights, the window
      units            K·S·(H + E)
      calls            f + K·g                                per chunk: a fixed number of streams

So hidden space gains with D and E, and full with K and S, in which hidden space is quadratic.

`COSTS` are fitted to times that `python -m benchmarks forms --fit` measures: one CPU
thread, 48 streams in a turn, none of their mappings looked at (which costs hidden space more).
Another machine has other constants; for the pick only their ratios matter. `python -m benchmarks
forms` tells what the picks lose on the machine that it runs on.
"""

from typing import Literal, NamedTuple

from model.values.arrays import aligned

Form = Literal["auto", "hidden", "full"]
"""Which form of the inner loop runs; `auto` takes the one that costs less."""

QUERY = 4
"""Query pairs that the rule reckons with: they are few beside the support's."""


class Shape(NamedTuple):
    """The sizes of a mapping, its window and its inner loop, which the costs depend on."""

    source_dim: int
    hidden_dim: int
    target_dim: int
    support: int
    steps: int


class Work(NamedTuple):
    """How much one form computes and moves for one stream in a turn."""

    multiplications: float
    moved: float
    units: float


class Costs(NamedTuple):
    """Nanoseconds of CPU for one of each."""

    multiplication: float
    moved: float
    unit: float
    hidden_stream: float
    hidden_pair: float
    hidden_step_pair: float
    full_stream: float
    full_step: float


COSTS = Costs(
    multiplication=0.0278,
    moved=0.782,
    unit=4.75,
    hidden_stream=27_500.0,
    hidden_pair=1_050.0,
    hidden_step_pair=203.0,
    full_stream=127_000.0,
    full_step=20_300.0,
)
"""As measured on an AMD EPYC with AVX-512 and torch 2.15."""


TRAINING = 3.0
"""For `hidden_pays` in meta-training, where raw pairs are projected at every outer step and the way
back costs as well, more so for losses other than mse. A margin, not a fit: it is chosen so that
hidden space is not picked where it loses, and leaves some shapes in full that would gain."""


def hidden_pays(
    source_dim: int,
    hidden_dim: int,
    target_dim: int,
    support: int,
    steps: int,
    times: float = 1.0,
) -> bool:
    """Returns whether hidden space costs less than weights in full, for steps on all four tensors.

    `times` multiplies what hidden space is taken to cost: a margin.
    """
    hidden_ns, full_ns = both_ns(Shape(source_dim, hidden_dim, target_dim, support, steps))
    return times * hidden_ns < full_ns


def both_ns(shape: Shape, costs: Costs = COSTS) -> tuple[float, float]:
    """Returns what a stream costs in one turn, in hidden space and in full, in nanoseconds."""
    numbers = zip(costs, *counted(shape), strict=True)
    priced = [(each * in_hidden, each * in_full) for each, in_hidden, in_full in numbers]
    hidden_ns, full_ns = map(sum, zip(*priced, strict=True))
    return hidden_ns, full_ns


def counted(shape: Shape) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns how often each of `Costs` is in the cost of hidden space, and of weights in full."""
    support, steps = _padded(shape)[3:]
    in_hidden = (*hidden_work(shape), 1, support, steps * support, 0, 0)
    return in_hidden, (*full_work(shape), 0, 0, 0, 1, steps)


def hidden_work(shape: Shape) -> Work:
    """Returns the work of the form in hidden space, by the table above."""
    d, h, e, s, k = _padded(shape)
    n, v, j = s + QUERY, h + s, k * s
    new_pair = h * (d + e) + h * h
    earlier_steps = k * (k - 1) / 2 * s * s * (4 * h + 2 * s)
    among_support = s * s * h + (k - 1) * s * s * (3 * h + s)
    losses = n * h * h + n * (j + s) * (h + v)
    judging = QUERY * h * h + s * (h + n + s) + n * v
    multiplications = new_pair + j * h * h + earlier_steps + among_support + losses + judging
    return Work(multiplications, n * (d + e + 2 * h + 2 * s), j * h)


def full_work(shape: Shape) -> Work:
    """Returns the work of the form with weights in full, by the table above."""
    d, h, e, s, k = _padded(shape)
    n, weights = s + aligned(QUERY), h * (d + e)
    multiplications = k * s * h * (2 * d + 3 * e) + 2 * n * weights
    return Work(multiplications, (k + 2) * weights + 2 * n * (d + e), k * s * (h + e))


def _padded(shape: Shape) -> Shape:
    """As both forms have it in memory."""
    hidden_dim, support = aligned(shape.hidden_dim), aligned(shape.support)
    return shape._replace(hidden_dim=hidden_dim, support=support)
