"""One turn of the daemon. Start reading here.

    poll -> decode -> encode -> slide -> cut -> adapt -> gate -> save -> publish -> commit

Each step takes what the step before it made and calls nothing upstream. Two steps do not wait:
slide starts to store the new pairs, and save waits until they are stored; commit sends a request,
and the next turn's commit reads its answer. Kafka and Redis hold the truth: an offset is committed
only after Redis has the event's pairs and Kafka has the mapping that reflects them. Therefore one
recovery serves every fault, a crash included: forget what is in memory, claim the partitions anew,
and read again from the committed offsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain

from daemon.errors import Refused, Unavailable
from daemon.turn.cadence import Cadence, TurnPace
from daemon.turn.debts import Debts
from daemon.turn.decoding import (
    Decoded,
    DecodedBatches,
    decode_batches,
    encode_events,
    read_ranges,
)
from daemon.turn.gating import CutBatch, DatedCut, DueStream, gate
from daemon.turn.homes import Newcomer, settle_homes
from daemon.turn.messages import MessageBuilder, PublicationContext
from daemon.turn.ownership import Ownership
from daemon.turn.policy import DECODE_BUDGET_S, IDLE_WAIT_S, KEEP_HOME_MS, LoopPolicy
from daemon.turn.ports import AdaptationEngine, Polled, Ports, WindowStore
from daemon.turn.prequential import Prequential
from daemon.turn.publishing import PUBLISH_BUDGET_S, PublishingPace
from daemon.turn.renewals import RenewalPace
from daemon.turn.report import (
    Holdings,
    ShadowReport,
    StreamMoved,
    TurnReport,
    Verdict,
    refused_event,
)
from daemon.turn.shadow import Shadow
from daemon.turn.storing import (
    NOTHING_STORED,
    append_all,
    load_missing,
    partition_appends,
    restore_damaged,
    shorten_all,
)
from daemon.turn.streams import StreamId, Streams
from daemon.turn.window import Pair
from daemon.wire.dead_letter import DeadLetter
from daemon.wire.record import Message
from model.values.episode import Adaptation
from model.values.outside import described


class Loop:
    """The state that one thread owns, and the turn over it."""

    def __init__(
        self, policy: LoopPolicy, ports: Ports, messages: MessageBuilder, instance: str
    ) -> None:
        """`instance` begins the id of every turn."""
        self._policy, self._messages, self._instance = policy, messages, instance
        self._source, self._store, self._outbox = ports.source, ports.store, ports.outbox
        self._engine, self._clock, self._executor = ports.engine, ports.clock, ports.executor
        theta_hash, windows = ports.engine.theta.content_hash, ports.engine.windows(policy.slots)
        self._owned = Ownership(ports.source, ports.store, policy.start, theta_hash)
        self._streams = Streams(policy.shape, windows, policy.slots)
        self._debts = Debts(policy, self._streams, self._owned)
        self._prequential = Prequential(policy.prequential_streams, ports.engine)
        self._shadow: Shadow | None = None
        self._stored = NOTHING_STORED
        self._streams_moved: list[StreamMoved] = []
        self._publishing = PublishingPace(policy.batch.max_batch, policy.publish_slice_bytes)
        self._renewing = RenewalPace(policy.batch.max_batch)
        self._pace = TurnPace(policy.turn_interval_s, policy.lull_s, ports.clock.now())
        self._verifying = Cadence(policy.verify_interval_s, ports.clock.now())
        self._turns = 0

    def turn(self) -> TurnReport:
        """Runs one turn and returns what it did. Raises Unavailable, Refused: then call `recover`
        before the next turn."""
        self._turns += 1
        report = TurnReport(f"{self._instance}-{self._turns}")
        with self._stage(report, "poll"):
            polled = self._poll(report)
        with self._stage(report, "decode"):
            decoded = self._decode(polled, report)
        with self._stage(report, "encode"):
            pairs = encode_events(decoded.events, self._engine)
        with self._stage(report, "slide"):
            self._slide(decoded.events, pairs, report)
        with self._stage(report, "cut"):
            batch = self._cut(report)
        with self._stage(report, "adapt"):
            windows = batch.windows
            adaptations = self._streams.adapt([*windows, *batch.challengers])
            report.batch_splits = self._streams.batch_splits if windows else 0
        with self._stage(report, "gate"):
            incumbents, challengers = adaptations[: len(windows)], adaptations[len(windows) :]
            report.suspected = self._streams.observe(windows, incumbents)
            verdicts = gate(batch, incumbents, challengers, self._streams.standard_errors)
            self._judge_candidate(batch, incumbents, report)
        with self._stage(report, "save"):
            report.verdicts = self._save(verdicts, report)
        with self._stage(report, "publish"):
            self._publish(decoded.dead_letters, batch.at, report)
        with self._stage(report, "commit"):
            self._commit(report)
        if report.renewals:
            self._renewing.ended(report.seconds)
        self._evict(report)
        return report

    def recover(self) -> None:
        """Forgets what is in memory, so that the next turn claims every partition anew and reads
        again from the committed offsets."""
        with suppress(Unavailable, Refused):  # what was begun must not go on after the next claim
            self._stored.result()
        self._stored = NOTHING_STORED
        self._drop(self._owned.forget())

    def finish(self) -> None:
        """Waits for the last turn's commit. Raises Unavailable, Refused."""
        self._owned.await_commit()

    def serve(
        self, engine: AdaptationEngine, store: WindowStore, messages: MessageBuilder
    ) -> WindowStore:
        """Serves another θ of the same dimensions from the next turn on. `store` keeps windows of
        its features. Returns the store that was used before.

        The partitions are claimed anew, as after a fault, and the rest follows from the claims:
        their larger epochs let readers prefer the new mappings; where the store has no windows of
        these features the events are read again; every other stream's mapping is renewed.
        """
        before, self._store = self._store, store
        self._engine, self._messages = engine, messages
        self._owned.serve(store, engine.theta.content_hash)
        self.recover()
        self._streams.use(engine.windows(self._policy.slots))
        self._prequential = Prequential(self._policy.prequential_streams, engine)
        self._shadow = None
        return before

    def shadow(self, shadow: Shadow | None) -> None:
        """Judges this candidate beside the θ that is served from the next turn on, until another
        θ is served; None: no candidate."""
        self._shadow = shadow

    def owns(self, partition: int) -> bool:
        """Returns whether this worker owns the partition. May be called from any thread."""
        return partition in self._owned

    # ---- the steps of a turn

    def _poll(self, report: TurnReport) -> Polled:
        """Returns records and positions of the partitions that this worker owned before the
        poll."""
        self._wait_for_pace()
        self._verify(report)
        idle_s = 0.0 if self._owned.renewals_left else IDLE_WAIT_S
        wait_s = self._debts.wait_s(self._clock.now(), idle_s)
        room = max(1, self._policy.max_resident_streams - self._debts.changed_count)
        polled = self._source.poll(wait_s, min(self._policy.max_poll_records, room))
        now = self._clock.now()
        self._drop(self._owned.on_rebalance(polled, now))
        report.lost |= polled.revoked
        known = frozenset(self._owned)
        report.claimed = self._owned.claim(now, self._clock.wall_ms())
        # the records of a partition claimed just now were read before its claim said where to begin
        known -= self._owned.compare_again(polled.reconnected & known)
        read = {p: records for p, records in polled.records.items() if p in known and records}
        admitted = self._owned.admit(read)
        report.compared = read.keys() - admitted.keys()
        positions = {p: at for p, at in polled.positions.items() if p in known}
        return Polled(admitted, positions=positions)

    def _wait_for_pace(self) -> None:
        """Lets events gather, so that they share what a turn costs however few they are."""
        now = self._clock.now()
        if (early_s := self._pace.left_s(now)) > 0:
            self._clock.sleep(self._debts.batch_wait_s(now, early_s))
        self._pace.begin(self._clock.now())

    def _verify(self, report: TurnReport) -> None:
        """Checks at intervals, before anything else, that Kafka and Redis answer and that no
        other worker has claimed a partition."""
        now = self._clock.now()
        if self._verifying.left_s(now) <= 0:
            self._source.verify()
            self._owned.inspect_logs()
            self._lose(self._owned.verify(self._owned, now), report)
            self._verifying.mark(now)

    def _decode(self, polled: Polled, report: TurnReport) -> DecodedBatches:
        decode_until = self._clock.now() + DECODE_BUDGET_S
        decoded = decode_batches(
            polled.records,
            self._policy.limits,
            self._engine,
            lambda: self._clock.now() > decode_until,
        )
        for partition, offset in decoded.postponed.items():
            self._source.seek(partition, offset)
        before = {p: self._owned[p].next_offset for p in self._owned}
        report.offsets = read_ranges(decoded, polled.positions, before)
        for partition, last in decoded.last.items():
            self._owned.mark_read(partition, last)
        for partition, read in report.offsets.items():
            self._owned[partition].next_offset = read.end
        report.events = len(decoded.events)
        self._pace.read(report.events)
        report.dead_letters.update(letter.error.reason for letter in decoded.dead_letters)
        for letter in decoded.dead_letters:
            report.refused.setdefault(letter.error.reason, refused_event(letter))
        return decoded

    def _slide(
        self, events: Sequence[Decoded], pairs: Sequence[Sequence[Pair]], report: TurnReport
    ) -> None:
        """Adds the new pairs to their windows in memory, and starts to add them in the store."""
        new = {e.stream: e.recorded_ms for e in reversed(events) if e.stream not in self._streams}
        self._load([event.stream for event in events], report)
        if new:
            newcomers = [Newcomer(s, at_ms, self._streams[s].pairs > 0) for s, at_ms in new.items()]
            self._streams_moved += settle_homes(self._store, newcomers, KEEP_HOME_MS)
        streams = (event.stream for event in events)
        slid = self._streams.slide(zip(streams, pairs, strict=True))
        report.scores = self._prequential.score(slid, self._clock.now())
        report.pairs = sum(len(each.new) for each in slid)
        report.replayed_pairs = sum(map(len, pairs)) - report.pairs
        now, wall_ms = self._clock.now(), self._clock.wall_ms()
        for event, each in zip(events, slid, strict=True):
            if each.ready:
                self._debts.mark_owed(event, now, wall_ms)
        writes = partition_appends(report.offsets, slid, self._owned, self._streams)
        last_reads = self._owned.last_reads(report.offsets)
        self._stored = self._executor.submit(partial(append_all, self._store, writes, last_reads))

    def _cut(self, report: TurnReport) -> CutBatch:
        """Cuts the windows of the streams that are due, those included whose mapping is of
        another θ, as far as the batch has room for them."""
        now = self._clock.now()
        changed, max_batch = self._debts.changed_count, self._policy.batch.max_batch
        renewing = self._owned.begin_renewals(max_batch, changed, self._renewing.most)
        report.renewals = len(renewing)
        self._load(renewing, report)
        self._debts.mark_renewing(renewing, now)
        popped = self._debts.pop_due(now, self._publishing.mappings, at_once=self._pace.is_lull)
        self._load(popped, report)  # a stream that waited for its publish interval may be evicted
        due = self._debts.release_lost(popped)
        return CutBatch(now, [self._cut_stream(each, now) for each in due])

    def _cut_stream(self, stream_id: StreamId, now: float) -> DueStream:
        streams = self._streams
        cut = streams.cut(stream_id, wanted=self._debts.is_expected(stream_id, now))
        second = streams.challenge(cut) if self._policy.drift else None
        return DueStream(
            stream_id,
            streams[stream_id].newest.offset,
            DatedCut(cut, streams.since(cut)),
            DatedCut(second, streams.since(second)) if second else None,
        )

    def _save(self, verdicts: Sequence[Verdict], report: TurnReport) -> list[Verdict]:
        """Waits until the store has the pairs that slide began to store, writes windows again that
        it has lost, and shortens those of streams that have changed: there first, so that a
        successor has the window that the mapping was made of. Returns the verdicts on streams that
        this worker still owns."""
        stored, self._stored = self._stored.result(), NOTHING_STORED
        now = self._clock.now()
        self._lose(self._owned.lose(stored.superseded, now), report)
        if stored.damaged:
            report.restored = stored.damaged
            taken = restore_damaged(self._store, self._streams, stored.damaged, self._owned)
            self._lose(self._owned.lose(taken, now), report)
        superseded = shorten_all(self._store, self._still_owned(verdicts), self._owned)
        self._lose(self._owned.lose(superseded, now), report)
        owned = self._still_owned(verdicts)
        for verdict in owned:
            if verdict.shortened:
                self._streams.shorten(verdict.stream, verdict.support_pairs)
        return owned

    def _publish(self, letters: Sequence[DeadLetter], cut_at: float, report: TurnReport) -> None:
        """Sends the dead letters, and the mappings whose time has come, slice by slice."""
        # judged at the time of the cut: by now more may be due, whose factors were not made
        chosen = self._debts.choose(report.verdicts, cut_at)
        self._check_tenures(chosen, report)
        put_aside = (letter for letter in letters if not letter.is_dropped)
        dead = ((self._messages.dead_letter(letter), None) for letter in put_aside)
        messages = chain(dead, self._mappings(chosen, report.turn))
        for number, outgoing in enumerate(self._publishing.slices(messages)):
            if number:  # the slices before this one took their time
                self._check_tenures([verdict for _, verdict in outgoing if verdict], report)
            self._send(outgoing, cut_at, report)
        self._send_evidence(report)
        left = self._still_owned(chosen)[len(report.published) :]
        self._debts.postpone(left, cut_at)
        self._publishing.ended(len(report.published), len(left))

    def _judge_candidate(
        self, batch: CutBatch, adaptations: Sequence[Adaptation], report: TurnReport
    ) -> None:
        """Judges the candidate, if there is one. Whatever goes wrong ends that, not the turn."""
        if self._shadow is None:
            return
        began, streams = self._clock.now(), self._streams
        try:
            evidence, count = self._shadow.judge(
                batch.due, adaptations, streams.pairs, streams.since
            )
        except Exception as e:  # a candidate from outside may break its engine in any way
            report.shadow = ShadowReport(fault=described(e), reason="unusable")
            self._shadow = None
            return
        now = self._clock.now()
        took_s = now - began
        self._shadow.spent(now, took_s, report.stages["adapt"])
        report.shadow = ShadowReport(evidence, count, took_s)

    def _send_evidence(self, report: TurnReport) -> None:
        """Sends what was found out about the candidate. A topic that does not take it ends that,
        not the turn: nothing that is served depends on it."""
        if self._shadow is None or not report.shadow.evidence:
            return
        try:
            self._outbox.send(report.shadow.evidence)
            self._shadow.acknowledged()
        except (Unavailable, Refused) as e:
            report.shadow = ShadowReport(fault=str(e), reason="no_evidence")
            self._shadow = None

    def _check_tenures(self, verdicts: Iterable[Verdict], report: TurnReport) -> None:
        """Loses the partitions of these that another worker has claimed: a worker that slept must
        not speak for the new owner."""
        partitions = {verdict.stream.partition for verdict in verdicts}
        if partitions:
            self._lose(self._owned.verify(partitions, self._clock.now()), report)

    def _mappings(
        self, chosen: Iterable[Verdict], turn: str
    ) -> Iterator[tuple[Message, Verdict | None]]:
        """Yields the mappings of streams that this worker still owns, until time is over."""
        until = self._clock.now() + PUBLISH_BUDGET_S
        for verdict in chosen:
            if self._clock.now() > until:
                return
            if verdict.stream.partition in self._owned:
                yield self._mapping(verdict, turn), verdict

    def _send(
        self, outgoing: Sequence[tuple[Message, Verdict | None]], cut_at: float, report: TurnReport
    ) -> None:
        """Sends a slice, and settles what is owed to the streams of its mappings."""
        ours = [(m, v) for m, v in outgoing if v is None or v.stream.partition in self._owned]
        if not ours:
            return
        try:
            self._outbox.send([message for message, _ in ours])
        except (Unavailable, Refused):
            self._publishing.failed()
            if report.published:  # which need not be made again
                with suppress(Unavailable, Refused):
                    self._owned.commit()
                    self._owned.await_commit()
            raise
        self._publishing.acknowledged()
        now_ms = self._clock.wall_ms()
        settled = [self._debts.settle(verdict, cut_at, now_ms) for _, verdict in ours if verdict]
        report.published += settled
        for _, verdict in ours:
            if verdict:
                self._prequential.hold(verdict, self._clock.now())

    def _mapping(self, verdict: Verdict, turn: str) -> Message:
        epoch = self._owned[verdict.stream.partition].epoch
        event_time_ms = self._streams[verdict.stream].newest_time_ms
        context = PublicationContext(epoch, event_time_ms, self._clock.wall_ms(), turn)
        return self._messages.mapping(verdict, context)

    def _commit(self, report: TurnReport) -> None:
        report.committed = self._owned.commit()
        self._lose(self._owned.mark_renewed(self._clock.now()), report)
        found = self._owned.take_findings()
        report.replaced, report.moved, report.gone = found.replaced, found.moved, found.gone
        report.streams_moved, self._streams_moved = self._streams_moved, []

    # ---- between the steps

    def _load(self, ids: Iterable[StreamId], report: TurnReport) -> None:
        loaded = load_missing(self._store, self._streams, ids)
        report.loaded += loaded.windows
        report.returned += loaded.returned

    def _evict(self, report: TurnReport) -> None:
        """Makes room in memory, and reports what is held after that."""
        most = self._policy.max_resident_streams
        report.evicted = self._streams.evict(most, self._debts.is_changed)
        lag, now_ms = self._source.lag(), self._clock.wall_ms()
        report.holdings = Holdings(
            assigned=len(tuple(self._owned)),
            streams=len(self._streams),
            changed=self._debts.changed_count,
            deferred=self._debts.deferred_count,
            window_bytes=self._streams.window_bytes,
            lag=lag,
            renewals=self._owned.renewals_left,
            owed_since_ms=self._owned.owed_since_ms(lag, now_ms),
        )

    def _still_owned(self, verdicts: Iterable[Verdict]) -> list[Verdict]:
        return [verdict for verdict in verdicts if verdict.stream.partition in self._owned]

    def _lose(self, partitions: set[int], report: TurnReport) -> None:
        """Forgets the streams of partitions that another worker turned out to have claimed."""
        self._drop(partitions)
        report.lost |= partitions

    def _drop(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._streams.drop(partition)
            self._debts.drop(partition)
            self._prequential.drop(partition)
            if self._shadow:
                self._shadow.drop(partition)

    @contextmanager
    def _stage(self, report: TurnReport, name: str) -> Iterator[None]:
        start = self._clock.now()
        yield
        report.stages[name] = self._clock.now() - start
