"""The meta-init θ: the mapping that all streams start from, as one value. No torch here.

R = rows (contents), H = hidden units, D = source dim, E = target dim, K = inner steps

The mapping is f(x) = σo(W2·σ(W1·x + b1) + b2), σ the activation and σo the output activation. With
it goes everything that was meta-learned for it: the generator that makes a stream's starting point,
the learner that adapts it, and the encoders whose features it maps. `model.theta.meta_init_file`
writes θ to bytes and reads it back.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from model.theta.part import PartSpec
from model.values.arrays import FloatArray
from model.values.errors import BadMetaInit

MAX_DIM = 65_536
MAX_STEPS = 64
_NAMES = (
    "version",
    "parent",
    "source_modality",
    "target_modality",
    "source_dim",
    "hidden_dim",
    "target_dim",
    "activation",
    "output_activation",
)

Modality = Literal["vector", "image", "text", "audio", "video"]
Activation = Literal["relu", "gelu", "tanh", "sigmoid"]
OutputActivation = Literal["none", "relu", "gelu", "tanh", "sigmoid"]

READINGS: Mapping[Modality, int] = {"image": 2, "video": 2, "text": 2}
"""The version, 1 where none is given, of how contents become the arrays that an encoder's network
reads. Raise it when the same content becomes another array: then windows of the features of before
are not used, and events are read again. It is no part of a θ, whose hash stays what it was."""

STANDARDISED = "standardised"
MEAN_AND_SPREAD = "mean-and-spread"
SHARED = PartSpec({"kind": "mlp"})
"""The generator with which every stream starts at θ itself."""


@dataclass(frozen=True, slots=True)
class MetaInit:
    """θ with its generator, learner, encoders and provenance."""

    version: str
    source_modality: Modality
    target_modality: Modality
    source_dim: int
    hidden_dim: int
    target_dim: int
    activation: Activation
    mapping: Mapping[str, FloatArray]
    """w1 (H, D), b1 (H), w2 (E, H), b2 (E)."""
    learner: PartSpec
    """How the inner loop adapts a stream's mapping; see `model.inner.learners`."""
    generator: PartSpec = SHARED
    """How a stream's starting point is made; see `model.inner.generators`."""
    output_activation: OutputActivation = "none"
    source_encoder: PartSpec | None = None
    """None when source contents are vectors of `source_dim`, used as they are."""
    target_encoder: PartSpec | None = None
    """None when target contents are vectors of `target_dim`, used as they are."""
    usual_sources: PartSpec | None = None
    """The mean (D) and the spread (1) of the features that it was trained on (`usual_sources_of`);
    None where that is not known."""
    parent: str | None = None
    """The version of the θ that training began from; None when it began from random weights."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """How it was trained and how well it does: free-form, for people."""

    def __post_init__(self) -> None:
        """Raises BadMetaInit unless dims, shapes, types and values fit together."""
        _check_facts(self)
        _check_tensors(self)

    @property
    def parts(self) -> dict[str, PartSpec]:
        """The generator, the learner, and of the encoders and usual sources what there is, by
        name."""
        named = {
            "generator": self.generator,
            "learner": self.learner,
            "source_encoder": self.source_encoder,
            "target_encoder": self.target_encoder,
            "usual_sources": self.usual_sources,
        }
        return {name: part for name, part in named.items() if part is not None}

    @property
    def is_trained(self) -> bool:
        """Whether the mapping is no random one; `fresh_meta_init` says so of those it makes."""
        return not self.facts.get("training", "").startswith("none")

    @property
    def standardises_sources(self) -> bool:
        """Whether it expects each stream's sources less their mean, in units of their size
        (`model.inner.units`). The fact `sources` says so; a random mapping expects it anyway."""
        return self.facts.get("sources") == STANDARDISED or not self.is_trained

    @property
    def encoder_version(self) -> str:
        """A hash of the encoders, and of how this adaptd reads contents for them: windows of
        features can be used only by a θ of the same one."""
        encoders = {n: p for n, p in self.parts.items() if n.endswith("encoder")}
        if not encoders:
            return "identity"
        tensors = {f"{n}.{t}": a for n, p in encoders.items() for t, a in p.tensors.items()}
        read = {"source_encoder": self.source_modality, "target_encoder": self.target_modality}
        readings = {f"{n}.reading": READINGS[read[n]] for n in encoders if read[n] in READINGS}
        return _digest(tensors, {n: p.config for n, p in encoders.items()} | readings)[:12]

    @property
    def content_hash(self) -> str:
        """The sha256 of every tensor and fact, in hex."""
        return _digest(self.tensors(), self.header())

    def tensors(self) -> dict[str, FloatArray]:
        """Returns every tensor by its name in the file, in order of names."""
        tensors = {f"mapping.{name}": tensor for name, tensor in self.mapping.items()}
        for part_name, part in self.parts.items():
            tensors |= {f"{part_name}.{name}": tensor for name, tensor in part.tensors.items()}
        return {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}

    def header(self) -> dict[str, Any]:
        """Returns everything but the tensors, as JSON has it."""
        header: dict[str, Any] = {name: getattr(self, name) for name in _NAMES}
        header |= {name: dict(part.config) for name, part in self.parts.items()}
        return header | {"facts": dict(self.facts)}


def usual_sources_of(x_RD: FloatArray) -> PartSpec | None:
    """Returns the mean of features (R, D) and their spread, the root mean squared distance from it
    in one dimension, as a part of the θ that is trained on them; None where all are equal."""
    x_RD = x_RD.astype(np.float64)
    mean_D = x_RD.mean(0)
    spread = np.sqrt(np.square(x_RD - mean_D).mean(keepdims=True).reshape(1)).astype(np.float32)
    if not (np.isfinite(spread[0]) and spread[0] > 0):
        return None
    tensors = {"mean": mean_D.astype(np.float32), "spread": spread}
    return PartSpec({"kind": MEAN_AND_SPREAD}, tensors)


def fresh_meta_init(
    source_dim: int,
    target_dim: int,
    hidden_dim: int = 128,
    steps: int = 5,
    rate: float | None = None,
    seed: int = 0,
) -> MetaInit:
    """Returns a random θ from vectors to vectors, not meta-trained: to start from, and to measure.

    Weights are LeCun-normal and biases zero. The default `rate` of the inner steps suits inputs and
    targets of about unit variance per dimension: the MSE's gradient carries 1/E, so the rate has a
    factor E; the gradient of a layer grows with its inputs, so its rate is divided by their number.
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
    rates_K4 = np.tile(np.asarray(rates, np.float32), (steps, 1))
    return MetaInit(
        version=f"fresh-{source_dim}x{hidden_dim}x{target_dim}-{seed}",
        source_modality="vector",
        target_modality="vector",
        source_dim=source_dim,
        hidden_dim=hidden_dim,
        target_dim=target_dim,
        activation="gelu",
        mapping={name: tensor.astype(np.float32) for name, tensor in mapping.items()},
        learner=PartSpec({"kind": "maml"}, {"rates": rates_K4}),
        facts={"training": f"none: random, seed {seed}", "sources": STANDARDISED},
    )


def _check_facts(meta_init: MetaInit) -> None:
    if not isinstance(meta_init.version, str) or not meta_init.version:
        raise BadMetaInit(f"version must be a non-empty string, not {meta_init.version!r}")
    if not (meta_init.parent is None or isinstance(meta_init.parent, str)):
        raise BadMetaInit(f"parent must be a string or null, not {meta_init.parent!r}")
    if not all(isinstance(text, str) for item in meta_init.facts.items() for text in item):
        raise BadMetaInit("facts must map strings to strings")
    for name, part in meta_init.parts.items():
        if not isinstance(part.config, Mapping) or not isinstance(part.config.get("kind"), str):
            raise BadMetaInit(f"the config of {name} must be an object with a kind")
    for name, choices in (
        ("source_modality", Modality),
        ("target_modality", Modality),
        ("activation", Activation),
        ("output_activation", OutputActivation),
    ):
        if getattr(meta_init, name) not in get_args(choices):
            allowed = ", ".join(get_args(choices))
            raise BadMetaInit(f"{name} is {getattr(meta_init, name)!r}, not one of {allowed}")
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
    _check_usual_sources(meta_init.usual_sources, d)
    for name, tensor in meta_init.tensors().items():
        if tensor.dtype != np.float32:
            raise BadMetaInit(f"{name} is {tensor.dtype}, not float32")
        if not np.isfinite(tensor).all():
            raise BadMetaInit(f"{name} holds NaN or infinity")


def _check_usual_sources(part: PartSpec | None, source_dim: int) -> None:
    if part is None:
        return
    if dict(part.config) != {"kind": MEAN_AND_SPREAD}:
        raise BadMetaInit(f"usual_sources has config {dict(part.config)}")
    found = {name: tensor.shape for name, tensor in part.tensors.items()}
    if found != {"mean": (source_dim,), "spread": (1,)}:
        raise BadMetaInit(
            f"usual_sources has tensors {found}, not mean ({source_dim},), spread (1,)"
        )
    if not part.tensors["spread"][0] > 0:
        raise BadMetaInit("usual_sources.spread must be positive")


def _digest(tensors: Mapping[str, FloatArray], facts: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(canonical_json(facts).encode())
    for name in sorted(tensors):
        tensor = np.asarray(tensors[name], order="C")
        digest.update(f"\n{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def canonical_json(facts: Mapping[str, Any]) -> str:
    """Returns facts as JSON text; equal facts give equal text."""
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
