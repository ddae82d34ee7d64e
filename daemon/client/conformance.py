"""Writes the conformance kit: recorded mappings of every form, with what they must give.

    python -m daemon.client.conformance examples/conformance

A reader in any language passes when it does what `cases.json` says: `mappings` give `y` for `x`,
to `tolerance` of the largest number in `y`; `refused` are passed over; after the records of a
sequence, in order, each stream is served by the file that `served` names. Expected numbers are
computed here in float64, straight from the formulas in docs/wire-formats.md. The same call writes
the same bytes.

R = rows (inputs), S = support pairs, D = source dim, H = hidden units, E = target dim, G = H + 1
"""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.wire.adapted_mapping import (
    AdaptedMapping,
    Dtype,
    Encoding,
    Facts,
    StoredArray,
    content_hash,
    encode_mapping,
    format_of,
)
from model.theta.meta_init import MetaInit, OutputActivation, fresh_meta_init
from model.theta.meta_init_file import meta_init_to_bytes
from model.values.gate import Outcome
from model.values.low_rank import SCALES, in_half

KIT_FORMAT = "adaptd-conformance/1"
TOLERANCE = 1e-6
S, D, H, E = 3, 6, 5, 4
ACTIVATIONS: tuple[OutputActivation, ...] = ("none", "relu", "gelu", "tanh", "sigmoid")
DTYPES: tuple[Dtype, ...] = ("float32", "float16")
Doubles = NDArray[np.float64]
Tensors = dict[str, StoredArray]

SIGMA: dict[str, Callable[[Any], Any]] = {
    "none": lambda z: z,
    "relu": lambda z: np.maximum(z, 0.0),
    "gelu": lambda z: 0.5 * z * (1.0 + np.vectorize(math.erf)(z / math.sqrt(2.0))),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
}


def numbers(seed: int, *shape: int) -> NDArray[np.float32]:
    """Returns random numbers of this shape; the same for the same seed."""
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def known_theta() -> MetaInit:
    """Returns the θ of the kit's `lowrank` mappings; its file has tensors of both dtypes."""
    theta = fresh_meta_init(D, E, H, seed=3)
    w1_HD = theta.mapping["w1"].astype(np.float16).astype(np.float32)
    biases = {"b1": numbers(8, H), "b2": numbers(9, E)}
    return replace(theta, mapping={**theta.mapping, "w1": w1_HD, **biases})


def recorded(
    theta: MetaInit, encoding: Encoding, dtype: Dtype, tensors: Tensors, **changes: Any
) -> bytes:
    """Returns the value of a record whose hash is right."""
    facts: dict[str, Any] = {
        "format": format_of(encoding, dtype),
        "kind": "mlp",
        "activation": theta.activation,
        "output_activation": "none",
        "source_modality": "vector",
        "target_modality": "vector",
        "source_dim": theta.source_dim,
        "hidden_dim": theta.hidden_dim,
        "target_dim": theta.target_dim,
        "stream": "s",
        "outcome": Outcome.ADAPTED,
        "epoch": 7,
        "version": 90,
        "window_since": 60,
        "topic": "paired-events",
        "partition": 0,
        "meta_init": theta.version,
        "meta_init_hash": theta.content_hash,
        "generator": "mlp",
        "learner": "maml",
        "encoder": "identity",
        "loss": "mse",
        "support_pairs": S,
        "query_pairs": 1,
        "support_loss_before": 2.0,
        "support_loss_after": 1.0,
        "query_loss_before": 2.0,
        "query_loss_after": 1.0,
        "query_loss_ridge": 1.5,
        "candidate": "adapted",
        "ahead_squared": 3.0,
        "ahead_cosine": 3.0,
        "event_time_ms": 1_767_225_600_000,
        "published_at_ms": 1_767_225_600_500,
        "turn": "kit-1",
        "encoding": encoding,
        "dtype": dtype,
    }
    facts |= changes
    digest = content_hash(tensors, encoding, dtype, facts["meta_init_hash"])
    facts = {"content_hash": digest} | facts
    return encode_mapping(AdaptedMapping(tensors, Facts(**facts)))[0]


def whole_tensors(seed: int = 20) -> Tensors:
    """Returns w1, b1, w2 and b2 of a mapping."""
    shapes: dict[str, tuple[int, ...]] = {"w1": (H, D), "b1": (H,), "w2": (E, H), "b2": (E,)}
    return {name: numbers(seed + i, *shape) for i, (name, shape) in enumerate(shapes.items())}


def factor_tensors() -> Tensors:
    """Returns what is added to θ."""
    shapes = {"x": (S, D), "a": (S, H), "beta": (H,), "y": (S, E)}
    shapes |= {"n": (H + 1, H + 1), "v": (S, H + 1)}
    scales = {"x": 30.0, "a": 0.01, "beta": 0.3, "y": 5.0, "n": 0.2, "v": 2e-3}
    return {
        name: numbers(40 + i, *shape) * np.float32(scales[name])
        for i, (name, shape) in enumerate(shapes.items())
    }


def expected(
    t: Mapping[str, Any], x_RD: NDArray[np.float32], activation: str, output_activation: str
) -> Doubles:
    """Returns f(x) (R, E) in float64."""
    w = {name: np.asarray(tensor, np.float64) for name, tensor in t.items()}
    h_RH = SIGMA[activation](x_RD.astype(np.float64) @ w["w1"].T + w["b1"])
    return np.asarray(SIGMA[output_activation](h_RH @ w["w2"].T + w["b2"]), np.float64)


def added(theta: MetaInit, factors: Mapping[str, StoredArray]) -> dict[str, Doubles]:
    """Returns θ plus the factors as they are stored, in float64."""
    names = sorted(name for name in factors if name != SCALES)
    scales = factors.get(SCALES, np.ones(len(names), np.float32))
    f = {n: factors[n].astype(np.float64) * float(s) for n, s in zip(names, scales, strict=True)}
    w = {name: tensor.astype(np.float64) for name, tensor in theta.mapping.items()}
    w_EG = np.column_stack([w["w2"], w["b2"]])
    made_EG = w_EG @ (np.eye(H + 1) + f.get("n", 0.0))
    if "v" in f:
        made_EG = made_EG + f["y"].T @ f["v"]
    w1_HD = w["w1"] + f["a"].T @ f["x"] if "a" in f else w["w1"]
    return {
        "w1": w1_HD,
        "b1": w["b1"] + f.get("beta", 0.0),
        "w2": made_EG[:, :-1],
        "b2": made_EG[:, -1],
    }


def kit() -> dict[str, bytes]:
    """Returns the kit's files by name."""
    theta = known_theta()
    files = {"theta.safetensors": meta_init_to_bytes(theta)}
    x_RD = numbers(1, 3, D)
    mappings, refused = [], []

    def accept(name: str, value: bytes, y_RE: Doubles) -> None:
        files[f"{name}.mapping"] = value
        mappings.append({"file": f"{name}.mapping", "x": x_RD.tolist(), "y": y_RE.tolist()})

    def refuse(name: str, value: bytes) -> None:
        files[f"{name}.mapping"] = value
        refused.append({"file": f"{name}.mapping", "why": name.replace("-", " ")})

    whole = whole_tensors()
    half = {name: tensor.astype(np.float16) for name, tensor in whole.items()}
    for dtype, tensors in zip(DTYPES, (whole, half), strict=True):
        for sigma in ACTIVATIONS:
            value = recorded(theta, "full", dtype, tensors, activation=sigma)
            accept(f"full-{dtype}-{sigma}", value, expected(tensors, x_RD, sigma, "none"))
    for sigma in ACTIVATIONS[1:]:
        value = recorded(theta, "full", "float32", whole, output_activation=sigma)
        accept(f"full-output-{sigma}", value, expected(whole, x_RD, theta.activation, sigma))
    factors = factor_tensors()
    parts = {
        "all": tuple(factors),
        "none": (),
        "first-layer": ("x", "a", "beta"),
        "second-layer": ("n", "v", "y"),
        "beta": ("beta",),
        "n": ("n",),
    }
    for part, names in parts.items():
        some = {name: factors[name] for name in names}
        halved = in_half(some, lambda each: each.astype(np.float16))
        for dtype, stored in zip(DTYPES, (some, halved), strict=True):
            value = recorded(theta, "lowrank", dtype, stored)
            y_RE = expected(added(theta, stored), x_RD, theta.activation, "none")
            accept(f"lowrank-{dtype}-{part}", value, y_RE)

    good = files["full-float32-gelu.mapping"]
    refuse("empty", b"")
    refuse("no-safetensors-file", b"not a mapping at all")
    refuse("cut-short", good[:-7])
    refuse("one-bit-changed", good[:-1] + bytes([good[-1] ^ 1]))
    refuse("another-format", _changed(good, b"adapted-mapping/1", b"adapted-mapping/9"))
    refuse("another-kind", _changed(good, b'"kind":"mlp"', b'"kind":"rnn"'))
    refuse("another-activation", _changed(good, b'"gelu"', b'"selu"'))
    refuse("no-epoch", _changed(good, b'"epoch":', b'"e-och":'))
    refuse("a-negative-version", _changed(good, b'"version":"90"', b'"version":"-9"'))
    refuse("other-shapes", recorded(theta, "full", "float32", whole, hidden_dim=H + 1))
    refuse("a-tensor-too-few", recorded(theta, "full", "float32", {"w1": whole["w1"]}))
    unfit = factors | {"a": factors["a"][:, :-1]}
    refuse("factors-that-do-not-fit", recorded(theta, "lowrank", "float32", unfit))
    refuse("scales-too-few", recorded(theta, "lowrank", "float16", _one_scale_less(factors)))
    unknown = recorded(theta, "lowrank", "float32", factors, meta_init_hash="0" * 64)
    refuse("an-unknown-theta", unknown)

    cases = {
        "format": KIT_FORMAT,
        "tolerance": TOLERANCE,
        "theta": "theta.safetensors",
        "mappings": mappings,
        "refused": refused,
        "sequences": list(_sequences(theta, files)),
    }
    files["cases.json"] = json.dumps(cases, indent=1, ensure_ascii=True).encode() + b"\n"
    return files


def _changed(value: bytes, old: bytes, new: bytes) -> bytes:
    assert value.count(old) == 1
    assert len(old) == len(new)
    return value.replace(old, new)


def _one_scale_less(factors: Tensors) -> Tensors:
    halved = in_half(factors, lambda each: each.astype(np.float16))
    return halved | {SCALES: halved[SCALES][:-1]}


def _sequences(theta: MetaInit, files: dict[str, bytes]) -> Iterator[dict[str, Any]]:
    """Yields sequences of records; adds their mappings to the files."""

    def record(name: str, **changes: Any) -> str:
        tensors = whole_tensors(seed=len(files))
        files[f"{name}.mapping"] = recorded(theta, "full", "float32", tensors, **changes)
        return f"{name}.mapping"

    first = record("epoch-7-version-90")
    newer = record("epoch-7-version-95", version=95)
    fenced = record("epoch-6-version-99", epoch=6, version=99)
    taken_over = record("epoch-8-version-91", epoch=8, version=91)
    moved = record("partition-1", partition=1, epoch=1, version=2, event_time_ms=1_767_225_700_000)
    late = record("partition-2", partition=2, epoch=9, version=9, event_time_ms=1_767_225_500_000)
    other = record("stream-t", stream="t")
    damaged = "one-bit-changed.mapping"
    s, t = b"s", b"t"
    sequences: list[tuple[str, list[tuple[bytes | None, str | None]], dict[str, str]]] = [
        ("a newer version takes its place", [(s, first), (s, newer)], {"s": newer}),
        ("an older version does not", [(s, newer), (s, first)], {"s": newer}),
        ("a fenced writer does not", [(s, first), (s, fenced)], {"s": first}),
        ("a new owner does", [(s, newer), (s, taken_over)], {"s": taken_over}),
        ("a stream that moved does", [(s, taken_over), (s, moved)], {"s": moved}),
        ("an older place does not", [(s, first), (s, late)], {"s": first}),
        ("a damaged record changes nothing", [(s, first), (s, damaged)], {"s": first}),
        ("a record without a key changes nothing", [(s, first), (None, newer)], {"s": first}),
        ("a key that is no text changes nothing", [(s, first), (b"\xff", newer)], {"s": first}),
        ("an erased stream is served no more", [(s, first), (t, other), (s, None)], {"t": other}),
        ("after erasure any mapping counts", [(s, newer), (s, None), (s, first)], {"s": first}),
    ]
    for name, records, served in sequences:
        yield {
            "name": name,
            "records": [
                {"key": None if key is None else base64.b64encode(key).decode(), "file": file}
                for key, file in records
            ],
            "served": served,
        }


def main() -> None:
    """Writes the kit to the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in kit().items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
