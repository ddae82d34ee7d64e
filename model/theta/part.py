"""A part of θ as data: what kind it is, and its tensors. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.values.arrays import FloatArray


@dataclass(frozen=True, slots=True)
class PartSpec:
    """An encoder, a generator or a learner: `config` is JSON-like, has at least a "kind", and is
    read by the file of that kind; `tensors` are float32."""

    config: Mapping[str, Any]
    tensors: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Which file reads it."""
        return str(self.config.get("kind"))

    def rounded(self) -> "PartSpec":
        """Its weights rounded to float16, which a file then stores in half the room."""
        half = {n: t.astype(np.float16).astype(np.float32) for n, t in self.tensors.items()}
        return PartSpec(self.config, half)
