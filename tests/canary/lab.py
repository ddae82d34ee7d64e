"""What the tests of canaries share: a trial, its evidence, and the streams that judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

from daemon.adapters.memory import MemoryRecord
from daemon.canary.assignment import shadows
from daemon.wire.canary import Canary
from daemon.wire.evidence import StreamEvidence, evidence_message

CANARY = Canary(
    version="new",
    content_hash="c0ffee" * 10 + "abcd",
    against="old",
    against_hash="0" * 64,
    share=0.3,
    since_ms=1_000,
    until_ms=1_000_000,
    epoch=7,
    by="me@here",
)
WATCH = replace(CANARY, watch=True, epoch=8)


def judging(canary: Canary = CANARY) -> Iterator[str]:
    """Yields names of streams that judge this candidate."""
    return (name for name in (f"tenant-{i}" for i in count()) if shadows(canary, name))


def evidence(d: float, canary: Canary = CANARY, failed: int = 0) -> StreamEvidence:
    return StreamEvidence(
        canary=canary.epoch, d=d, cold=d, full=d, n=16, failed=failed, part=1, offset=99
    )


def record(
    at: int, stream: str, said: StreamEvidence, canary: Canary = CANARY, time_ms: int = 2_000
) -> MemoryRecord:
    sent = evidence_message("meta-evidence", canary, stream, said)
    return MemoryRecord(at, time_ms, sent.key, sent.value)


def log_of(ds: Sequence[float], canary: Canary = CANARY) -> list[MemoryRecord]:
    """One record for each stream, in order."""
    streams = judging(canary)
    return [record(i, next(streams), evidence(d, canary), canary) for i, d in enumerate(ds)]
