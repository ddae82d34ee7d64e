"""The records of the meta-inits topic: every published θ, and which one is active. Pure.

    key                value                           headers
    <version>          θ, a safetensors file           its facts, `adaptd-...`
    @active            JSON: `Active`
    @candidate         JSON: `daemon.wire.canary.Canary`
    <version>          none: θ was deleted

The topic has one partition, so that an activation follows the publication in order, and it is
compacted, so that it holds the newest record of each key. Readers build the catalogue from the
records in order, and do not keep the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from daemon.wire.canary import CANDIDATE_KEY, decode_canary
from daemon.wire.catalogue import Active, Catalogue, PublishedTheta
from daemon.wire.record import Headers, Record
from model.theta.meta_init import MetaInit
from model.values.outside import BadBytes, parse_json_as

ACTIVE_KEY = "@active"
HEADER_PREFIX = "adaptd-"
FACT_PREFIX = f"{HEADER_PREFIX}fact-"
HEADERS = tuple(
    HEADER_PREFIX + name
    for name in (
        "version",
        "parent",
        "content-hash",
        "source-modality",
        "target-modality",
        "source-dim",
        "hidden-dim",
        "target-dim",
        "encoder",
        "generator",
        "learner",
    )
)
MAX_VERSION_BYTES = 200
MAX_FACTS_BYTES = 8_192
"""If the facts are longer together, the longest are left out of the headers. The file has them."""
MAX_PREVIOUS = 20


def with_record(catalogue: Catalogue, record: Record) -> Catalogue:
    """Returns the catalogue after this record. It passes over keys that can be no version: empty,
    not UTF-8, too long, or with an @ before a word that only newer adaptds may know."""
    key = _key(record.key)
    if key == ACTIVE_KEY:
        return _with_active(catalogue, record.value)
    if key == CANDIDATE_KEY:
        return _with_canary(catalogue, record.value)
    if key is None or key.startswith("@"):
        return catalogue
    others = {v: p for v, p in catalogue.published.items() if v != key}
    if record.value is None:
        return replace(catalogue, published=others)
    return replace(catalogue, published=others | {key: described_theta(key, record)})


def _key(key: bytes | None) -> str | None:
    if not key or len(key) > MAX_VERSION_BYTES:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def _with_active(catalogue: Catalogue, value: bytes | None) -> Catalogue:
    if value is None:
        return replace(catalogue, active=None, fault=None)
    try:
        active = parse_json_as(value, Active)
    except BadBytes as e:
        return replace(catalogue, active=None, fault=f"the record {ACTIVE_KEY!r}: {e}")
    return replace(catalogue, active=active, fault=None)


def _with_canary(catalogue: Catalogue, value: bytes | None) -> Catalogue:
    """The larger epoch counts: a writer that was deposed may come late."""
    if value is None:
        return replace(catalogue, canary=None, canary_fault=None)
    try:
        canary = decode_canary(value)
    except BadBytes as e:
        return replace(catalogue, canary=None, canary_fault=f"the record {CANDIDATE_KEY!r}: {e}")
    if catalogue.canary and canary.epoch < catalogue.canary.epoch:
        return catalogue
    return replace(catalogue, canary=canary, canary_fault=None)


def encode_active(active: Active) -> bytes:
    """Returns the value of the record whose key is `@active`."""
    return msgspec.json.encode(active)


def described_theta(version: str, record: Record) -> PublishedTheta:
    """Returns what a record's headers say of its θ. What is missing or malformed stays empty."""
    found = {name: (value or b"").decode(errors="replace") for name, value in record.headers}

    def text(name: str) -> str:
        return found.get(HEADER_PREFIX + name, "")

    def number(name: str) -> int:
        return int(text(name)) if text(name).isdecimal() and len(text(name)) < 9 else 0

    return PublishedTheta(
        version=version,
        offset=record.offset,
        nbytes=len(record.value or b""),
        published_at_ms=record.timestamp,
        content_hash=text("content-hash"),
        parent=text("parent") or None,
        source_modality=text("source-modality"),
        target_modality=text("target-modality"),
        source_dim=number("source-dim"),
        hidden_dim=number("hidden-dim"),
        target_dim=number("target-dim"),
        encoder=text("encoder"),
        generator=text("generator"),
        learner=text("learner"),
        facts={
            n.removeprefix(FACT_PREFIX): t for n, t in found.items() if n.startswith(FACT_PREFIX)
        },
    )


def theta_headers(theta: MetaInit) -> Headers:
    """Returns a θ's facts as headers, so that the θs can be listed without reading their files."""
    values = (
        theta.version,
        theta.parent or "",
        theta.content_hash,
        theta.source_modality,
        theta.target_modality,
        str(theta.source_dim),
        str(theta.hidden_dim),
        str(theta.target_dim),
        theta.encoder_version,
        theta.generator.kind,
        theta.learner.kind,
    )
    own = [(name, text.encode()) for name, text in zip(HEADERS, values, strict=True)]
    return (*own, *_facts(theta.facts))


def _facts(facts: Mapping[str, str]) -> Headers:
    room, kept = MAX_FACTS_BYTES, []
    for name, text in sorted(facts.items(), key=lambda fact: len(fact[1])):
        header = (FACT_PREFIX + name, text.encode())
        room -= len(header[0]) + len(header[1])
        if room < 0:
            break
        kept.append(header)
    return tuple(sorted(kept))
