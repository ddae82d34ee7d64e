"""How much `python -m benchmarks subscriber` measures, and the mappings that it publishes.

S = support pairs, D = source dim, H = hidden units, E = target dim, G = H + 1
"""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from daemon.client.conformance import recorded
from daemon.wire.adapted_mapping import (
    AdaptedMapping,
    Dtype,
    Encoding,
    StoredArray,
    decode_mapping,
    encode_mapping,
)
from model.theta.meta_init import MetaInit, fresh_meta_init
from model.values.low_rank import in_half


@dataclass(frozen=True, slots=True)
class PublishedForm:
    """One form of mapping: its dimensions, encoding and dtype."""

    source_dim: int
    hidden_dim: int
    target_dim: int
    encoding: Encoding
    dtype: Dtype

    @property
    def name(self) -> str:
        """The form in words."""
        dims = f"{self.source_dim}→{self.hidden_dim}→{self.target_dim}"
        return f"{self.encoding} {self.dtype} {dims}"


@dataclass(frozen=True, slots=True)
class SubscriberPlan:
    """What is measured of each form."""

    rate: int = 1_000
    """Mappings per second, over all streams."""
    seconds: float = 10.0
    streams: int = 1_000
    support_pairs: int = 16
    forms: tuple[PublishedForm, ...] = (
        PublishedForm(64, 64, 64, "full", "float32"),
        PublishedForm(512, 128, 512, "lowrank", "float16"),
    )


QUICK = SubscriberPlan(rate=100, seconds=1.0, streams=20)


def theta_of(form: PublishedForm) -> MetaInit:
    """Returns the θ that a form's mappings belong to."""
    return fresh_meta_init(form.source_dim, form.target_dim, form.hidden_dim)


class Publications:
    """Records of one form; only their facts differ, so that a record costs little to make."""

    def __init__(self, form: PublishedForm, pairs: int) -> None:
        self._tensors = _tensors(form, pairs)
        example = recorded(theta_of(form), form.encoding, form.dtype, self._tensors)
        self._facts = msgspec.structs.replace(decode_mapping(example).facts, support_pairs=pairs)

    def value(self, stream: str, version: int, now_ns: int) -> bytes:
        """Returns the value of a record that is published now; its fact `turn` holds the time."""
        changes: dict[str, Any] = {"stream": stream, "version": version, "turn": str(now_ns)}
        changes |= {"published_at_ms": now_ns // 1_000_000}
        facts = msgspec.structs.replace(self._facts, **changes)
        return encode_mapping(AdaptedMapping(self._tensors, facts))[0]


def _tensors(form: PublishedForm, pairs: int) -> dict[str, StoredArray]:
    d, h, e = form.source_dim, form.hidden_dim, form.target_dim
    whole = {"w1": (h, d), "b1": (h,), "w2": (e, h), "b2": (e,)}
    factors = {
        **{"x": (pairs, d), "a": (pairs, h), "beta": (h,)},
        **{"y": (pairs, e), "n": (h + 1, h + 1), "v": (pairs, h + 1)},
    }
    rng = np.random.default_rng(0)
    shapes = whole if form.encoding == "full" else factors
    tensors: dict[str, StoredArray] = {
        name: (rng.standard_normal(shape) / 30).astype(np.float32) for name, shape in shapes.items()
    }
    if form.dtype == "float32":
        return tensors
    if form.encoding == "full":
        return {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    return in_half(tensors, lambda numbers: numbers.astype(np.float16))
