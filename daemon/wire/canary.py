"""The record `@candidate` of the meta-inits topic: which θ is on trial as a canary. Pure.

A canary is the trial of a candidate θ beside the active one. Workers adapt some streams from both,
publish nothing of the candidate, and write down which was better (`daemon.wire.evidence`). The
record says what the trial is of and since when; what its evidence comes to is computed from the
evidence alone (`daemon.canary.judge`), by whoever wants to know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from model.values.outside import BadBytes, parse_json_as

CANDIDATE_KEY = "@candidate"
MOST_SHARE = 0.3
"""Of all streams: those that are held out from training for good."""
Ended = Literal["aborted", "promoted", "rejected", "rolled_back", "held"]
"""How a canary ended, where somebody has ended it: stopped by an operator, activated, found not to
be better; or, of a watch, the former θ was put back, or the new one has proved itself."""

_Count = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


@dataclass(frozen=True, slots=True)
class Canary:
    """One trial of a candidate."""

    version: str
    content_hash: str
    """The candidate's content hash, hexadecimal."""
    against: str
    """The version of the θ that was active when the trial began."""
    against_hash: str
    share: Annotated[float, msgspec.Meta(gt=0, le=MOST_SHARE)]
    """Of all streams, how many judge the candidate."""
    since_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    until_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    """Evidence after this time (ms, UTC) does not count."""
    epoch: _Count
    """Larger than that of every earlier canary. It names the trial in its evidence, and readers
    keep the record with the largest."""
    by: str
    attempt: _Count = 1
    """How many candidates were tried against this active θ, this one included: the later ones need
    more evidence, so that all together seldom promote one that is no better."""
    seed: int = 0
    """Which streams are held out."""
    watch: bool = False
    """Whether it is a watch: the active θ was promoted, and the candidate is the θ before it."""
    ended: Ended | None = None
    quarantined: tuple[str, ...] = ()
    """The content hashes of θs that were rolled back: they are tried no more."""


def encode_canary(canary: Canary) -> bytes:
    """Returns the value of the record whose key is `@candidate`."""
    return msgspec.json.encode(canary)


def decode_canary(value: bytes) -> Canary:
    """Returns what the value of `@candidate` says. Raises BadBytes."""
    canary = parse_json_as(value, Canary)
    if canary.until_ms <= canary.since_ms:
        raise BadBytes("the canary ends before it begins")
    return canary
