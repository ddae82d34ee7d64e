"""Which part of the data a stream or a label belongs to: decided by its name, and so for good.

A name's part depends on the name, the seed and the fractions alone. More streams, or another
order, move none of the others: what was a test stream last month is one today.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Fractions:
    """How much goes where; the rest is for training."""

    validation: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        """Raise ValueError unless all three fractions are within 0 and 1."""
        if min(self.validation, self.test) < 0.0 or self.validation + self.test > 1.0:
            raise ValueError(f"fractions of validation and test must fit into 1, not {self}")


def part_of(name: str, seed: int, fractions: Fractions) -> Part:
    """The part of the stream or label of that name."""
    digest = hashlib.sha256(f"{seed}\n{name}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < fractions.test:
        return "test"
    return "validation" if place < fractions.test + fractions.validation else "train"
