"""A mapping as a subscriber serves it: verified once, then applied by numpy alone. Pure.

R = rows (inputs), S = support pairs, D = source dim, H = hidden units, E = target dim, G = H + 1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike
from safetensors.numpy import save

from daemon.turn.messages import STARTS_AT_THETA
from daemon.wire.adapted_mapping import (
    AdaptedMapping,
    BadMapping,
    Facts,
    StoredArray,
    runnable,
)
from model.mappings.numpy_mlp import activated, apply_numpy
from model.theta.meta_init import MetaInit, OutputActivation
from model.theta.meta_init_file import meta_init_from_bytes
from model.values.arrays import FloatArray
from model.values.low_rank import SCALES, in_single
from model.values.outside import parse_tensor_file

LARGEST = 2**63 - 1
"""Of the numbers that order mappings."""


@dataclass(frozen=True)
class ServedTheta:
    """θ as a subscriber needs it: to complete `lowrank` mappings, and for unknown streams."""

    version: str
    content_hash: str
    activation: OutputActivation
    output_activation: OutputActivation
    tensors: Mapping[str, FloatArray]
    """w1 (H, D), b1 (H), w2 (E, H), b2 (E)."""
    serves_unknown: bool
    """Whether these tensors are what a stream without pairs starts from. Where θ's generator makes
    that from pairs, they are not, and there is nothing to serve an unknown stream with."""

    @property
    def dims(self) -> tuple[int, int, int]:
        """D, H and E."""
        hidden, source = self.tensors["w1"].shape
        return source, hidden, len(self.tensors["b2"])

    @cached_property
    def w_EG(self) -> FloatArray:
        """The second layer with its bias as the last column."""
        return np.column_stack([self.tensors["w2"], self.tensors["b2"]])

    def __call__(self, x: ArrayLike) -> FloatArray:
        """Maps source features (D,) or (R, D) to target features (E,) or (R, E). Raises ValueError
        for another shape."""
        x_RD, single = as_rows(x, self.dims[0])
        y_RE = apply_numpy(self.tensors, x_RD, self.activation, self.output_activation)
        return y_RE[0] if single else y_RE


def parse_served_theta(data: bytes, where: str) -> ServedTheta:
    """Returns the θ of a file's bytes; `where` names it in errors. Raises BadMetaInit."""
    theta: MetaInit = meta_init_from_bytes(data, where)
    return ServedTheta(
        version=theta.version,
        content_hash=theta.content_hash,
        activation=theta.activation,
        output_activation=theta.output_activation,
        tensors=dict(theta.mapping),
        serves_unknown=theta.generator.kind in STARTS_AT_THETA,
    )


class _ThetaFacts(msgspec.Struct, frozen=True):
    version: str
    content_hash: str
    activation: OutputActivation
    output_activation: OutputActivation
    serves_unknown: bool


def theta_to_bytes(theta: ServedTheta) -> bytes:
    """Returns what a subscriber needs of θ as a safetensors file, for its own snapshot."""
    facts = {name: str(getattr(theta, name)) for name in _ThetaFacts.__struct_fields__}
    return save(dict(theta.tensors), facts)


def theta_from_bytes(data: bytes) -> ServedTheta:
    """Returns the θ that `theta_to_bytes` wrote. Raises ValueError for other bytes."""
    file = parse_tensor_file(data)
    facts = msgspec.convert(file.metadata, _ThetaFacts, strict=False)
    return ServedTheta(tensors=file.tensors, **msgspec.structs.asdict(facts))


class ServedMapping:
    """One stream's mapping. What it maps never changes: a newer one takes its place as a whole."""

    __slots__ = ("_keeps", "_whole", "facts", "stored", "theta")

    def __init__(self, mapping: AdaptedMapping, theta: ServedTheta | None, *, keeps: bool) -> None:
        """`theta` completes a `lowrank` mapping. `keeps` multiplies it out at the first call and
        keeps that; otherwise each call computes from what was published: in less memory, and more
        slowly."""
        self.facts: Facts = mapping.facts
        self.stored: Mapping[str, StoredArray] = mapping.tensors
        """The tensors as they were published."""
        self.theta = theta
        self._keeps = keeps
        plain = (self.facts.encoding, self.facts.dtype) == ("full", "float32")
        self._whole: Mapping[str, Any] | None = mapping.tensors if plain else None

    def __call__(self, x: ArrayLike) -> FloatArray:
        """Maps source features (D,) or (R, D) to target features (E,) or (R, E); takes arrays of
        torch and JAX too. Raises ValueError for another shape."""
        x_RD, single = as_rows(x, self.facts.source_dim)
        y_RE = self._mapped(x_RD)
        return y_RE[0] if single else y_RE

    def _mapped(self, x_RD: FloatArray) -> FloatArray:
        facts = self.facts
        if self._whole is None and self.theta is not None and not self._keeps:
            return _mapped_by_factors(self.theta, in_single(self.stored), x_RD, facts)
        return apply_numpy(self.tensors(), x_RD, facts.activation, facts.output_activation)

    def tensors(self) -> Mapping[str, FloatArray]:
        """Returns w1 (H, D), b1 (H), w2 (E, H) and b2 (E), float32."""
        whole = self._whole
        if whole is None:
            theta = self.theta.tensors if self.theta else None
            whole = _read_only(runnable(self.published, theta))
            if self._keeps:  # two threads may both get here, and make the same
                self._whole = whole
        return whole

    @property
    def nbytes(self) -> int:
        """The bytes of the tensors that are held for this stream alone."""
        held = {id(t): t.nbytes for t in (*self.stored.values(), *(self._whole or {}).values())}
        return sum(held.values())

    @property
    def published(self) -> AdaptedMapping:
        """The mapping as it was published."""
        return AdaptedMapping(self.stored, self.facts)


def needs_theta(facts: Facts) -> bool:
    """Returns whether a mapping can be applied only with its θ."""
    return facts.encoding == "lowrank"


def require_order(facts: Facts) -> None:
    """Raises BadMapping for a mapping that cannot be ordered among others."""
    order = (facts.epoch, facts.version, facts.event_time_ms, facts.partition)
    if not all(0 <= number <= LARGEST for number in order):
        raise BadMapping(f"its order is {order}, which cannot be", "wrong_fact")


def servable(
    mapping: AdaptedMapping, thetas: Mapping[str, ServedTheta], *, keeps: bool = True
) -> ServedMapping:
    """Returns a decoded mapping ready to be applied: its shapes fit, and its numbers are finite.
    `thetas` has θs by content hash; for `keeps` see ServedMapping. Raises BadMapping."""
    facts, stored = mapping.facts, mapping.tensors
    theta = thetas.get(facts.meta_init_hash) if needs_theta(facts) else None
    if theta is None:
        runnable(mapping)  # which checks the shapes, and that no θ is needed
    else:
        _require_fitting(mapping, theta)
    if not all(np.isfinite(tensor).all() for tensor in stored.values()):
        raise BadMapping(f"{facts.stream!r} holds NaN or infinity", "not_finite")
    _read_only(stored)
    return ServedMapping(mapping, theta, keeps=keeps)


def _read_only(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """Other threads read them."""
    for tensor in tensors.values():
        tensor.flags.writeable = False
    return tensors


def _require_fitting(mapping: AdaptedMapping, theta: ServedTheta) -> None:
    """Raises BadMapping unless the factors can be added to θ, and θ has the dimensions of the
    facts."""
    facts, stored = mapping.facts, mapping.tensors
    d, h, e = facts.source_dim, facts.hidden_dim, facts.target_dim
    factors = {name: tensor.shape for name, tensor in stored.items() if name != SCALES}
    s = next((shape[0] for name, shape in factors.items() if name in "xy" and shape), 0)
    fitting = {"x": (s, d), "a": (s, h), "beta": (h,)}
    fitting |= {"y": (s, e), "n": (h + 1, h + 1), "v": (s, h + 1)}
    fits = all(fitting.get(name) == shape for name, shape in factors.items())
    whole = all(factors.keys() >= {one, other} for one, other in ("ax", "vy") if one in factors)
    scales = stored.get(SCALES)
    scaled = scales is None or scales.shape == (len(factors),)
    if not (fits and whole and scaled and theta.dims == (d, h, e)):
        raise BadMapping(f"factors {factors} do not fit θ's {theta.dims}", "wrong_shape")


def _mapped_by_factors(
    theta: ServedTheta, f: Mapping[str, FloatArray], x_RD: FloatArray, facts: Facts
) -> FloatArray:
    """Returns what θ and the factors give, without the two weight matrices that they stand for."""
    z_RH = x_RD @ theta.tensors["w1"].T + (theta.tensors["b1"] + f.get("beta", np.float32(0)))
    if "a" in f:
        z_RH = z_RH + (x_RD @ f["x"].T) @ f["a"]
    h_RH = activated(z_RH, facts.activation)
    h_RG = np.concatenate([h_RH, np.ones((len(h_RH), 1), np.float32)], axis=1)
    changed_RG = h_RG + h_RG @ f["n"].T if "n" in f else h_RG
    y_RE = changed_RG @ theta.w_EG.T
    if "v" in f:
        y_RE = y_RE + (h_RG @ f["v"].T) @ f["y"]
    return activated(y_RE, facts.output_activation)


def as_rows(x: Any, dim: int) -> tuple[FloatArray, bool]:
    """Returns an array of numpy, torch or JAX, or nested lists, as rows (R, D) in float32, and
    whether it was a single one (D,). Raises ValueError for another shape."""
    if hasattr(x, "detach"):  # torch's: perhaps on a device, in bfloat16, with a gradient
        x = x.detach().cpu().float().numpy()
    x_RD = np.asarray(x, np.float32)
    single = x_RD.ndim == 1
    x_RD = np.atleast_2d(x_RD)
    if x_RD.ndim != 2 or x_RD.shape[1] != dim:
        found = tuple(np.shape(x))
        raise ValueError(f"x has shape {found}; expected ({dim},) or (rows, {dim})")
    return x_RD, single
