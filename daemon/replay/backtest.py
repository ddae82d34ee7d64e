"""Tries a θ, or other settings, on recorded traffic: how well would each stream's newest mapping
have done on the pairs that came after it?

Each stream's pairs are gone through in order. Every `every` pairs the window before is made a
mapping by the worker's own steps, and each of the pairs that follow looks for its own target among
the `among` newest, or among all that follow if those are more. So every score is prequential.
Contenders are compared stream by stream.

Q = query pairs, Y = candidates, D = source dim, E = target dim
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from daemon.replay.log import RecordedLog
from daemon.replay.remake import Remaker
from daemon.turn.streams import StreamId
from daemon.turn.window import Pair
from daemon.wire.adapted_mapping import runnable
from daemon.wire.mapping_body import MappingForm
from model.evaluate.intervals import Interval, t_interval
from model.evaluate.scoring import MEASURES, Figures, Scores
from model.mappings.numpy_mlp import apply_numpy
from model.retrieval import euclidean_scores, scores_of

EVERY, AMONG = 8, 32
FIELDS = {"r_at_1": "r_at_1", "r_at_5": "r_at_5", "mrr": "mrr", "map": "mean_ap", "ndcg": "ndcg"}
"""Measures by the names of `model.evaluate.scoring`, and what `model.retrieval` calls them."""
COMPARED = ("r_at_1", "map", "ndcg")


@dataclass(frozen=True, slots=True)
class BacktestRow:
    """One contender's means over streams, and its differences from the first contender's."""

    figures: Figures
    differences: Mapping[str, Interval] | None = None
    """None of the first itself."""


@dataclass(frozen=True, slots=True)
class StreamScore:
    """A stream's means over its blocks of new pairs."""

    blocks: int
    measures: Scores


def backtest(
    contenders: Mapping[str, tuple[Remaker, RecordedLog]], every: int = EVERY, among: int = AMONG
) -> list[BacktestRow]:
    """Returns a row for each contender, and one for the first one's θ without adaptation. A stream
    counts if every contender has a score of it."""
    found = {
        name: _scores(remaker, log, every, among) for name, (remaker, log) in contenders.items()
    }
    first, (remaker, log) = next(iter(contenders.items()))
    found[f"{first}, θ alone"] = _scores(remaker, log, every, among, adapts=False)
    common = sorted(set.intersection(*(set(each) for each in found.values())))
    return [
        _row(
            name,
            [s[c] for c in common],
            None if s is found[first] else [found[first][c] for c in common],
            remaker,
        )
        for name, s in found.items()
    ]


def _row(
    name: str, ours: Sequence[StreamScore], base: Sequence[StreamScore] | None, remaker: Remaker
) -> BacktestRow:
    means = {m: t_interval([each.measures[m] for each in ours]) for m in MEASURES}
    blocks = sum(each.blocks for each in ours)
    figures = Figures(name, remaker.shape.size, blocks, means)
    if base is None:
        return BacktestRow(figures)
    apart = {
        m: t_interval([a.measures[m] - b.measures[m] for a, b in zip(ours, base, strict=True)])
        for m in COMPARED
    }
    return BacktestRow(figures, apart)


def _scores(
    remaker: Remaker, log: RecordedLog, every: int, among: int, *, adapts: bool = True
) -> dict[StreamId, StreamScore]:
    """Returns the scores of the streams that have enough pairs for one."""
    found: dict[StreamId, StreamScore] = {}
    for stream, pairs in log.pairs.items():
        blocks = list(_blocks(remaker, stream, pairs, every, among, adapts))
        if blocks:
            means = {m: float(np.mean([block[m] for block in blocks])) for m in MEASURES}
            found[stream] = StreamScore(len(blocks), means)
    return found


def _blocks(
    remaker: Remaker,
    stream: StreamId,
    pairs: Sequence[Pair],
    every: int,
    among: int,
    adapts: bool,
) -> Iterator[Scores]:
    theta = remaker.engine.theta
    activations = (theta.activation, theta.output_activation)
    tensors = remaker.engine.theta_mapping()
    for at in range(every, len(pairs), every):
        window, queries = pairs[max(0, at - remaker.shape.size) : at], pairs[at : at + every]
        if not remaker.shape.ready(len(window)):
            continue
        if adapts:
            made, _ = remaker.remade(stream, window, MappingForm())
            tensors = runnable(made)
            activations = (made.facts.activation, made.facts.output_activation)
        end = at + len(queries)
        recent = pairs[max(0, end - max(among, len(queries))) : end]
        x_QD = np.stack([pair.x_D for pair in queries])
        y_YE = np.stack([pair.y_E for pair in recent])
        with np.errstate(all="ignore"):
            o_QE = apply_numpy(tensors, x_QD, *activations)
        found = scores_of(
            euclidean_scores(o_QE[None], y_YE[None])[0],
            np.eye(len(recent))[len(recent) - len(queries) :],
        )
        y_QE = y_YE[len(recent) - len(queries) :]
        loss = float(np.square(o_QE.astype(np.float64) - y_QE).mean())
        score = {m: float(getattr(found, field)) for m, field in FIELDS.items()} | {"loss": loss}
        if all(map(math.isfinite, score.values())):
            yield score
