"""What a worker's scrape looks like, without a worker."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from daemon.canary.judge import CanaryJudge
from daemon.turn.report import STAGES, Holdings, Publication, TurnReport, Verdict
from daemon.turn.streams import StreamId
from daemon.worker.metrics import Metrics
from model.values.episode import Adaptation
from model.values.gate import Outcome
from tests.canary.lab import CANARY
from tests.daemon.lab import LinearEngine

THETA = replace(
    LinearEngine.theta,
    version="v1",
    encoder_version="e1",
    source_dim=4,
    hidden_dim=8,
    target_dim=2,
)


def turn(number: int) -> TurnReport:
    """A turn in which everything happened once."""
    stream = StreamId(0, "s")
    losses = Adaptation({}, 0.4, 0.1, 0.5, 0.2, True)
    return TurnReport(
        f"t-{number}",
        stages=dict.fromkeys(STAGES, 0.01),
        events=10,
        pairs=9,
        replayed_pairs=1,
        dead_letters=Counter({"schema": 1}),
        loaded=1,
        evicted=1,
        verdicts=[Verdict(stream, number, 4, 1, losses, outcome) for outcome in Outcome],
        published=[Publication(stream, number, outcome, 0.3) for outcome in Outcome],
        claimed={0: 1},
        holdings=Holdings(1, 1, 0, 1, 4096, {0: 3, 1: 0}, owed_since_ms={0: None, 1: None}),
    )


def metrics_after(turns: int, now: float = 1_700_000_000.0) -> Metrics:
    """A worker's metrics after so many turns."""
    metrics = Metrics(dict.fromkeys(("version", "revision", "torch", "client"), "1"))
    metrics.serves(THETA, "cpu")
    metrics.watch_ready(lambda: True)
    metrics.canary_judged(CANARY, CanaryJudge(CANARY).standing())
    for number in range(turns):
        metrics.record(turn(number), now)
    return metrics
