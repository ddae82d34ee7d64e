"""The adapted mapping: a safetensors file whose metadata says where it comes from.

The same facts are headers of the record, so that a reader can filter without parsing the value.
Readers keep, for each stream, the record with the largest (epoch, version) of a partition of
events, and between two partitions that with the larger (event_time_ms, partition).

Each record says what its tensors are, and one topic may hold records of every kind:

    encoding   dtype     format   tensors
    full       float32   /1       w1 (H, D), b1 (H), w2 (E, H), b2 (E)
    full       float16   /2       the same
    lowrank    float32   /2       what was added to θ: x, a, beta, y, n, v (`model.values.low_rank`)
    lowrank    float16   /2       the same, and `scales` (float32): factors for them, by name

S = support pairs, D = source dim, H = hidden units, E = target dim, G = H + 1

The factors are x (S, D), a (S, H), beta (H), y (S, E), n (G, G) and v (S, G); those that change
nothing are left out.

`full` in float32 keeps the format /1, so that readers that know no other work as before. Such
readers cannot use the other kinds. Most of them verify the content hash first; the hash of /2
begins with the encoding, so it never matches for them, and they skip the record as damaged.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.theta.meta_init import OutputActivation
from model.values.arrays import FloatArray
from model.values.gate import Outcome
from model.values.low_rank import SCALES, in_single, multiplied_out
from model.values.outside import parse_tensor_file, raising_only

FORMAT = "adapted-mapping/1"
FORMAT_2 = "adapted-mapping/2"
KIND = "mlp"
HEADER_PREFIX = "adaptd-"
SAFETENSORS_DTYPES = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16"}

Encoding = Literal["full", "lowrank"]
Dtype = Literal["float32", "float16"]
StoredArray = NDArray[Any]
"""float32 or float16."""


BadMappingReason = Literal[
    "not_a_mapping",
    "missing_fact",
    "wrong_fact",
    "unknown_format",
    "wrong_hash",
    "unknown_theta",
    "wrong_shape",
    "not_finite",
]
"""Why a mapping cannot be used: a label of a subscriber's metrics."""


class BadMapping(ValueError):
    """A record's value is no adapted mapping, or one that cannot be applied; the message says
    why, and `reason` says it in a word."""

    def __init__(self, detail: str, reason: BadMappingReason = "not_a_mapping") -> None:
        super().__init__(detail)
        self.reason: BadMappingReason = reason


def format_of(encoding: Encoding, dtype: Dtype) -> str:
    """Returns the format of a record of this kind."""
    return FORMAT if (encoding, dtype) == ("full", "float32") else FORMAT_2


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a reader may want to know about a mapping besides its tensors."""

    format: str = FORMAT
    kind: str
    """How to apply it; `mlp`: f(x) = σo(w2·σ(w1·x + b1) + b2)."""
    activation: OutputActivation
    """σ: relu, gelu, tanh, sigmoid, or none (outcome `ridge`: a linear map)."""
    output_activation: OutputActivation
    """σo: one of the same, usually none."""
    source_modality: str
    target_modality: str
    source_dim: int
    hidden_dim: int
    target_dim: int
    stream: str
    outcome: Outcome
    """`adapted`: θ′; `ridge`: a linear map, clearly better than θ′ and θ (or θ was never
    meta-trained, and θ′ not clearly better); `worse` or `not_finite`: the fallback, θ itself, for
    θ was clearly better than θ′ or that is not finite."""
    epoch: int
    """The epoch of the tenure that published it; with `version` it orders a stream's mappings."""
    version: int
    """The newest source offset in the window."""
    topic: str
    partition: int
    meta_init: str
    """The version of θ."""
    meta_init_hash: str
    """θ's content hash, hexadecimal; a `lowrank` mapping can be applied only with that θ."""
    generator: str
    learner: str
    encoder: str
    loss: str
    """What the losses below measure: mse or cosine."""
    support_pairs: int
    """How many pairs the mapping learned from: all of the window. (θ, the fallback, learned from
    none, and says the same number.)"""
    query_pairs: int
    """How many of them, the newest, candidates were judged on before any learned from them; pairs
    whose source occurs among the older ones do not judge."""
    support_loss_before: float
    """The mean loss of θ on the support, the pairs older than the query; the others are likewise
    of θ (before), θ′ (after) and ridge regression, adapted to the support alone."""
    support_loss_after: float
    query_loss_before: float
    query_loss_after: float
    query_loss_ridge: float
    candidate: str = ""
    """The candidate that won: `adapted` (θ′), `theta`, `ridge` or `procrustes`. Empty in
    records that are older than this fact; `outcome` says whether it is linear, and why."""
    ahead_squared: float = math.nan
    """The evidence: by how many standard errors of its paired differences, on the query pairs, the
    winner is ahead of the nearest other candidate in squared error. Negative where it is behind;
    it was then not clearly worse in both measures. From -99 to 99; NaN where nothing compared."""
    ahead_cosine: float = math.nan
    """The same in cosine distance, seen from the mean of the support's targets."""
    event_time_ms: int
    """When the newest pair happened (ms, UTC)."""
    published_at_ms: int
    turn: str
    """The id of the turn that published it; the worker's log says which offsets that turn read."""
    encoding: Encoding = "full"
    """`full`: the mapping's tensors; `lowrank`: what was added to θ, as factors."""
    dtype: Dtype = "float32"
    """The dtype of the tensors."""
    content_hash: str
    """The `content_hash` of the tensors, hexadecimal."""
    window_since: int = -1
    """The oldest source offset in the window: where the window begins, and after a change of the
    stream where it was cut. -1 in records of before there was this fact."""

    def as_strings(self) -> dict[str, str]:
        """Returns every fact as text, floats so that they read back exactly."""
        facts: dict[str, object] = msgspec.to_builtins(self)
        return {name: str(value) for name, value in facts.items()}


REQUIRED_FACTS = frozenset(f.name for f in msgspec.structs.fields(Facts) if f.required)
"""What no record lacks; the other facts came later."""


@dataclass(frozen=True, slots=True)
class AdaptedMapping:
    """One stream's mapping as published; `runnable` returns the mapping to apply."""

    tensors: Mapping[str, StoredArray]
    facts: Facts


def content_hash(
    tensors: Mapping[str, StoredArray],
    encoding: Encoding = "full",
    dtype: Dtype = "float32",
    meta_init_hash: str = "",
) -> str:
    """Returns the SHA-256, hexadecimal, over each tensor's name, shape and little-endian bytes, in
    the order of their names. In the format /2 it begins with what else is needed to apply them: the
    encoding, the dtype, and for `lowrank` the hash of θ."""
    digest = hashlib.sha256()
    if format_of(encoding, dtype) != FORMAT:
        theta = meta_init_hash if encoding == "lowrank" else ""
        digest.update(f"{FORMAT_2};{encoding};{dtype};{theta};".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{','.join(map(str, tensor.shape))};".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def encode_mapping(mapping: AdaptedMapping) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    """Returns the record's value and headers."""
    facts = mapping.facts.as_strings()
    headers = tuple([(HEADER_PREFIX + name, text.encode()) for name, text in facts.items()])
    return _safetensors(mapping.tensors, facts), headers


def _safetensors(tensors: Mapping[str, StoredArray], metadata: Mapping[str, str]) -> bytes:
    """Returns the file that `safetensors.numpy.save` writes, but copies the tensors once and not
    four times. Wider numbers come first, so that all tensors are aligned."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    header: dict[str, object] = {"__metadata__": metadata}
    at = 0
    for name, tensor in ordered:
        end = at + tensor.nbytes
        dtype = SAFETENSORS_DTYPES[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": (at, end)}
        at = end
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    data = (np.ascontiguousarray(tensor).data for _, tensor in ordered)  # a view's values
    return b"".join([len(text).to_bytes(8, "little"), text, *data])


def decode_mapping(value: bytes) -> AdaptedMapping:
    """Parses a record's value; the tensors stay as they are stored. Raises BadMapping, whatever the
    bytes are: no mapping, an unknown format, tensors that do not match their content hash."""
    with _refusing("not_a_mapping"):
        file = parse_tensor_file(value)
    with _refusing("unknown_format"):
        _check_known(file.metadata)
    with _refusing(_fault_of(file.metadata)):
        facts = msgspec.convert(file.metadata, Facts, strict=False)
    with _refusing("unknown_format"):
        _check_format(file.tensors, facts)
    with _refusing("wrong_hash"):
        found = content_hash(file.tensors, facts.encoding, facts.dtype, facts.meta_init_hash)
        if found != facts.content_hash:
            raise ValueError(f"the tensors of {facts.stream!r} do not match their content hash")
    return AdaptedMapping(file.tensors, facts)


def _refusing(reason: BadMappingReason) -> AbstractContextManager[None]:
    return raising_only(partial(BadMapping, reason=reason), "not an adapted mapping")


def _check_known(metadata: Mapping[str, str]) -> None:
    """Raises ValueError where the record says itself that it is of a later kind than these."""
    for name, known in {"format": (FORMAT, FORMAT_2), "kind": (KIND,)}.items():
        if (found := metadata.get(name, known[0])) not in known:
            raise ValueError(f"its {name} is {found!r}; known here: {', '.join(known)}")


def _fault_of(metadata: Mapping[str, str]) -> BadMappingReason:
    """Returns what is wrong with facts that cannot be converted."""
    return "wrong_fact" if metadata.keys() >= REQUIRED_FACTS else "missing_fact"


def _check_format(tensors: Mapping[str, StoredArray], facts: Facts) -> None:
    if facts.format != format_of(facts.encoding, facts.dtype):
        kind = f"{facts.encoding} in {facts.dtype} as {facts.format!r}"
        raise ValueError(f"its kind is not known here: {kind}")
    dtypes = {str(tensor.dtype) for name, tensor in tensors.items() if name != SCALES}
    if dtypes - {facts.dtype}:
        raise ValueError(f"{sorted(dtypes)} instead of {facts.dtype}")


def runnable(
    mapping: AdaptedMapping, theta: Mapping[str, FloatArray] | None = None
) -> Mapping[str, FloatArray]:
    """Returns the mapping to apply: w1 (H, D), b1 (H), w2 (E, H), b2 (E), float32.

    `theta` is the mapping of the θ whose content hash is `meta_init_hash`; a `lowrank` mapping
    needs it. Raises BadMapping when it is needed and missing, or the tensors do not fit together.
    """
    facts = mapping.facts
    if facts.encoding == "lowrank" and theta is None:
        needed = f"{facts.stream!r} needs θ {facts.meta_init} ({facts.meta_init_hash})"
        raise BadMapping(needed, "unknown_theta")
    unfit = partial(BadMapping, reason="wrong_shape")
    with raising_only(unfit, f"the mapping of {facts.stream!r}"):
        if theta is not None and facts.encoding == "lowrank":
            return multiplied_out(mapping.tensors, theta)
        return _whole(in_single(mapping.tensors), facts)


def _whole(tensors: Mapping[str, FloatArray], facts: Facts) -> Mapping[str, FloatArray]:
    """Returns the tensors of a whole mapping, whose shapes must be those that its facts say."""
    d, h, e = facts.source_dim, facts.hidden_dim, facts.target_dim
    wanted = {"w1": (h, d), "b1": (h,), "w2": (e, h), "b2": (e,)}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != wanted:
        raise ValueError(f"shapes {found}, its facts ask for {wanted}")
    return tensors
