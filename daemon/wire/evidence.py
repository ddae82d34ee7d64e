"""The records of the topic of evidence: on one stream, is the candidate better than the active θ?

    key      <content hash of the candidate>/<stream>
    value    MessagePack, `StreamEvidence`

The topic has one partition, so that all readers see one order, and is not compacted: the first
record of a stream counts, and compaction would keep the last. Pure.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import msgspec

from daemon.wire.canary import Canary
from daemon.wire.record import Message, Record
from model.values.outside import raising_only

_Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class BadEvidence(ValueError):
    """A record is no evidence; the message says why."""


class StreamEvidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What one stream says of a candidate. Differences lie in [-1, 1], and are above 0 where the
    candidate is better: (active - candidate) / (active + candidate), by the loss on pairs that
    neither had learned from."""

    v: Literal[1] = 1
    canary: Annotated[int, msgspec.Meta(ge=1)]
    """The epoch of the canary."""
    d: float
    """The mean of the next two."""
    cold: float
    """With the support cut to its newest pairs, as of a new stream."""
    full: float
    """With all of the support."""
    n: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    """Pairs that judged."""
    failed: _Natural = 0
    """How many of the candidate's adaptations were not finite."""
    part: _Natural
    """The events' partition, and the offset of the newest one."""
    offset: _Natural


class Heard(NamedTuple):
    """Evidence, and on which candidate and stream."""

    content_hash: str
    stream: str
    evidence: StreamEvidence


def evidence_message(topic: str, canary: Canary, stream: str, evidence: StreamEvidence) -> Message:
    """Returns the record that says so."""
    key = f"{canary.content_hash}/{stream}".encode()
    return Message(topic, key, msgspec.msgpack.encode(evidence), ())


def decode_evidence(record: Record) -> Heard:
    """Returns what a record says. Raises BadEvidence."""
    with raising_only(BadEvidence, "not a record of evidence"):
        content_hash, slash, stream = (record.key or b"").decode().partition("/")
        if not (content_hash and slash and stream):
            raise ValueError("its key is not <content hash>/<stream>")
        evidence = msgspec.msgpack.decode(record.value or b"", type=StreamEvidence)
        for name in ("d", "cold", "full"):
            if not -1.0 <= getattr(evidence, name) <= 1.0:  # NaN is not either
                raise ValueError(f"{name} is not within -1 and 1")
    return Heard(content_hash, stream, evidence)
