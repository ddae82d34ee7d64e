"""What the cost rule's picks lose, shape by shape and over a grid."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.numerics.forms_fit import fitted
from benchmarks.numerics.forms_shape import Measured
from model.inner.cost_rule import COSTS, Costs, Shape, both_ns

WITHIN = 0.1
"""A pick that costs no more than this beyond the best is as good as the best."""
CONTESTED = 1.5
"""Forms further apart than this are told apart by any rule."""

Entry = dict[str, Any]


def beside(shape: Shape, found: Measured, costs: Costs = COSTS) -> Entry:
    """What the rule picks, and what is faster; times in µs per stream.

    `regret` is what the pick costs beyond the faster form, as a share of that one's cost;
    `regret_read` the same where all mappings are read, which the rule does not ask about.
    """
    hidden_ns, full_ns = both_ns(shape, costs)
    picked = "hidden" if hidden_ns < full_ns else "full"
    hidden_s, read_s, full_s = found
    return {
        **shape._asdict(),
        "hidden_us": _digits(hidden_s * 1e6),
        "hidden_read_us": _digits(read_s * 1e6),
        "full_us": _digits(full_s * 1e6),
        "predicted_hidden_us": _digits(hidden_ns / 1e3),
        "predicted_full_us": _digits(full_ns / 1e3),
        "faster": "hidden" if hidden_s < full_s else "full",
        "picked": picked,
        "apart": _digits(max(hidden_s, full_s) / min(hidden_s, full_s)),
        "regret": _regret(picked, hidden_s, full_s),
        "regret_read": _regret(picked, read_s, full_s),
    }


def summary(entries: Sequence[Entry]) -> dict[str, Any]:
    """Over all shapes; over those where the forms are close; and of no rule at all."""
    figures: dict[str, Any] = {
        "within": WITHIN,
        "all": share(entries),
        "contested": share([entry for entry in entries if entry["apart"] < CONTESTED]),
        "read": share(entries, "regret_read"),
    }
    for form in ("hidden", "full"):
        figures[f"always_{form}"] = share([_always(form, entry) for entry in entries])
    return figures


def share(entries: Sequence[Entry], regret: str = "regret") -> dict[str, Any]:
    """How many picks are as good as the best, and the worst one."""
    if not entries:
        return {"shapes": 0}
    worst = max(entries, key=lambda entry: float(entry[regret]))
    return {
        "shapes": len(entries),
        "share_within": _digits(sum(e[regret] <= WITHIN for e in entries) / len(entries)),
        "worst_regret": worst[regret],
        "worst_shape": {name: worst[name] for name in Shape._fields},
    }


def left_out(times: Mapping[Shape, Measured]) -> dict[str, Any]:
    """`share` where a shape's D and E were left out of the fit that picks for it."""
    entries = []
    for dims in sorted({_dims(shape) for shape in times}):
        others = {shape: found for shape, found in times.items() if _dims(shape) != dims}
        if others:
            costs = fitted(others)
            entries += [beside(s, found, costs) for s, found in times.items() if _dims(s) == dims]
    return share(entries)


def _dims(shape: Shape) -> tuple[int, int]:
    return shape.source_dim, shape.target_dim


def _always(form: str, entry: Entry) -> Entry:
    return entry | {"regret": 0.0 if entry["faster"] == form else _digits(entry["apart"] - 1.0)}


def _regret(picked: str, hidden_s: float, full_s: float) -> float:
    pick_s = hidden_s if picked == "hidden" else full_s
    return _digits(pick_s / min(hidden_s, full_s) - 1.0)


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
