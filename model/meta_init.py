"""The meta-init θ: what all streams start from, as one value and as one safetensors file.

H = hidden, D = source dim, E = target dim, K = inner steps

A file holds the mapping (`mapping.w1` (H, D), `mapping.b1` (H), `mapping.w2` (E, H),
`mapping.b2` (E)), the learned rates (`rates` (K, 4): per step, for w1, b1, w2, b2), the encoder's
tensors (`encoder.*`), all float32, and the facts as metadata. It is never pickle. Equal contents
give equal bytes and an equal hash.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as write_safetensors

from model.errors import BadMetaInit

FORMAT = "meta-init/1"
MAX_BYTES = 256 * 2**20
MAX_DIM = 65_536
MAX_STEPS = 64

Modality = Literal["vector", "image", "text", "audio", "video"]
Activation = Literal["relu", "gelu", "tanh", "sigmoid"]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """An encoder's shape and tensors; `config` is JSON-like, read by the encoder's own file."""

    config: Mapping[str, Any]
    tensors: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class MetaInit:
    """θ with its inner-loop rates, its encoder and its provenance."""

    version: str
    source_modality: Modality
    target_modality: Modality
    source_dim: int
    hidden_dim: int
    target_dim: int
    activation: Activation
    mapping: Mapping[str, FloatArray]
    """w1 (H, D), b1 (H), w2 (E, H), b2 (E)."""
    rates_K4: FloatArray
    """The learned rate of each inner step, for w1, b1, w2, b2."""
    encoder: EncoderSpec | None = None
    """Of the source modality; None where contents are vectors already."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """How it was trained and how it did: free-form, for people."""

    def __post_init__(self) -> None:
        """Raise BadMetaInit unless dims, shapes, types and values fit together."""
        _check_facts(self)
        _check_tensors(self)

    @property
    def encoder_version(self) -> str:
        """Changes when features change: windows of another version cannot be used with this θ."""
        if self.encoder is None:
            return "identity"
        facts = {"config": self.encoder.config}
        return _digest(_prefixed("encoder.", self.encoder.tensors), facts)[:12]

    @property
    def content_hash(self) -> str:
        """sha256 (hex) over every tensor and fact."""
        return _digest(_tensors(self), _facts(self))


def save(meta_init: MetaInit, path: Path) -> None:
    """Write θ; equal contents give equal bytes."""
    header = {"adaptd.format": FORMAT, "adaptd.content_hash": meta_init.content_hash}
    header |= {"adaptd.facts": _canonical_json(_facts(meta_init))}
    path.write_bytes(_with_sorted_header(write_safetensors(_tensors(meta_init), header)))


def load(path: Path, max_bytes: int = MAX_BYTES) -> MetaInit:
    """Read θ back.

    Raises BadMetaInit when the file is missing, larger than `max_bytes` (checked before reading),
    not safetensors, of another format, damaged, or inconsistent in itself.
    """
    data = _read_limited(path, max_bytes)
    try:
        tensors = parse_safetensors(data)
    except (SafetensorError, KeyError, ValueError, OverflowError) as error:
        raise BadMetaInit(f"{path}: not a readable safetensors file: {error}") from error
    header = _header(data).get("__metadata__", {})
    if header.get("adaptd.format") != FORMAT:
        found = header.get("adaptd.format", "none")
        raise BadMetaInit(f"{path}: adaptd.format is {found!r}, this adaptd reads {FORMAT!r}")
    try:
        facts = json.loads(header.get("adaptd.facts", ""))
        meta_init = _assemble(tensors, facts)
        found_hash = meta_init.content_hash
    except BadMetaInit as error:
        raise BadMetaInit(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadMetaInit(f"{path}: incomplete or malformed: {error!r}") from error
    expected_hash = header.get("adaptd.content_hash", "none")
    if found_hash != expected_hash:
        raise BadMetaInit(
            f"{path}: damaged: contents hash to {found_hash[:12]}…, "
            f"the file says {expected_hash[:12]}…"
        )
    return meta_init


def fresh(
    source_dim: int,
    target_dim: int,
    hidden_dim: int = 128,
    steps: int = 5,
    rate: float | None = None,
    seed: int = 0,
) -> MetaInit:
    """A random vector → vector θ, not meta-trained: for benchmarks, and to start with.

    LeCun-normal weights, zero biases. The default rate suits inputs and targets of about unit
    variance per dimension: the MSE's gradient carries 1/E, so rates carry E; w1's, whose
    gradient grows with the D inputs, is divided by D.
    """
    rng = np.random.default_rng(seed)
    w1_HD = rng.standard_normal((hidden_dim, source_dim)) / np.sqrt(source_dim)
    w2_EH = rng.standard_normal((target_dim, hidden_dim)) / np.sqrt(hidden_dim)
    mapping = {"w1": w1_HD, "b1": np.zeros(hidden_dim), "w2": w2_EH, "b2": np.zeros(target_dim)}
    if rate is None:
        base = 0.25 * target_dim
        rates = [base / source_dim, base / source_dim, base / hidden_dim, base / hidden_dim]
    else:
        rates = [rate] * 4
    return MetaInit(
        version=f"fresh-{source_dim}x{hidden_dim}x{target_dim}-{seed}",
        source_modality="vector",
        target_modality="vector",
        source_dim=source_dim,
        hidden_dim=hidden_dim,
        target_dim=target_dim,
        activation="gelu",
        mapping={name: tensor.astype(np.float32) for name, tensor in mapping.items()},
        rates_K4=np.tile(np.asarray(rates, np.float32), (steps, 1)),
        facts={"training": f"none: random, seed {seed}"},
    )


def shipped() -> Path:
    """The θ that ships with adaptd: emoji pictures into low-rank tenants' spaces."""
    return Path(__file__).parent / "meta_inits" / "emoji-lowrank.safetensors"


def _assemble(tensors: Mapping[str, FloatArray], facts: dict[str, Any]) -> MetaInit:
    tensors = dict(tensors)
    config = facts.pop("encoder")
    rates_K4 = tensors.pop("rates")
    mapping = {n: tensors.pop(f"mapping.{n}") for n in ("w1", "b1", "w2", "b2")}
    encoder = None
    if config is not None:
        names = [name for name in sorted(tensors) if name.startswith("encoder.")]
        encoder_tensors = {n.removeprefix("encoder."): tensors.pop(n) for n in names}
        encoder = EncoderSpec(config=config, tensors=encoder_tensors)
    if tensors:
        raise BadMetaInit(f"unexpected tensors {sorted(tensors)}")
    return MetaInit(mapping=mapping, rates_K4=rates_K4, encoder=encoder, **facts)


def _tensors(meta_init: MetaInit) -> dict[str, FloatArray]:
    tensors = {"rates": meta_init.rates_K4} | _prefixed("mapping.", meta_init.mapping)
    if meta_init.encoder is not None:
        tensors |= _prefixed("encoder.", meta_init.encoder.tensors)
    return {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}


def _prefixed(prefix: str, tensors: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _facts(meta_init: MetaInit) -> dict[str, Any]:
    names = ("version", "source_modality", "target_modality", "source_dim", "hidden_dim")
    facts = {name: getattr(meta_init, name) for name in (*names, "target_dim", "activation")}
    facts["encoder"] = None if meta_init.encoder is None else meta_init.encoder.config
    return facts | {"facts": dict(meta_init.facts)}


def _check_facts(meta_init: MetaInit) -> None:
    if not isinstance(meta_init.version, str) or not meta_init.version:
        raise BadMetaInit(f"version must be a non-empty string, not {meta_init.version!r}")
    if not all(isinstance(text, str) for item in meta_init.facts.items() for text in item):
        raise BadMetaInit("facts must map strings to strings")
    if meta_init.encoder is not None and not isinstance(meta_init.encoder.config, Mapping):
        raise BadMetaInit("the encoder's config must be an object")
    for name in ("source_modality", "target_modality"):
        if getattr(meta_init, name) not in get_args(Modality):
            allowed = ", ".join(get_args(Modality))
            raise BadMetaInit(f"{name} is {getattr(meta_init, name)!r}, not one of {allowed}")
    if meta_init.activation not in get_args(Activation):
        allowed = ", ".join(get_args(Activation))
        raise BadMetaInit(f"activation is {meta_init.activation!r}, not one of {allowed}")
    for name in ("source_dim", "hidden_dim", "target_dim"):
        dim = getattr(meta_init, name)
        if type(dim) is not int or not 1 <= dim <= MAX_DIM:
            raise BadMetaInit(f"{name} is {dim!r}, not an integer in 1..{MAX_DIM}")


def _check_tensors(meta_init: MetaInit) -> None:
    d, h, e = meta_init.source_dim, meta_init.hidden_dim, meta_init.target_dim
    shapes: dict[str, tuple[int, ...]] = {"w1": (h, d), "b1": (h,), "w2": (e, h), "b2": (e,)}
    if set(meta_init.mapping) != set(shapes):
        raise BadMetaInit(f"mapping tensors are {sorted(meta_init.mapping)}, not w1, b1, w2, b2")
    for name, shape in shapes.items():
        found = meta_init.mapping[name].shape
        if found != shape:
            raise BadMetaInit(f"mapping.{name} has shape {found}, its dims ask for {shape}")
    steps, *rest = (*meta_init.rates_K4.shape, 0)
    if rest != [4, 0] or not 1 <= steps <= MAX_STEPS:
        raise BadMetaInit(f"rates have shape {meta_init.rates_K4.shape}, not (1..{MAX_STEPS}, 4)")
    for name, tensor in _tensors(meta_init).items():
        if tensor.dtype != np.float32:
            raise BadMetaInit(f"{name} is {tensor.dtype}, not float32")
        if not np.isfinite(tensor).all():
            raise BadMetaInit(f"{name} holds NaN or infinity")


def _digest(tensors: Mapping[str, FloatArray], facts: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(_canonical_json(facts).encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"\n{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _canonical_json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _read_limited(path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise BadMetaInit(f"{path}: {size} bytes, more than the limit of {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise BadMetaInit(f"{path}: cannot be read: {error.strerror or error}") from error


def _header(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    return cast(dict[str, Any], json.loads(data[8 : 8 + size]))


def _with_sorted_header(data: bytes) -> bytes:
    """The same file with its JSON header in sorted order: safetensors' own order is random."""
    size = int.from_bytes(data[:8], "little")
    header = _canonical_json(_header(data)).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]
