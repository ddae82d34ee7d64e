"""The adapted mapping: a safetensors file whose metadata says where it comes from.

The same facts are the record's headers, so that a reader can filter without parsing the value.
Readers keep, for each stream, the record with the largest (epoch, version).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from model.episode import FloatArray
from model.gate import Outcome
from model.meta_init import OutputActivation

FORMAT = "adapted-mapping/1"
HEADER_PREFIX = "adaptd-"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a reader may want to know about a mapping besides its tensors."""

    format: str = FORMAT
    kind: str
    """How to run it; `mlp`: f(x) = σo(w2·σ(w1·x + b1) + b2)."""
    activation: OutputActivation
    """σ: relu, gelu, tanh, sigmoid, or none (ridge: a linear mapping)."""
    output_activation: OutputActivation
    """σo: the same, usually none."""
    source_modality: str
    target_modality: str
    source_dim: int
    hidden_dim: int
    target_dim: int
    stream: str
    outcome: Outcome
    """`adapted`: θ′; `ridge`: ridge regression did better than θ′ and θ; `worse` or `not_finite`:
    the fallback, θ itself."""
    epoch: int
    """The tenure of the partition's owner; with `version` it orders a stream's mappings."""
    version: int
    """The newest source offset in the window."""
    topic: str
    partition: int
    meta_init: str
    """The version of θ."""
    meta_init_hash: str
    """θ's content hash, hexadecimal."""
    generator: str
    learner: str
    encoder: str
    loss: str
    """What the losses below measure: mse or cosine."""
    support_pairs: int
    query_pairs: int
    support_loss_before: float
    support_loss_after: float
    query_loss_before: float
    query_loss_after: float
    query_loss_ridge: float
    event_time_ms: int
    """When the newest pair happened."""
    published_at_ms: int
    turn: str
    """The turn that made it; the worker's log says which offsets that turn read."""
    content_hash: str
    """`content_hash(tensors)`, hexadecimal."""

    def as_strings(self) -> dict[str, str]:
        """Every fact as text; floats so that they read back exactly."""
        facts: dict[str, object] = msgspec.to_builtins(self)
        return {name: str(value) for name, value in facts.items()}


@dataclass(frozen=True, slots=True)
class AdaptedMapping:
    """One stream's mapping, as published."""

    tensors: Mapping[str, FloatArray]
    facts: Facts


def content_hash(tensors: Mapping[str, FloatArray]) -> str:
    """SHA-256 over each tensor's name, shape and float32 little-endian bytes, in order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{','.join(map(str, tensor.shape))};".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def encode(mapping: AdaptedMapping) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    """The record's value and headers."""
    facts = mapping.facts.as_strings()
    headers = tuple((HEADER_PREFIX + name, text.encode()) for name, text in facts.items())
    # safetensors writes a view's memory, not its values
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in mapping.tensors.items()}
    return save(tensors, facts), headers


def decode(value: bytes) -> AdaptedMapping:
    """Raises ValueError when it is no mapping, or its content hash is not that of its tensors."""
    try:
        tensors = load(value)
        header = int.from_bytes(value[:8], "little")
        metadata = msgspec.json.decode(value[8 : 8 + header])["__metadata__"]
        facts = msgspec.convert(metadata, Facts, strict=False)
    except (SafetensorError, msgspec.MsgspecError, KeyError) as e:
        raise ValueError(f"not an adapted mapping: {e}") from e
    if content_hash(tensors) != facts.content_hash:
        raise ValueError(f"the tensors of {facts.stream!r} do not match their content hash")
    return AdaptedMapping(tensors, facts)
