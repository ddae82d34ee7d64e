"""A part of θ as data: its kind and sizes, and its tensors. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.values.arrays import FloatArray


@dataclass(frozen=True, slots=True)
class PartSpec:
    """An encoder, a generator or a learner, as θ files hold it.

    `config` is what JSON can hold, with at least a "kind"; the code of that kind checks the rest.
    `tensors` are float32.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind in its config, such as "maml" or "cnn/2"."""
        return str(self.config.get("kind"))

    def rounded(self) -> "PartSpec":
        """Returns it with weights rounded to float16, which a file stores in half the room."""
        half = {n: t.astype(np.float16).astype(np.float32) for n, t in self.tensors.items()}
        return PartSpec(self.config, half)
