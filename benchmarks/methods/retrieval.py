"""`python -m benchmarks retrieval`: our retrieval measures beside torchmetrics', on the same
scores.

R = rows (queries), Y = candidates

Both give R@1, R@5, R@10 (torchmetrics' hit rate), MRR, mAP and NDCG. torchmetrics takes one query
at a time, either through its functions or through its modules, whichever is cheaper here. Scores
are positive and without ties, for there the two mean different things.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.output import Benchmark, NoFigures, Report, Say
from benchmarks.timing import Stopwatch, ratios, take_turns, torch_threads
from model.evaluate.machine import spread
from model.retrieval import scores_of

Case = Literal["one", "graded"]
Figures = dict[str, float]

MEASURES = ("r_at_1", "r_at_5", "r_at_10", "mrr", "mean_ap", "ndcg")
CASES: dict[Case, str] = {
    "one": "one relevant candidate each",
    "graded": "several, in grades 1 to 3",
}
AGREE = 1e-5  # torchmetrics computes in float32
GOAL = 20.0  # how many times less CPU we promise to take


@dataclass(frozen=True, slots=True)
class RetrievalPlan:
    """What is measured, and how much of it."""

    queries: int = 256
    candidates: int = 256
    relevant_share: float = 0.03
    """Of the candidates, in the graded case; the query's own comes on top."""
    repetitions: int = 7  # pairs of measurements, ours and theirs in turn
    calls_of_ours: int = 50  # in one measurement: one call is too short for the clock
    seed: int = 0


QUICK = RetrievalPlan(queries=16, repetitions=1, calls_of_ours=3)


def retrieval_figures(plan: RetrievalPlan, say: Say) -> Report:
    """Measures everything. Raises NoFigures when torchmetrics is missing, or when its results are
    not ours."""
    with torch_threads(1):  # on inputs this small, more only spin
        return {"goal_ratio": GOAL, "cases": {case: _case(plan, case) for case in CASES}}


def inputs(plan: RetrievalPlan, case: Case) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Makes scores (R, Y) in (0, 1], all different, and grades (R, Y)."""
    rng = np.random.default_rng(plan.seed)
    shape = (plan.queries, plan.candidates)
    score_RY = (rng.permutation(plan.queries * plan.candidates) + 1.0).reshape(shape)
    grade_RY = 3 * np.eye(*shape, dtype=np.int64)
    if case == "graded":
        others_RY = rng.integers(1, 4, shape) * (rng.random(shape) < plan.relevant_share)
        grade_RY = np.maximum(grade_RY, others_RY)
    return (score_RY / score_RY.size).astype(np.float32), grade_RY


def _case(plan: RetrievalPlan, case: Case) -> Report:
    score_RY, grade_RY = inputs(plan, case)
    preds, target = torch.from_numpy(score_RY), torch.from_numpy(grade_RY)
    theirs: dict[str, Callable[[], Figures]] = {
        "functions": lambda: by_functions(preds, target),
        "modules": lambda: by_modules(preds, target),
    }
    found = by_ours(score_RY, grade_RY)
    for form, compute in theirs.items():
        for name, value in compute().items():
            if not abs(found[name] - value) <= AGREE:
                whose = f"{case}, torchmetrics {form}"
                raise NoFigures(f"{name}: ours {found[name]}, {whose}: {value}")
    forms = {form: partial(_cpu_ms, compute, 1) for form, compute in theirs.items()}
    mine = partial(_cpu_ms, lambda: by_ours(score_RY, grade_RY), plan.calls_of_ours)
    taken = take_turns({"ours": mine, **forms}, plan.repetitions)
    best = min(forms, key=lambda form: statistics.median(taken[form]))
    return {
        "relevant": CASES[case],
        "results": found,
        "ours_cpu_ms": spread(taken["ours"]),
        "torchmetrics_cpu_ms": {form: spread(taken[form]) for form in forms},
        "ratio_to": best,
        "ratio": ratios(taken[best], taken["ours"]),
    }


def by_ours(score_RY: NDArray[np.float32], grade_RY: NDArray[np.int64]) -> Figures:
    """Computes every measure by `model.retrieval`."""
    scores = scores_of(score_RY, grade_RY)
    return {name: float(getattr(scores, name)) for name in MEASURES}


def by_functions(preds: torch.Tensor, target: torch.Tensor) -> Figures:
    """Computes every measure by torchmetrics' functions, a query at a time."""
    functional = _torchmetrics().functional.retrieval
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in MEASURES}
    for p_Y, t_Y in zip(preds, target, strict=True):
        relevant_Y = t_Y > 0
        for k in (1, 5, 10):
            rows[f"r_at_{k}"].append(functional.retrieval_hit_rate(p_Y, relevant_Y, top_k=k))
        rows["mrr"].append(functional.retrieval_reciprocal_rank(p_Y, relevant_Y))
        rows["mean_ap"].append(functional.retrieval_average_precision(p_Y, relevant_Y))
        rows["ndcg"].append(functional.retrieval_normalized_dcg(p_Y, t_Y))
    return {name: float(torch.stack(values).mean()) for name, values in rows.items()}


def by_modules(preds: torch.Tensor, target: torch.Tensor) -> Figures:
    """Computes every measure by torchmetrics' modules, all queries at once with their indexes."""
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


def _cpu_ms(call: Callable[[], Figures], times: int) -> float:
    """Returns the CPU time of one call: user and system, all threads of this process."""
    watch = Stopwatch()
    watch.run(lambda: [call() for _ in range(times)])
    return 1e3 * watch.cpu_s / times


LIBRARIES = ("torch", "numpy", "torchmetrics")
BENCHMARK = Benchmark("retrieval", RetrievalPlan(), QUICK, LIBRARIES, retrieval_figures)
