"""Every reader of bytes from outside, with good samples, ways to spoil them, and the one error that
it may raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec.structs import fields

from daemon.adapters.memory import MemoryRecord
from daemon.canary.judge import CanaryJudge
from daemon.config import load_settings
from daemon.errors import MalformedEvent, Misconfigured
from daemon.offline.events_file import RecordedEvent, read_events
from daemon.wire import meta_init as wire
from daemon.wire import paired_event
from daemon.wire.adapted_mapping import (
    AdaptedMapping,
    BadMapping,
    Dtype,
    Encoding,
    Facts,
    StoredArray,
    content_hash,
    decode_mapping,
    encode_mapping,
    format_of,
    runnable,
)
from daemon.wire.canary import encode_canary
from daemon.wire.catalogue import Active, Catalogue
from daemon.wire.dead_letter import DeadLetter, encode_dead_letter
from daemon.wire.evidence import BadEvidence, decode_evidence, evidence_message
from daemon.wire.paired_event import EventLimits, PairedEvent, Text, Video, WirePair, vector
from model.meta.checkpoint import Checkpoint
from model.theta.meta_init import MetaInit, canonical_json, fresh_meta_init
from model.theta.meta_init_file import meta_init_from_bytes, meta_init_to_bytes
from model.theta.part import PartSpec
from model.theta.part_file import encoder_from_bytes, save_part
from model.values.errors import BadCheckpoint, BadMetaInit
from model.values.gate import Outcome
from model.values.outside import BadBytes, parse_json, parse_tensor_file
from tests.canary.lab import CANARY, evidence, judging
from tests.fuzz.mutations import (
    mutated_bytes,
    mutated_json,
    mutated_msgpack,
    mutated_safetensors,
)

LIMITS = EventLimits(max_event_bytes=100_000, max_pairs=4)
THETA = fresh_meta_init(3, 2, 4, steps=1)
Mutation = Callable[[bytes, Random], bytes]


@dataclass(frozen=True, slots=True)
class Reader:
    """One reader: `read` raises nothing but `error`, whatever it is given."""

    name: str
    read: Callable[[bytes], object]
    error: type[Exception]
    samples: Sequence[bytes]
    mutations: Sequence[Mutation]

    def spoilt(self, random: Random) -> bytes:
        """Returns a sample that was changed in one of the ways, or two samples' halves."""
        sample = random.choice(self.samples)
        made = random.choice(self.mutations)(sample, random)
        if random.random() < 0.05:
            other = random.choice(self.samples)
            made = made[: random.randrange(len(made) + 1)] + other[random.randrange(len(other)) :]
        return made


def readers(folder: Path) -> list[Reader]:
    """Returns all of them. `folder` is for the files that some of them read."""
    tensor_mutations = (mutated_safetensors, mutated_safetensors, mutated_bytes)
    json_mutations, msgpack_mutations = (
        (mutated_json, mutated_bytes),
        (mutated_msgpack, mutated_bytes),
    )
    events_json = [paired_event.encode_event(event, paired_event.JSON) for event in EVENTS]
    events_msgpack = [paired_event.encode_event(event) for event in EVENTS]
    return [
        Reader("json", parse_json, BadBytes, [*events_json, b"[1.5, -0]"], json_mutations),
        Reader("theta", _theta, BadMetaInit, _theta_files(), tensor_mutations),
        Reader("part", _part, BadMetaInit, _part_files(folder), tensor_mutations),
        Reader("mapping", _mapping, BadMapping, _mappings(), tensor_mutations),
        Reader("checkpoint", _checkpoint, BadCheckpoint, [_checkpoint_file()], tensor_mutations),
        Reader("active", _active, BadBytes, [wire.encode_active(ACTIVE)], json_mutations),
        Reader("canary", _canary, BadBytes, [encode_canary(CANARY)], json_mutations),
        Reader("evidence", _evidence, BadEvidence, [_evidence_record()], msgpack_mutations),
        Reader("catalogue", _catalogue, BadBytes, [b"v1", b"@active", b"12"], (mutated_bytes,)),
        Reader("event-json", _event_json, MalformedEvent, events_json, json_mutations),
        Reader("event-msgpack", _event_msgpack, MalformedEvent, events_msgpack, msgpack_mutations),
        _events_file(folder / "events.jsonl", msgspec.json.encode, json_mutations),
        _events_file(folder / "events.msgpack", msgspec.msgpack.encode, msgpack_mutations),
        Reader("settings", _settings(folder), Misconfigured, [TOML], (mutated_bytes, _nested)),
    ]


# ---- samples

EVENTS = [
    PairedEvent([WirePair(vector(np.ones(3, np.float32)), Text("grüße"), label="a")], "id", 77),
    PairedEvent([WirePair(Video([b"a", b""], 2.5), paired_event.Image(b"\x89PNG"))] * 2),
    PairedEvent([WirePair(paired_event.Audio(b"RIFF", "pcm_s16le", 8_000, 2), Text("t"))]),
]
ACTIVE = Active("v1", "ab" * 32, 1_700_000_000_000, "me@here", ("v0", "v00"))
TOML = b'max_batch = 7\nkafka_events_topic = "e"\nmeta_init = "x"\nliveness_max_age_s = 60.5\n'


def _theta_files() -> list[bytes]:
    encoder = PartSpec({"kind": "cnn/2", "blocks": [[8, True]], "side": 4}, {"w": np.ones(2, "f4")})
    pictures = replace(THETA, source_modality="image", source_encoder=encoder, parent="v0")
    return [meta_init_to_bytes(THETA), meta_init_to_bytes(pictures)]


def _part_files(folder: Path) -> list[bytes]:
    path = folder / "part.safetensors"
    save_part(PartSpec({"kind": "cnn/2", "sizes": [1, 2]}, {"w": np.ones(2, "f4")}), path)
    return [path.read_bytes(), *_theta_files()]


def _mappings() -> list[bytes]:
    whole = {name: np.asarray(tensor) for name, tensor in THETA.mapping.items()}
    rng = np.random.default_rng(0)
    factors = {
        "x": rng.standard_normal((2, 3)).astype("f4"),
        "a": rng.standard_normal((2, 4)).astype("f4"),
        "beta": rng.standard_normal(4).astype("f4"),
    }
    halves = {name: tensor.astype("f2") for name, tensor in factors.items()}
    halves |= {"scales": np.ones(3, np.float32)}
    return [
        _mapping_record(whole, "full", "float32"),
        _mapping_record(factors, "lowrank", "float32"),
        _mapping_record(halves, "lowrank", "float16"),
    ]


def _mapping_record(tensors: dict[str, StoredArray], encoding: Encoding, dtype: Dtype) -> bytes:
    facts = _facts(encoding, dtype, content_hash(tensors, encoding, dtype))
    return encode_mapping(AdaptedMapping(tensors, facts))[0]


def _facts(encoding: Encoding, dtype: Dtype, content_hash: str) -> Facts:
    of_a_kind: dict[Any, str] = {int: "5", float: "0.5"}
    facts = {field.name: of_a_kind.get(field.type, "x") for field in fields(Facts)}
    facts |= {"source_dim": "3", "hidden_dim": "4", "target_dim": "2", "activation": "gelu"}
    facts |= {"output_activation": "none", "outcome": Outcome.ADAPTED.value, "encoding": encoding}
    facts |= {"format": format_of(encoding, dtype), "dtype": dtype, "meta_init_hash": ""}
    return msgspec.convert(facts | {"content_hash": content_hash}, Facts, strict=False)


def _checkpoint_file() -> bytes:
    progress = {"step": 3, "history": [{"step": 1.0, "loss": float("inf")}]}
    identity = {"recipe": {"rate": 0.5, "terms": [1, [2]]}}
    return Checkpoint(identity, progress, {"w": torch.ones(2, 2)}).to_bytes()


# ---- readers


def _theta(data: bytes) -> None:
    _use_theta(meta_init_from_bytes(data, "a file"))


def _use_theta(theta: MetaInit) -> None:
    """Does what is done with every θ that was read."""
    meta_init_to_bytes(theta)
    wire.theta_headers(theta)
    canonical_json(theta.header())


def _part(data: bytes) -> None:
    part = encoder_from_bytes(data, "image", "a file")
    canonical_json(part.config)


def _mapping(data: bytes) -> None:
    """Reads a mapping, and then applies it as if its content hash had been right."""
    try:
        decode_mapping(data)
    except BadMapping:
        try:
            file = parse_tensor_file(data)
            facts = msgspec.convert(file.metadata, Facts, strict=False)
        except (BadBytes, msgspec.ValidationError):
            return
        runnable(AdaptedMapping(file.tensors, facts), THETA.mapping)


def _checkpoint(data: bytes) -> None:
    checkpoint = Checkpoint.from_bytes(data, "a file")
    checkpoint.progress_at("a file")


def _active(data: bytes) -> None:
    catalogue = wire.with_record(Catalogue(), MemoryRecord(3, 4, b"@active", data, []))
    assert (catalogue.active is None) == (catalogue.fault is not None)
    if catalogue.active:
        wire.encode_active(catalogue.active)
    assert len(catalogue.fault or "") < 1_000


def _canary(data: bytes) -> None:
    catalogue = wire.with_record(Catalogue(), MemoryRecord(3, 4, b"@candidate", data, []))
    assert (catalogue.canary is None) == (catalogue.canary_fault is not None)
    if catalogue.canary:
        encode_canary(catalogue.canary)
        CanaryJudge(catalogue.canary).standing()


def _evidence_record() -> bytes:
    return evidence_message("meta-evidence", CANARY, "s", evidence(0.5)).value or b""


def _evidence(data: bytes) -> None:
    key = f"{CANARY.content_hash}/{next(judging())}".encode()
    judge = CanaryJudge(CANARY)
    judge.observe(MemoryRecord(3, 2_000, key, data))
    assert judge.standing().streams + judge.standing().refused <= 1
    decode_evidence(MemoryRecord(3, 2_000, key, data))


def _catalogue(data: bytes) -> None:
    headers = [(name, data) for name in wire.HEADERS] + [("adaptd-fact-x", None)]
    record = MemoryRecord(3, 4, data[:300] or None, data, headers)
    catalogue = wire.with_record(Catalogue(), record)
    for published in catalogue.published.values():
        assert not published.version.startswith("@")
        assert published.maps
    tombstone = wire.with_record(catalogue, MemoryRecord(5, 6, record.key, None, []))
    assert not tombstone.published


def _event_json(data: bytes) -> None:
    _event(data, [("content-type", b"application/json")])


def _event_msgpack(data: bytes) -> None:
    _event(data, [])


def _event(data: bytes, headers: list[tuple[str, bytes | None]]) -> None:
    record = MemoryRecord(5, 6, b"a-stream", data, headers)
    try:
        for pair in paired_event.decode_event(record, 0, LIMITS).pairs:
            paired_event.raw_content(pair.source)
            paired_event.raw_content(pair.target)
    except MalformedEvent as error:
        letter = DeadLetter(record, 0, error)
        encode_dead_letter(letter, topic="dlq", from_topic="events", max_bytes=100)


def _events_file(
    path: Path, encode: Callable[[RecordedEvent], bytes], mutations: Sequence[Mutation]
) -> Reader:
    def read(data: bytes) -> None:
        path.write_bytes(first + data + b"\n")
        list(read_events(path, LIMITS))

    fields = [{name: getattr(e, name) for name in ("pairs", "id", "time_ms")} for e in EVENTS]
    samples = [encode(RecordedEvent(stream="s", **each)) for each in fields]
    end = b"\n" if path.suffix == ".jsonl" else b""
    first = samples[0] + end
    return Reader(path.name, read, Misconfigured, samples, mutations)


def _settings(folder: Path) -> Callable[[bytes], object]:
    path = folder / "adaptd.toml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        load_settings(path, {})

    return read


def _nested(data: bytes, random: Random) -> bytes:
    depth = random.choice((10, 500, 5_000))
    return random.choice((data + b"x = ", b"max_batch = ")) + b"[" * depth + b"]" * depth
