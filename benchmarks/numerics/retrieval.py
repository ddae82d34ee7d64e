"""`python -m benchmarks retrieval`: our retrieval measures beside torchmetrics', on the same
scores.

Q = queries, C = candidates

Both give R@1, R@5, R@10 (torchmetrics' hit rate), MRR, mAP and NDCG. torchmetrics takes one query
at a time, either through its functions or through its modules, whichever is cheaper here. Scores
are positive and without ties, for there the two mean different things.
"""

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from model.evaluate.machine import machine, spread
from model.retrieval import scores_of

Case = Literal["one", "graded"]
Figures = dict[str, float]

MEASURES = ("r_at_1", "r_at_5", "r_at_10", "mrr", "mean_ap", "ndcg")
CASES: dict[Case, str] = {
    "one": "one relevant candidate each",
    "graded": "several, in grades 1 to 3",
}
AGREE = 1e-5
"""torchmetrics computes in float32."""
TARGET = 20.0
"""How many times less CPU we promise to take."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One benchmark."""

    queries: int = 256
    candidates: int = 256
    relevant_share: float = 0.03
    """Of the candidates, in the graded case; the query's own comes on top."""
    repetitions: int = 7
    """Pairs of measurements, ours and theirs in turn."""
    calls_of_ours: int = 50
    """In one measurement: one call is too short for the clock."""
    seed: int = 0


QUICK = Plan(queries=16, repetitions=1, calls_of_ours=3)
"""Shows that everything works; its figures mean little."""


class NoFigures(Exception):
    """The benchmark cannot be run, or the two do not compute the same."""


def bench(plan: Plan) -> dict[str, Any]:
    """Everything, as one JSON-like object.

    Raises NoFigures when torchmetrics is missing, or when its results are not ours.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on inputs this small, more only spin
    try:
        cases = {case: _case(plan, case) for case in CASES}
    finally:
        torch.set_num_threads(threads)
    return {
        "bench": "retrieval",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": dataclasses.asdict(plan),
        "machine": machine(("torch", "numpy", "torchmetrics")),
        "target_ratio": TARGET,
        "cases": cases,
    }


def inputs(plan: Plan, case: Case) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores (Q, C) in (0, 1], all different, and grades (Q, C)."""
    rng = np.random.default_rng(plan.seed)
    shape = (plan.queries, plan.candidates)
    score_QC = (rng.permutation(plan.queries * plan.candidates) + 1.0).reshape(shape)
    grade_QC = 3 * np.eye(*shape, dtype=np.int64)
    if case == "graded":
        others_QC = rng.integers(1, 4, shape) * (rng.random(shape) < plan.relevant_share)
        grade_QC = np.maximum(grade_QC, others_QC)
    return (score_QC / score_QC.size).astype(np.float32), grade_QC


def _case(plan: Plan, case: Case) -> dict[str, Any]:
    score_QC, grade_QC = inputs(plan, case)
    preds, target = torch.from_numpy(score_QC), torch.from_numpy(grade_QC)
    forms: dict[str, Callable[[], Figures]] = {
        "functions": lambda: by_functions(preds, target),
        "modules": lambda: by_modules(preds, target),
    }
    found = ours(score_QC, grade_QC)
    for form, theirs in forms.items():
        _check(found, theirs(), f"{case}, torchmetrics {form}")
    ours_ms, theirs_ms = [], {form: list[float]() for form in forms}
    for _ in range(plan.repetitions):
        ours_ms.append(_cpu_ms(lambda: ours(score_QC, grade_QC), plan.calls_of_ours))
        for form, theirs in forms.items():
            theirs_ms[form].append(_cpu_ms(theirs, 1))
    best = min(theirs_ms, key=lambda form: statistics.median(theirs_ms[form]))
    ratios = [theirs / mine for theirs, mine in zip(theirs_ms[best], ours_ms, strict=True)]
    return {
        "relevant": CASES[case],
        "results": found,
        "ours_cpu_ms": spread(ours_ms),
        "torchmetrics_cpu_ms": {form: spread(values) for form, values in theirs_ms.items()},
        "ratio_to": best,
        "ratio": spread(ratios),
    }


def ours(score_QC: NDArray[np.float32], grade_QC: NDArray[np.int64]) -> Figures:
    """Every measure by `model.retrieval`."""
    scores = scores_of(score_QC, grade_QC)
    return {name: float(getattr(scores, name)) for name in MEASURES}


def by_functions(preds: torch.Tensor, target: torch.Tensor) -> Figures:
    """Every measure by torchmetrics' functions, a query at a time."""
    functional = _torchmetrics().functional.retrieval
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in MEASURES}
    for p_C, t_C in zip(preds, target, strict=True):
        relevant_C = t_C > 0
        for k in (1, 5, 10):
            rows[f"r_at_{k}"].append(functional.retrieval_hit_rate(p_C, relevant_C, top_k=k))
        rows["mrr"].append(functional.retrieval_reciprocal_rank(p_C, relevant_C))
        rows["mean_ap"].append(functional.retrieval_average_precision(p_C, relevant_C))
        rows["ndcg"].append(functional.retrieval_normalized_dcg(p_C, t_C))
    return {name: float(torch.stack(values).mean()) for name, values in rows.items()}


def by_modules(preds: torch.Tensor, target: torch.Tensor) -> Figures:
    """Every measure by torchmetrics' modules, all queries at once with their indexes."""
    retrieval = _torchmetrics().retrieval
    modules = {f"r_at_{k}": retrieval.RetrievalHitRate(top_k=k) for k in (1, 5, 10)}
    modules |= {"mrr": retrieval.RetrievalMRR(), "mean_ap": retrieval.RetrievalMAP()}
    modules |= {"ndcg": retrieval.RetrievalNormalizedDCG()}
    indexes = torch.arange(len(preds))[:, None].expand_as(preds)
    for name, module in modules.items():
        module.update(preds, target if name == "ndcg" else target > 0, indexes=indexes)
    return {name: float(module.compute()) for name, module in modules.items()}


def _torchmetrics() -> Any:
    """Only here, and only when asked: it comes with the `bench` extra and takes a second."""
    try:
        import torchmetrics
    except ImportError as error:
        raise NoFigures("torchmetrics is not installed: pip install -e '.[bench]'") from error
    return torchmetrics


def _check(found: Figures, theirs: Figures, whose: str) -> None:
    for name, value in found.items():
        if not abs(value - theirs[name]) <= AGREE:
            raise NoFigures(f"{name}: ours {value}, {whose}: {theirs[name]}")


def _cpu_ms(call: Callable[[], Figures], times: int) -> float:
    """Of one call: user and system time of this process, all its threads."""
    began = time.process_time()
    for _ in range(times):
        call()
    return 1e3 * (time.process_time() - began) / times


def as_table(report: dict[str, Any]) -> Table:
    """For a terminal."""
    plan, machine = report["parameters"], report["machine"]
    table = Table(
        title=f"{plan['queries']} queries x {plan['candidates']} candidates: CPU ms, six measures",
        caption=f"{machine['cpu']}, numpy {machine['numpy']}, torch {machine['torch']}, "
        f"torchmetrics {machine['torchmetrics']}; medians of {plan['repetitions']}",
    )
    for heading in ("relevant", "ours", "torchmetrics functions", "modules", "ratio", "least"):
        table.add_column(heading, justify="right")
    for case in report["cases"].values():
        theirs, ratio = case["torchmetrics_cpu_ms"], case["ratio"]
        figures = [case["ours_cpu_ms"], theirs["functions"], theirs["modules"]]
        cells = [f"{figure['median']:.3g}" for figure in figures]
        table.add_row(case["relevant"], *cells, f"{ratio['median']:.0f}", f"{ratio['min']:.0f}")
    return table


def command(quick: bool, out: Path | None) -> int:
    """Print the figures as JSON on stdout and as a table on stderr; the exit code."""
    console = Console(stderr=True)
    try:
        report = bench(QUICK if quick else Plan())
    except NoFigures as error:
        console.print(f"benchmarks: no figures: {error}", markup=False)
        return 1
    console.print(as_table(report))
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if out is not None:
        out.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0
