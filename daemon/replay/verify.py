"""Proves that published mappings follow from the recorded events: made again, each has the same
content hash."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from daemon.replay.log import OffsetSpan, RecordedLog
from daemon.replay.remake import Remaker
from daemon.turn.streams import StreamId
from daemon.turn.window import Pair
from daemon.wire.adapted_mapping import AdaptedMapping, Facts
from daemon.wire.mapping_body import MappingForm

ReplayResult = Literal["same", "different", "incomplete", "other_theta"]
"""`incomplete`: the topic has not all pairs of its window any more, or the range begins behind
them. `other_theta`: it was adapted from a θ that is not known here."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One published mapping, and what came of making it again."""

    facts: Facts
    result: ReplayResult
    detail: str = ""


def replay(
    published: Iterable[AdaptedMapping],
    log: RecordedLog,
    span: OffsetSpan,
    remaker_of: Callable[[str], Remaker | None],
) -> Iterator[Replayed]:
    """Makes every mapping again whose newest event lies in the range. `remaker_of` gives the
    remaker of the θ of a content hash, None where that is not known."""
    for mapping in published:
        facts = mapping.facts
        if not span.has(facts.partition, facts.version):
            continue
        remaker = remaker_of(facts.meta_init_hash)
        if remaker is None:
            yield Replayed(facts, "other_theta", f"θ {facts.meta_init} is not known here")
        else:
            yield remade_alike(mapping, log.pairs.get(_stream(facts), []), remaker)


def remade_alike(mapping: AdaptedMapping, pairs: Sequence[Pair], remaker: Remaker) -> Replayed:
    """Makes one mapping again from its stream's pairs, of which only its window counts."""
    facts = mapping.facts
    window = window_of(facts, pairs)
    if len(window) < facts.support_pairs or not remaker.shape.ready(len(window)):
        detail = f"{len(window)} of {facts.support_pairs} pairs of its window are there"
        return Replayed(facts, "incomplete", detail)
    if facts.support_pairs > remaker.shape.size:
        detail = f"its window has {facts.support_pairs} pairs, windows here {remaker.shape.size}"
        return Replayed(facts, "different", f"{detail}: ADAPTD_SUPPORT_SIZE, ADAPTD_QUERY_SIZE")
    made, verdict = remaker.remade(_stream(facts), window, MappingForm(facts.encoding, facts.dtype))
    if made.facts.content_hash == facts.content_hash:
        return Replayed(facts, "same")
    if verdict.outcome is not facts.outcome:
        detail = f"the outcome is {verdict.outcome.value}, {facts.outcome.value} was published"
        return Replayed(facts, "different", detail)
    return Replayed(facts, "different", f"content hash {made.facts.content_hash[:12]}…")


def window_of(facts: Facts, pairs: Sequence[Pair]) -> list[Pair]:
    """Returns the pairs, of a stream's in order of offsets, that a mapping learned from."""
    there = [p for p in pairs if facts.window_since <= p.id.offset <= facts.version]
    return there[-facts.support_pairs :]


def _stream(facts: Facts) -> StreamId:
    return StreamId(facts.partition, facts.stream)
