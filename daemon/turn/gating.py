"""The gate step: each adaptation is judged on pairs that it has not learned from. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from daemon.turn.report import Verdict
from daemon.turn.streams import StreamId
from model.values.episode import Adaptation, Cut
from model.values.gate import judge


@dataclass(frozen=True, slots=True)
class CutBatch:
    """The streams that are adapted in one turn, in order."""

    at: float
    """When they were due and cut (seconds, monotonic)."""
    streams: Sequence[StreamId]
    versions: Sequence[int]
    """The newest source offset in each window."""
    cuts: Sequence[Cut]


def gate(batch: CutBatch, adaptations: Sequence[Adaptation]) -> list[Verdict]:
    """Judges each stream's adaptation and returns the verdicts, in the batch's order."""
    adapted = zip(batch.streams, batch.versions, batch.cuts, adaptations, strict=True)
    return [
        Verdict(
            stream=stream,
            version=version,
            support_pairs=cut.support + cut.query,
            query_pairs=adaptation.judged_pairs,
            adaptation=adaptation,
            outcome=judge(adaptation),
        )
        for stream, version, cut, adaptation in adapted
    ]
