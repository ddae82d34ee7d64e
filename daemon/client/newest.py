"""Which mapping of each stream is served: the newest good one, whatever else comes. Pure.

Records come in the order of their partitions. Each either takes the place of what its stream has,
erases it, waits for a θ that is not known yet, or is passed over and counted with the reason. What
is passed over changes nothing: the newest good mapping before it stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from daemon.client.served import (
    ServedMapping,
    ServedTheta,
    needs_theta,
    require_order,
    servable,
)
from daemon.wire.adapted_mapping import (
    AdaptedMapping,
    BadMapping,
    BadMappingReason,
    Facts,
    decode_mapping,
)
from model.values.outside import described

Older = Literal["older", "fenced", "repeated"]
PassedOver = Literal[
    "unreadable", "no_key", "key_not_utf8", "wrong_stream", BadMappingReason, Older
]
"""Why a record changes nothing: a label of metrics.

`older`: its writer was behind the one that is served. `fenced`: its epoch is smaller, so its writer
had lost the partition before it wrote. `repeated`: the same mapping again.
"""
Gap = Literal["log", "window"]
"""`log`: records were removed before they were read. `window`: the window of a stream's new mapping
begins behind the version before, so that no mapping in between was seen."""
WAITING_MOST = 1_000
"""Streams whose newest record waits for its θ; of further ones it is passed over."""
SHOWN_CHARS = 200


class MappingRecord(Protocol):
    """What is read of a record of the mappings topic."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Selection:
    """Which streams are followed: those named, those that begin so, or all."""

    streams: frozenset[str] | None = None
    prefix: str = ""

    def __contains__(self, stream: str) -> bool:
        return stream.startswith(self.prefix) and (self.streams is None or stream in self.streams)


EVERY_STREAM = Selection()


def selection(streams: str | Collection[str] | None) -> Selection:
    """Returns the streams that are meant: None for all, a text for those that begin with it, a
    collection for those that it names."""
    if streams is None:
        return EVERY_STREAM
    return Selection(prefix=streams) if isinstance(streams, str) else Selection(frozenset(streams))


@dataclass(frozen=True, slots=True)
class Swapped:
    """A stream is served by another mapping than before; by none where it was erased."""

    stream: str
    mapping: ServedMapping | None
    gap: bool = False
    """Whether events between this mapping's window and the version before it are in neither."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A record changed nothing, for this reason."""

    reason: PassedOver
    detail: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A stream's record waits for the θ of this content hash."""

    stream: str
    theta: str


Result = Swapped | Ignored | Waiting | None
"""None: a record of a stream that is not followed."""


def older(new: Facts, held: Facts) -> Older | None:
    """Returns why the new mapping does not take the place of the one that is held, None if it does.

    Within a partition of events the larger (epoch, version) counts, and of equals the later record;
    between two partitions the larger (event_time_ms, partition).
    """
    if new.partition != held.partition:
        place, served = (new.event_time_ms, new.partition), (held.event_time_ms, held.partition)
        return None if place > served else "older"
    if new.epoch < held.epoch:
        return "fenced"
    order, served = (new.epoch, new.version), (held.epoch, held.version)
    if order == served and _written(new) == _written(held):
        return "repeated"
    return None if order >= served else "older"


class NewestMappings:
    """The mappings that are served, by stream.

    One thread calls `take`, `erase_unseen` and `retry`. Any thread may call `get` at any time: what
    it gets is whole, and stays as it is, for a mapping is put in place of another in one step.
    """

    def __init__(
        self,
        followed: Selection = EVERY_STREAM,
        thetas: Iterable[ServedTheta] = (),
        *,
        keeps: bool = True,
    ) -> None:
        """`thetas` are known from the start; `keeps` keeps `lowrank` and float16 mappings
        multiplied out once they were applied."""
        self._followed, self._keeps = followed, keeps
        self._served: dict[str, ServedMapping] = {}
        self._waiting: dict[str, AdaptedMapping] = {}
        self._unseen: set[str] | None = None
        self.thetas = {theta.content_hash: theta for theta in thetas}
        """θs by content hash; whoever finds one adds it, and calls `retry`."""
        self._given = frozenset(self.thetas)
        self.passed_over: Counter[PassedOver] = Counter()
        self.gaps: Counter[Gap] = Counter()
        self.swaps = 0
        self.erased = 0

    def __len__(self) -> int:
        return len(self._served)

    def get(self, stream: str) -> ServedMapping | None:
        """Returns the mapping that the stream is served by now, None where it has none."""
        return self._served.get(stream)

    def items(self) -> list[tuple[str, ServedMapping]]:
        """Returns every stream with its mapping, as of now."""
        return list(self._served.items())

    def add_theta(self, theta: ServedTheta, active: str | None = None) -> None:
        """Knows this θ from now on, and forgets those that nothing needs any more: no mapping, no
        file that was given, and not the active one, whose content hash `active` is."""
        used = {m.facts.meta_init_hash for _, m in self.items()} | self.wanted_thetas
        needed = used | self._given | {active}
        self.thetas = {h: t for h, t in self.thetas.items() if h in needed}
        self.thetas[theta.content_hash] = theta

    @property
    def wanted_thetas(self) -> set[str]:
        """Content hashes of the θs that records wait for."""
        return {mapping.facts.meta_init_hash for mapping in self._waiting.values()}

    def take(self, record: MappingRecord) -> Result:
        """Takes the next record of a partition, and returns what it changed. Raises nothing."""
        try:
            result = self._taken(record)
        except Exception as e:  # whatever a record does to us, the next one is read
            result = Ignored("not_a_mapping", described(e))
        return self._counted(result)

    def _counted(self, result: Result) -> Result:
        match result:
            case Swapped(_, None):
                self.erased += 1
            case Swapped():
                self.swaps += 1
                self.gaps["window"] += result.gap
            case Ignored(reason):
                self.passed_over[reason] += 1
        return result

    def _taken(self, record: MappingRecord) -> Result:
        if fault := getattr(record, "fault", None):
            return Ignored("unreadable", str(fault)[:SHOWN_CHARS])
        if not record.key:
            return Ignored("no_key", "the record has no key; expected the stream's id")
        try:
            stream = record.key.decode()
        except UnicodeDecodeError as e:
            return Ignored("key_not_utf8", str(e)[:SHOWN_CHARS])
        if stream not in self._followed:
            return None
        if self._unseen is not None:
            self._unseen.discard(stream)
        if record.value is None:
            self._waiting.pop(stream, None)
            return Swapped(stream, None) if self._served.pop(stream, None) else None
        try:
            mapping = decode_mapping(record.value)
            if mapping.facts.stream != stream:
                detail = f"the key is {stream!r}, the mapping {mapping.facts.stream!r}"
                return Ignored("wrong_stream", detail[:SHOWN_CHARS])
            return self._swapped(stream, mapping)
        except BadMapping as e:
            return Ignored(e.reason, f"{stream!r}: {e}"[:SHOWN_CHARS])

    def _swapped(self, stream: str, mapping: AdaptedMapping) -> Result:
        facts, held = mapping.facts, self._served.get(stream)
        require_order(facts)
        if held and (why := older(facts, held.facts)):
            return Ignored(why, f"{_order(facts)}; {_order(held.facts)} is served")
        if needs_theta(facts) and facts.meta_init_hash not in self.thetas:
            return self._awaiting_theta(stream, mapping)
        self._served[stream] = servable(mapping, self.thetas, keeps=self._keeps)
        gap = held is not None and _is_gap(facts, held.facts)
        return Swapped(stream, self._served[stream], gap)

    def _awaiting_theta(self, stream: str, mapping: AdaptedMapping) -> Result:
        before = self._waiting.get(stream)
        if before and (why := older(mapping.facts, before.facts)):
            return Ignored(why, f"{_order(mapping.facts)}; {_order(before.facts)} waits")
        if before is None and len(self._waiting) >= WAITING_MOST:
            detail = f"{stream!r} needs θ {mapping.facts.meta_init}, and so do many others"
            return Ignored("unknown_theta", detail)
        self._waiting[stream] = mapping
        return Waiting(stream, mapping.facts.meta_init_hash)

    def retry(self) -> list[Result]:
        """Takes the mappings again that waited for a θ, after θs were added. Returns what each
        changed."""
        ready = [s for s, m in self._waiting.items() if m.facts.meta_init_hash in self.thetas]
        results = []
        for stream in ready:
            try:
                result = self._swapped(stream, self._waiting.pop(stream))
            except BadMapping as e:
                result = Ignored(e.reason, f"{stream!r}: {e}"[:SHOWN_CHARS])
            results.append(self._counted(result))
        return results

    # ---- a topic that is read again from its beginning

    def kept(self) -> Iterator[AdaptedMapping]:
        """Yields every mapping that is served or waits for its θ, to be kept over a restart."""
        yield from (served.published for _, served in self.items())
        yield from self._waiting.values()

    def restore(self, mapping: AdaptedMapping) -> None:
        """Serves a mapping of a snapshot, if its stream is followed. Raises BadMapping."""
        if mapping.facts.stream in self._followed:
            self._swapped(mapping.facts.stream, mapping)

    def begin_again(self) -> None:
        """Notes that the topic is read from its beginning: `erase_unseen` then finds the streams
        that are no longer in it."""
        self._unseen = {*self._served, *self._waiting}

    def erase_unseen(self) -> list[Swapped]:
        """Erases the streams of which no record came since `begin_again`, and returns them: they
        were erased while nobody looked, and compaction has removed even the tombstone."""
        unseen, self._unseen = sorted(self._unseen or ()), None
        for stream in unseen:
            self._waiting.pop(stream, None)
        erased = [stream for stream in unseen if self._served.pop(stream, None)]
        self.erased += len(erased)
        return [Swapped(stream, None) for stream in erased]


def _written(facts: Facts) -> tuple[object, ...]:
    """What two records of one mapping share only if they are the same one, sent twice."""
    return facts.content_hash, facts.turn, facts.published_at_ms, facts.event_time_ms


def _is_gap(new: Facts, held: Facts) -> bool:
    same = (new.topic, new.partition) == (held.topic, held.partition)
    return same and new.window_since > held.version + 1


def _order(facts: Facts) -> str:
    return f"epoch {facts.epoch}, version {facts.version} of partition {facts.partition}"


def by_theta(served: Iterable[tuple[str, ServedMapping]]) -> Mapping[str, int]:
    """Returns how many streams are served by mappings of each version of θ."""
    return Counter(mapping.facts.meta_init for _, mapping in served)
