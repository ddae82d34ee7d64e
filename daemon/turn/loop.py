"""One turn of the daemon. Start reading here.

    poll -> decode -> encode -> slide -> cut -> adapt -> gate -> save -> publish -> commit

Each step takes what the one before it made and calls nothing upstream. Slide begins to store the
new pairs and goes on; save waits until they are stored. Commit asks, and hears the answer in the
next turn. Kafka and Redis hold the truth: an offset is committed only when Redis has the event's
pairs and Kafka the mapping that reflects them. So there is one way back from every fault, a crash
included: forget what is in memory, claim the partitions anew, and read again from what was
committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from daemon.errors import Superseded, Unavailable
from daemon.turn.batching import Schedule, When, when_to_publish
from daemon.turn.decoding import Decoded, decode_record, encode_events
from daemon.turn.ownership import Ownership
from daemon.turn.policy import LoopPolicy
from daemon.turn.ports import AdaptationEngine, Append, Ports, WindowStore
from daemon.turn.publishing import MessageBuilder, PublicationContext
from daemon.turn.report import Holdings, OffsetRange, Publication, TurnReport, Verdict
from daemon.turn.streams import LastPublication, Stream, StreamId, Streams
from daemon.turn.window import Pair
from daemon.wire.dead_letter import DeadLetter
from daemon.wire.record import Record
from model.values.episode import Adaptation, Cut
from model.values.gate import Outcome, judge

IDLE_WAIT_S = 0.25
"""The longest a turn waits for records: a stop request is noticed this soon."""
DECODE_BUDGET_S = 5.0
"""After so long a turn decodes no further event, the rest waits for the next: large pictures must
not make a turn outlast what the group and the supervisor allow."""


def _nothing_stored() -> set[int]:
    return set()


class Loop:
    """The state that one thread owns, and the turn over it."""

    def __init__(
        self, policy: LoopPolicy, ports: Ports, outlet: MessageBuilder, instance: str
    ) -> None:
        self._policy = policy
        self._source, self._store, self._outbox = ports.source, ports.store, ports.outbox
        self._engine, self._clock = ports.engine, ports.clock
        self._outlet = outlet
        self._instance = instance
        self._turns = 0
        self._verified_at = self._polled_at = self._cut_at = ports.clock.now()
        hash = ports.engine.meta_init_hash
        self._owned = Ownership(ports.source, ports.store, policy.start, hash)
        self._streams = self._no_streams()
        self._schedule = Schedule(policy.batch)
        self._aside = ports.aside
        self._storing: Callable[[], set[int]] = _nothing_stored

    def turn(self) -> TurnReport:
        """One pass. Raises Unavailable: then call `recover` before the next."""
        self._turns += 1
        report = TurnReport(f"{self._instance}-{self._turns}")
        with self._stage(report, "poll"):
            records = self._poll(report)
        with self._stage(report, "decode"):
            events, dead_letters = self._decode(records, report)
        with self._stage(report, "encode"):
            pairs = encode_events(events, self._engine)
        with self._stage(report, "slide"):
            self._slide(events, pairs, report)
        with self._stage(report, "cut"):
            due, cuts = self._cut(report)
        with self._stage(report, "adapt"):
            adaptations = self._streams.adapt(cuts)
            report.batch_splits = self._streams.batch_splits if cuts else 0
        with self._stage(report, "gate"):
            verdicts = self._gate(due, cuts, adaptations)
        with self._stage(report, "save"):
            report.verdicts = self._saved(verdicts, report)
        with self._stage(report, "publish"):
            self._publish(report, dead_letters)
        with self._stage(report, "commit"):
            report.committed = self._owned.commit()
            with self._unless_superseded(report):
                self._owned.mark_renewed()
        self._keep_house(report)
        return report

    def recover(self) -> None:
        """Forget what is in memory, so that the next turn claims every partition anew and reads
        again from what was committed."""
        with suppress(Unavailable):  # what was begun must not go on after the next claim
            self._storing()
        self._storing = _nothing_stored
        self._drop(self._owned.forget())

    def finish(self) -> None:
        """After the last turn: wait for what it asked for. Raises Unavailable."""
        self._owned.settle()

    def serve(
        self, engine: AdaptationEngine, store: WindowStore, outlet: MessageBuilder
    ) -> WindowStore:
        """Serve another θ from the next turn on, of the same dimensions; `store` keeps windows of
        its features, and the one before is returned.

        The partitions are claimed anew, as after a fault, and what follows is the claims' affair:
        their new epochs let readers prefer the new mappings; where the store has no windows of
        these features the events are read again; every other stream's mapping is renewed.
        """
        before, self._store = self._store, store
        self._engine, self._outlet = engine, outlet
        self._owned.serve(store, engine.meta_init_hash)
        self.recover()
        self._streams = self._no_streams()
        return before

    def _no_streams(self) -> Streams:
        slots = self._policy.slots
        return Streams(self._policy.shape, self._engine.windows(slots), slots)

    # ---- poll: records of the partitions that were ours already

    def _poll(self, report: TurnReport) -> Mapping[int, Sequence[Record]]:
        self._pace()
        self._verify(report)
        idle_s = 0.0 if self._owned.renewals else IDLE_WAIT_S
        wait_s = self._schedule.wait_s(self._clock.now(), idle_s)
        room = self._policy.max_resident_streams - self._schedule.changed_count
        polled = self._source.poll(wait_s, min(self._policy.max_poll_records, max(1, room)))
        now = self._clock.now()
        self._drop(self._owned.hear(polled, now))
        report.lost |= polled.revoked
        known = frozenset(self._owned)
        report.claimed = self._owned.claim(now, self._clock.wall_ms())
        # a partition claimed just now starts elsewhere than where this poll read
        return {p: records for p, records in polled.records.items() if p in known and records}

    def _pace(self) -> None:
        """Let events come together: what a turn costs however few they are, is then shared."""
        now = self._clock.now()
        early_s = self._polled_at + self._policy.turn_interval_s - now
        if early_s > 0:
            self._clock.sleep(min(early_s, self._schedule.wait_s(now, early_s)))
        self._polled_at = self._clock.now()

    def _verify(self, report: TurnReport) -> None:
        """Now and then make sure, before anything else, that Kafka and Redis still answer."""
        now = self._clock.now()
        if now - self._verified_at >= self._policy.verify_interval_s:
            self._source.verify()
            with self._unless_superseded(report):
                self._owned.verify(self._owned)
            self._verified_at = now

    # ---- decode: bytes -> events; what cannot be used becomes a dead letter

    def _decode(
        self, records: Mapping[int, Sequence[Record]], report: TurnReport
    ) -> tuple[list[Decoded], list[DeadLetter]]:
        enough_at = self._clock.now() + DECODE_BUDGET_S
        decoded: list[Decoded | DeadLetter] = []
        for partition, batch in records.items():
            before = len(decoded)
            for record in batch:
                if self._clock.now() > enough_at:
                    self._source.seek(partition, record.offset)
                    break
                decoded.append(decode_record(partition, record, self._policy.limits, self._engine))
            if taken := len(decoded) - before:
                end = batch[taken - 1].offset + 1
                report.offsets[partition] = OffsetRange(batch[0].offset, end)
                self._owned[partition].next_offset = end
        events = [each for each in decoded if isinstance(each, Decoded)]
        dead_letters = [each for each in decoded if isinstance(each, DeadLetter)]
        report.events = len(events)
        report.dead_letters.update(letter.error.reason for letter in dead_letters)
        return events, dead_letters

    # ---- slide: every window takes its new pairs in, in memory and in the store

    def _slide(
        self, events: Sequence[Decoded], pairs: Sequence[Sequence[Pair]], report: TurnReport
    ) -> None:
        self._load({event.stream for event in events}, report)
        streams = [event.stream for event in events]
        slid = self._streams.slide(zip(streams, pairs, strict=True))
        now, wall_ms = self._clock.now(), self._clock.wall_ms()
        appends: dict[int, list[Append]] = {partition: [] for partition in report.offsets}
        for event, (new, ready) in zip(events, slid, strict=True):
            appends[event.stream.partition] += [Append(event.stream.key, pair) for pair in new]
            report.pairs += len(new)
            if ready:
                self._owe(event, now, self._waited_s(event, wall_ms))
        report.replayed_pairs = sum(map(len, pairs)) - report.pairs
        self._storing = self._aside(self._storage(appends))

    def _storage(self, appends: Mapping[int, Sequence[Append]]) -> Callable[[], set[int]]:
        """Appends everything when it is called, on whatever thread; the partitions that turned
        out to be another worker's. It takes nothing along that the loop may change meanwhile."""
        store = self._store
        batches = [
            (partition, self._owned[partition].epoch, self._owned[partition].next_offset, batch)
            for partition, batch in appends.items()
        ]

        def append_all() -> set[int]:
            lost: set[int] = set()
            for batch in batches:
                try:
                    store.append(*batch)
                except Superseded as e:
                    lost |= set(e.partitions)
            return lost

        return append_all

    def _load(self, streams: Iterable[StreamId], report: TurnReport) -> None:
        unknown: dict[int, list[str]] = {}
        for id in streams:
            if id not in self._streams:
                unknown.setdefault(id.partition, []).append(id.key)
        for partition, keys in unknown.items():
            kept = self._store.load(partition, keys)
            self._streams.add({StreamId(partition, key): pairs for key, pairs in kept.items()})
            report.loaded += sum(map(bool, kept.values()))

    def _waited_s(self, event: Decoded, wall_ms: int) -> float:
        """What an event waited in Kafka is part of its wait for a batch, as far as the producer
        tells the time and its clock is right: at most all of that wait."""
        waited_ms = wall_ms - event.recorded_ms if event.recorded_ms else 0
        return min(max(0, waited_ms) / 1000, self._policy.batch.max_wait_s)

    def _owe(self, event: Decoded, now: float, waited_s: float) -> None:
        """A mapping that reflects this event is owed, also when the event is a replay: the
        worker that saw it first may have died before it published."""
        stream = self._streams[event.stream]
        stream.fresh += 1
        if stream.fresh >= self._policy.adapt_every or stream.last is None:
            self._schedule.changed(stream.id, now - waited_s)
        else:
            self._schedule.defer(stream.id, now + self._policy.adapt_latest_s)
        self._owned[stream.id.partition].hold(stream.id.key, event.offset)
        if stream.unpublished_since_ms is None:
            stream.unpublished_since_ms = event.recorded_ms

    # ---- cut, gate

    def _cut(self, report: TurnReport) -> tuple[list[StreamId], list[Cut]]:
        self._renew(report)
        now = self._cut_at = self._clock.now()
        due = self._schedule.take_due(now)
        self._load(due, report)  # one that waited for its publish interval may have been evicted
        for id in due:
            self._streams[id].fresh = 0
        return due, [self._streams.cut(id, wanted=self._is_expected(id, now)) for id in due]

    def _is_expected(self, id: StreamId, now: float) -> bool:
        """Whether the mapping is published unless the gate changes its mind."""
        last = self._streams[id].last
        outcome = last.outcome if last else Outcome.ADAPTED
        if outcome.is_fallback:
            return False
        return when_to_publish(now, self._policy.publish_interval_s, last, outcome) is When.NOW

    def _renew(self, report: TurnReport) -> None:
        """Streams whose mapping is of another θ are due too, as far as a batch has room for them
        beside the changed ones, and a quarter of it in any case."""
        now, most = self._clock.now(), self._policy.batch.max_batch
        owned = [self._owned[partition].renewals for partition in self._owned]
        begun = sum(len(renewals) - renewals.waiting for renewals in owned)
        room = max(most - self._schedule.changed_count, (most + 3) // 4 - begun)
        for partition, renewals in zip(self._owned, owned, strict=True):
            ids = [StreamId(partition, key) for key in renewals.begin(max(0, room))]
            room -= len(ids)
            self._load(ids, report)
            for id in ids:
                if self._streams.ready(id):
                    self._schedule.changed(id, now)
                else:
                    renewals.done(id.key)

    def _gate(
        self, due: list[StreamId], cuts: list[Cut], adaptations: Sequence[Adaptation]
    ) -> list[Verdict]:
        return [
            Verdict(
                stream=id,
                version=self._streams[id].newest.offset,
                support_pairs=cut.support,
                query_pairs=cut.query,
                adaptation=adaptation,
                outcome=judge(adaptation),
            )
            for id, cut, adaptation in zip(due, cuts, adaptations, strict=True)
        ]

    # ---- save: what slide began

    def _saved(self, verdicts: list[Verdict], report: TurnReport) -> list[Verdict]:
        """The verdicts on streams that are still ours once the store has all new pairs."""
        lost, self._storing = self._storing(), _nothing_stored
        if lost:
            self._drop(self._owned.lose(lost, self._clock.now()))
            report.lost |= lost
        return [verdict for verdict in verdicts if verdict.stream.partition in self._owned]

    # ---- publish: dead letters, and the mappings whose time has come

    def _publish(self, report: TurnReport, dead_letters: Sequence[DeadLetter]) -> None:
        # as the cut foresaw: by now a few more may be due, whose factors were not made
        chosen = [verdict for verdict in report.verdicts if self._is_published(verdict)]
        with self._unless_superseded(report):  # one that slept must not speak for the new owner
            self._owned.verify({verdict.stream.partition for verdict in chosen})
        chosen = [verdict for verdict in chosen if verdict.stream.partition in self._owned]
        messages = [self._outlet.dead_letter(letter) for letter in dead_letters]
        messages += [
            self._outlet.mapping(verdict, self._occasion(verdict, report.turn))
            for verdict in chosen
        ]
        if messages:
            self._outbox.send(messages)
        acknowledged_ms = self._clock.wall_ms()
        report.published = [self._settle(verdict, acknowledged_ms) for verdict in chosen]

    def _is_published(self, verdict: Verdict) -> bool:
        stream = self._streams[verdict.stream]
        interval_s = self._policy.publish_interval_s
        match when_to_publish(self._cut_at, interval_s, stream.last, verdict.outcome):
            case When.NOW:
                return True
            case When.NEVER:
                self._release(stream)
            case later:
                self._schedule.defer(stream.id, later)
        return False

    def _occasion(self, verdict: Verdict, turn: str) -> PublicationContext:
        return PublicationContext(
            epoch=self._owned[verdict.stream.partition].epoch,
            event_time_ms=self._streams[verdict.stream].newest_time_ms,
            now_ms=self._clock.wall_ms(),
            turn=turn,
        )

    def _settle(self, verdict: Verdict, acknowledged_ms: int) -> Publication:
        stream = self._streams[verdict.stream]
        since_ms = stream.unpublished_since_ms
        # no time at all is 0: evicted meanwhile, or a producer that does not tell the time
        latency_s = max(0, acknowledged_ms - since_ms) / 1000 if since_ms else 0.0
        stream.last = LastPublication(self._cut_at, verdict.outcome)
        renewed = self._release(stream) and since_ms is None
        return Publication(stream.id, verdict.version, verdict.outcome, latency_s, renewed)

    def _release(self, stream: Stream) -> bool:
        """Nothing is owed for the stream any more; whether its mapping was of another θ."""
        stream.unpublished_since_ms = None
        tenure = self._owned[stream.id.partition]
        tenure.release(stream.id.key)
        return tenure.renewals.done(stream.id.key)

    # ---- between turns

    def _keep_house(self, report: TurnReport) -> None:
        """Evict, and tell what is held."""
        most = self._policy.max_resident_streams
        report.evicted = self._streams.evict(most, self._schedule.is_changed)
        report.holdings = Holdings(
            assigned=len(tuple(self._owned)),
            streams=len(self._streams),
            changed=self._schedule.changed_count,
            deferred=self._schedule.deferred_count,
            window_bytes=self._streams.window_bytes,
            lag=self._source.lag(),
            renewals=self._owned.renewals,
        )

    @contextmanager
    def _unless_superseded(self, report: TurnReport) -> Iterator[None]:
        try:
            yield
        except Superseded as e:
            self._drop(self._owned.lose(e.partitions, self._clock.now()))
            report.lost |= e.partitions

    def _drop(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._streams.drop(partition)
            self._schedule.drop(partition)

    @contextmanager
    def _stage(self, report: TurnReport, name: str) -> Iterator[None]:
        start = self._clock.now()
        yield
        report.stages[name] = self._clock.now() - start
