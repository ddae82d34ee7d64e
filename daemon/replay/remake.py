"""Makes a mapping again from the pairs of its window, by the worker's own steps: slide, cut, adapt,
gate, publish. Nothing is written anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.config import Settings
from daemon.turn.gating import CutBatch, DatedCut, DueStream, gate
from daemon.turn.messages import MessageBuilder, PublicationContext, Topics
from daemon.turn.report import Verdict
from daemon.turn.streams import StreamId, Streams
from daemon.turn.window import Pair, WindowShape
from daemon.wire.adapted_mapping import AdaptedMapping, decode_mapping
from daemon.wire.mapping_body import MappingForm
from daemon.worker.wiring import loop_policy
from model.serving.engine import Engine


class Remaker:
    """Makes mappings of one θ again, one stream at a time."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.engine = engine
        self.shape: WindowShape = loop_policy(settings, engine).shape
        self._topics = Topics(
            settings.kafka_events_topic,
            settings.kafka_mappings_topic,
            settings.kafka_dead_letters_topic,
        )
        self._letters = settings.dead_letter_max_bytes
        self._builders: dict[MappingForm, MessageBuilder] = {}
        self._streams = Streams(self.shape, engine.windows(1), 1)

    def remade(
        self,
        stream: StreamId,
        pairs: Sequence[Pair],
        form: MappingForm,
        context: PublicationContext | None = None,
    ) -> tuple[AdaptedMapping, Verdict]:
        """Returns the mapping that a worker publishes of a window of these pairs, oldest first, and
        how the gate judged it. Raises ValueError when the pairs are too few to be cut."""
        self._streams.add({stream: pairs})
        try:
            cut = self._streams.cut(stream)
            dated = DatedCut(cut, self._streams.since(cut))
            due = DueStream(stream, self._streams[stream].newest.offset, dated)
            adaptations = self._streams.adapt([cut])
            errors = self._streams.standard_errors
            (verdict,) = gate(CutBatch(0.0, [due]), adaptations, [], errors)
            context = context or PublicationContext(0, pairs[-1].time_ms, 0, "replay")
            message = self._builder(form).mapping(verdict, context)
        finally:
            self._streams.drop(stream.partition)
        assert message.value is not None
        return decode_mapping(message.value), verdict

    def _builder(self, form: MappingForm) -> MessageBuilder:
        if form not in self._builders:
            self._builders[form] = MessageBuilder(self._topics, self.engine, self._letters, form)
        return self._builders[form]
