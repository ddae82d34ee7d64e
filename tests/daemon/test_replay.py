"""Recorded pairs are made mappings again, and what they are worth is told."""

from __future__ import annotations

import numpy as np

from daemon.config import Settings
from daemon.replay.backtest import backtest
from daemon.replay.log import RecordedLog
from daemon.replay.remake import Remaker
from daemon.turn.streams import StreamId
from daemon.turn.window import Pair, PairId
from daemon.worker.wiring import engine_of
from model.theta.meta_init import fresh_meta_init


def test_blocks_of_more_pairs_than_candidates_are_scored_among_themselves() -> None:
    settings = Settings(support_size=16, device="cpu")
    remaker = Remaker(settings, engine_of(settings, fresh_meta_init(6, 3, 4)))
    rng = np.random.default_rng(0)
    x_RD = rng.normal(size=(100, 6)).astype(np.float32)
    pairs = [Pair(PairId(i, 0), x_D, x_D[:3], i) for i, x_D in enumerate(x_RD)]
    log = RecordedLog({StreamId(0, "s"): pairs})
    now, _ = backtest({"now": (remaker, log)}, every=40, among=8)
    assert now.figures.episodes == 2
    assert now.figures.measures["r_at_1"].mean > 0.9
