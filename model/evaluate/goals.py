"""What is to be reached on emoji tenants, and what a prototype reached.

R@1 among 128 candidates with 5, 16 and 64 support pairs, of the prototype's own CNN. None of it
is measured here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PAIRS = (5, 16, 64)
SOURCE = "prototypes: short trainings with another encoder; to reach: what this project set itself"

Setting = Literal["low-rank", "rotation", "both: low-rank", "both: rotation"]
Triple = tuple[float, float, float]

CEILINGS: Mapping[Setting, float] = {"low-rank": 0.69, "rotation": 0.57}
"""With the tenant's rotation known, by the prototype's encoder."""

PROTOTYPES: Mapping[Setting, Mapping[str, Triple]] = {
    "low-rank": {
        "ridge": (0.033, 0.060, 0.136),
        "joint": (0.14, 0.14, 0.14),
        "joint + fine-tuning": (0.145, 0.174, 0.252),
        "Procrustes on shared": (0.055, 0.119, 0.323),
        "maml": (0.189, 0.279, 0.462),
        "attention": (0.651, 0.646, 0.662),
    },
    "rotation": {
        "ridge": (0.031, 0.046, 0.096),
        "joint + fine-tuning": (0.02, 0.03, 0.05),
        "Procrustes on shared": (0.056, 0.133, 0.265),
        "maml": (0.085, 0.230, 0.395),
        "attention": (0.117, 0.337, 0.565),
    },
    "both: low-rank": {"attention": (0.319, 0.462, 0.570)},
    "both: rotation": {"attention": (0.117, 0.337, 0.565)},
}
"""By method; for a θ that ships by its generator, or by its learner where the generator is mlp.
On rotations `attention` is the best prototype there was, of the same kind."""

TO_REACH: Mapping[Setting, Triple] = {
    "low-rank": (0.66, 0.67, 0.68),
    "rotation": (0.12, 0.35, 0.57),
    "both: low-rank": (0.45, 0.50, 0.57),
    "both: rotation": (0.12, 0.35, 0.57),
}
"""By the best θ of the setting."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is printed beside; None where nothing is known."""

    prototype: float | None
    to_reach: float | None


def goal(setting: Setting | None, method: str, pairs: int, *, judged: bool) -> Goal:
    """The goal of a method (see PROTOTYPES); `judged` ones have the target to reach."""
    if setting is None or pairs not in PAIRS:
        return Goal(None, None)
    place = PAIRS.index(pairs)
    if method == "ceiling":
        return Goal(CEILINGS.get(setting), None)
    prototype = PROTOTYPES[setting].get(method)
    return Goal(
        None if prototype is None else prototype[place],
        TO_REACH[setting][place] if judged else None,
    )
