"""`python -m benchmarks canary`: how often the judge of canaries errs, and how long it takes.

R = rows (trials), B = streams in batch (of a trial, in order)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.canary.trials import Trials, TrialVerdicts, verdicts
from benchmarks.output import Benchmark, Report, Say
from daemon.canary.judge import ALPHA


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """How many trials are drawn."""

    null_runs: int = 2_000
    runs: int = 200
    streams: int = 1_000
    """Of a trial, at most."""
    seed: int = 1
    gains: tuple[float, ...] = (0.3, 0.2, 0.1, 0.07, 0.05)
    harmed: tuple[float, ...] = (0.1, 0.2, 0.3)
    attempts: tuple[int, ...] = (1, 3, 10)


def canary_figures(plan: CanaryPlan, say: Say) -> Report:
    """Draws the trials, judges them and counts."""
    nulls = Trials(plan.null_runs, plan.streams, plan.seed).nulls()
    null = {name: _counted(verdicts(d_RB)) for name, d_RB in nulls.items()}
    say("promoted though no better: " + ", ".join(f"{k} {n['won']}" for k, n in null.items()))
    drawn = Trials(plan.runs, plan.streams, plan.seed + 1)
    return {
        "alpha": ALPHA,
        "null": null,
        "harmful": {str(s): _counted(verdicts(drawn.harmful(s))) for s in plan.harmed},
        "gains": {
            str(gain): {str(k): _counted(verdicts(drawn.gaining(gain), k)) for k in plan.attempts}
            for gain in plan.gains
        },
    }


def _counted(found: TrialVerdicts) -> dict[str, Any]:
    decided_R = found.won_R | found.lost_R
    streams_R = found.streams_R[decided_R]
    quantiles = np.quantile(streams_R, [0.1, 0.5, 0.9]).tolist() if len(streams_R) else []
    return {
        "runs": len(found.won_R),
        "won": int(found.won_R.sum()),
        "lost": int(found.lost_R.sum()),
        "streams": [round(q) for q in quantiles],
    }


def canary_faults(report: Report) -> list[str]:
    """Returns a line for each kind of candidate that was promoted too often."""
    allowed = {name: ALPHA * n["runs"] for name, n in report["null"].items()}
    wrong = [
        f"{name}: {report['null'][name]['won']} of {report['null'][name]['runs']} promoted, no "
        "better"
        for name, most in allowed.items()
        if report["null"][name]["won"] > most
    ]
    harm = [
        f"{n['won']} of {n['runs']} promoted that harm {share}"
        for share, n in report["harmful"].items()
        if n["won"] and float(share) >= 0.2
    ]
    return wrong + harm


QUICK = CanaryPlan(null_runs=200, runs=20, streams=300)
BENCHMARK = Benchmark(
    "canary", CanaryPlan(), QUICK, ("adaptd", "numpy"), canary_figures, canary_faults
)
