"""The gate step: each adaptation is judged on pairs that it has not learned from; where a stream is
suspected to have changed, beside a second one on the pairs since then. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daemon.turn.report import Verdict
from daemon.turn.streams import StreamId
from model.values.episode import Adaptation, Cut
from model.values.gate import judge, prefers


@dataclass(frozen=True, slots=True)
class DatedCut:
    """A cut, and where its oldest pair came from."""

    cut: Cut
    since: int
    """The source offset."""


@dataclass(frozen=True, slots=True)
class DueStream:
    """A stream that is adapted."""

    stream: StreamId
    version: int
    """The newest source offset in the window."""
    whole: DatedCut
    """The whole window."""
    challenger: DatedCut | None = None
    """The pairs since the stream is suspected to have changed, where it is."""


@dataclass(frozen=True, slots=True)
class CutBatch:
    """The streams that are adapted in one turn, in order."""

    at: float
    """When they were due and cut (seconds, monotonic)."""
    due: Sequence[DueStream]

    @property
    def windows(self) -> list[Cut]:
        """The cuts of the whole windows, in the streams' order."""
        return [each.whole.cut for each in self.due]

    @property
    def challengers(self) -> list[Cut]:
        """The cuts of the challengers there are, in the streams' order."""
        return [each.challenger.cut for each in self.due if each.challenger]


def gate(
    batch: CutBatch,
    adaptations: Sequence[Adaptation],
    challengers: Sequence[Adaptation],
    standard_errors: Callable[[Cut], float],
) -> list[Verdict]:
    """Judges each stream's adaptation and returns the verdicts, in the batch's order.

    `challengers` are the adaptations of the batch's challengers. One takes the place of its
    stream's other adaptation where it is better by more than `standard_errors` says.
    """
    second, verdicts = iter(challengers), []
    for each, adaptation in zip(batch.due, adaptations, strict=True):
        verdict = _verdict(each, each.whole, adaptation, shortened=False)
        if each.challenger:
            challenger = next(second)
            if prefers(challenger, adaptation, standard_errors(each.challenger.cut)):
                verdict = _verdict(each, each.challenger, challenger, shortened=True)
        verdicts.append(verdict)
    return verdicts


def _verdict(
    due: DueStream, dated: DatedCut, adaptation: Adaptation, *, shortened: bool
) -> Verdict:
    return Verdict(
        stream=due.stream,
        version=due.version,
        support_pairs=dated.cut.support + dated.cut.query,
        query_pairs=adaptation.judged_pairs,
        adaptation=adaptation,
        outcome=judge(adaptation),
        window_since=dated.since,
        shortened=shortened,
    )
