"""Meta-test on the held-out vendor's drawings: adapted mapping against θ and ridge regression.

N = pictures, S = support pairs, Q = query pairs (128), D = source dim, E = target dim

    python -m model.evaluate.emoji [--meta-init FILE] [--tenants 40] [--seeds 3]

A tenant is synthetic; its support and query share no concept. R@1 is among the 128 query
concepts of that tenant. All three see the same features.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from model.baselines import fit_ridge
from model.data import emoji
from model.engine import Engine
from model.episode import Episode, FloatArray
from model.mappings.numpy_mlp import apply_numpy
from model.meta_init import MetaInit, load, shipped
from model.retrieval import recall_at_1

SUPPORT_SIZES = (5, 16, 64)
CANDIDATES = 128
TENANT_SEED = 1_000_000
"""Test tenants' seeds start here, far from any that training or the demo draws."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over tenants and seeds, at one number of support pairs."""

    pairs: int
    r_at_1: dict[str, float]
    """Of `adapted`, `theta`, `ridge`."""
    query_loss: dict[str, float]
    """Mean squared error of `adapted`, `theta`, `ridge`."""
    improved: float
    """The share of episodes whose query loss is no worse after adaptation than before."""


def evaluate(
    meta_init: MetaInit,
    tenants: int = 40,
    seeds: int = 3,
    sizes: tuple[int, ...] = SUPPORT_SIZES,
    vendor: str = emoji.HELD_OUT_VENDOR,
    split: emoji.Split = "train",
) -> list[Scores]:
    """Scores at each support size, on a CPU; `seeds` episodes of each of `tenants` tenants."""
    engine = Engine(meta_init, "cpu", support_capacity=max(sizes), query_capacity=CANDIDATES)
    drawn = emoji.drawn_by(vendor, split)
    x_ND = engine.encode("source", list(emoji.sheet(vendor)[drawn]))
    return [
        _score(engine, meta_init, _episodes(x_ND, drawn, pairs, tenants, seeds)) for pairs in sizes
    ]


def _episodes(
    x_ND: FloatArray, drawn: NDArray[np.int64], pairs: int, tenants: int, seeds: int
) -> list[Episode]:
    episodes = []
    for tenant in range(TENANT_SEED, TENANT_SEED + tenants):
        y_NE = emoji.Tenant(tenant).targets()[drawn]
        for seed in range(seeds):
            order_N = np.random.default_rng([tenant, seed]).permutation(len(drawn))
            s, q = order_N[:pairs], order_N[pairs : pairs + CANDIDATES]
            episodes.append(Episode(x_ND[s], y_NE[s], x_ND[q], y_NE[q]))
    return episodes


def _score(engine: Engine, meta_init: MetaInit, episodes: list[Episode]) -> Scores:
    recalls, losses = defaultdict(list), defaultdict(list)
    improved = []
    activation = meta_init.activation
    for episode, adapted in zip(episodes, engine.adapt(episodes), strict=True):
        ridge = fit_ridge(episode.x_support_SD, episode.y_support_SE)
        predictions = {
            "adapted": apply_numpy(adapted.tensors, episode.x_query_QD, activation),
            "theta": apply_numpy(meta_init.mapping, episode.x_query_QD, activation),
            "ridge": ridge(episode.x_query_QD),
        }
        truth_Q = np.arange(len(episode.y_query_QE))
        for name, o_QE in predictions.items():
            recalls[name].append(recall_at_1(o_QE, episode.y_query_QE, truth_Q))
            losses[name].append(float(np.square(o_QE - episode.y_query_QE).mean()))
        improved.append(adapted.query_loss_after <= adapted.query_loss_before)
    return Scores(
        pairs=len(episodes[0].x_support_SD),
        r_at_1={name: float(np.mean(values)) for name, values in recalls.items()},
        query_loss={name: float(np.mean(values)) for name, values in losses.items()},
        improved=float(np.mean(improved)),
    )


def as_table(title: str, scores: list[Scores]) -> Table:
    """For a terminal."""
    table = Table(title=title)
    for heading in ("pairs", "R@1 adapted", "θ", "ridge", "loss adapted", "θ", "ridge", "improved"):
        table.add_column(heading, justify="right")
    for row in scores:
        figures = [*row.r_at_1.values(), *row.query_loss.values(), row.improved]
        table.add_row(str(row.pairs), *(f"{figure:.3f}" for figure in figures))
    return table


def as_fact(scores: list[Scores]) -> str:
    """For a checkpoint's facts: JSON, rounded."""
    rows = [
        {
            "pairs": row.pairs,
            "r_at_1": {name: round(value, 3) for name, value in row.r_at_1.items()},
            "query_loss": {name: round(value, 3) for name, value in row.query_loss.items()},
            "improved": round(row.improved, 3),
        }
        for row in scores
    ]
    return json.dumps(rows, sort_keys=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Meta-test of a θ on the held-out vendor's emoji.")
    parser.add_argument("--meta-init", type=Path, default=shipped())
    parser.add_argument("--tenants", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    meta_init = load(arguments.meta_init)
    scores = evaluate(meta_init, arguments.tenants, arguments.seeds)
    title = f"{meta_init.version}: {emoji.HELD_OUT_VENDOR}, {arguments.tenants} synthetic tenants"
    Console().print(as_table(title, scores))


if __name__ == "__main__":
    main()
