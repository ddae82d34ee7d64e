"""Spans of OpenTelemetry: of each turn's stages, and of each mapping from the event that led to it.

The loop knows nothing of it. Its event source and its outbox are wrapped: the first notes the
trace context (W3C `traceparent`) of the newest event of each stream. The second begins a span as
its child for the stream's mapping, and puts that span's context among the mapping's headers. A
turn's spans are made from its report, after it.

Where spans go is OpenTelemetry's own configuration: OTEL_EXPORTER_OTLP_ENDPOINT and the like. They
are sent on a thread of their own, and dropped where nobody takes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from threading import Thread

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from daemon.turn.pending import Pending
from daemon.turn.ports import Bounds, EventSource, Outbox, Polled, TopicLogs
from daemon.turn.report import TurnReport
from daemon.wire.record import Message, Record

TRACEPARENT = "traceparent"
MOST_CONTEXTS = 100_000
"""Streams whose newest event's context is remembered; the oldest are forgotten first."""
LAST_SPANS_S = 1.0
"""How long a stop may wait for the last spans to be sent."""
_W3C = TraceContextTextMapPropagator()


@contextmanager
def exported(instance: str, mappings_topic: str) -> Iterator[Tracing]:
    """Sends spans by OTLP over HTTP for the block. What is left at its end has a second to go."""
    named = {"service.name": "adaptd", "service.instance.id": instance}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield Tracing(provider.get_tracer("adaptd"), mappings_topic)
    finally:
        last = Thread(target=provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(LAST_SPANS_S)


def context_of(record: Record) -> Context | None:
    """Returns the trace context that a record's headers carry, None without a valid one."""
    for name, value in record.headers:
        if name == TRACEPARENT and value is not None:
            found = _W3C.extract({TRACEPARENT: value.decode("ascii", "replace")})
            return found if get_current_span(found).get_span_context().is_valid else None
    return None


@dataclass(frozen=True, slots=True)
class Tracing:
    """The tracer, and by stream's key the context of its newest event that has one."""

    tracer: Tracer
    mappings_topic: str
    contexts: dict[bytes, Context] = field(default_factory=dict)

    def note(self, records: Mapping[int, Sequence[Record]]) -> None:
        """Remembers the contexts of these events."""
        for record in (record for of_partition in records.values() for record in of_partition):
            if record.key is not None and (context := context_of(record)) is not None:
                self.contexts.pop(record.key, None)  # so that it comes last
                self.contexts[record.key] = context
        for key in list(islice(self.contexts, max(0, len(self.contexts) - MOST_CONTEXTS))):
            del self.contexts[key]

    def begin(self, messages: Sequence[Message]) -> tuple[list[Message], list[Span]]:
        """Returns the messages, each mapping of a stream whose newest event had a context with
        that of a span of its own, and those spans."""
        traced, spans = [], []
        for message in messages:
            is_mapping = message.topic == self.mappings_topic
            parent = self.contexts.pop(message.key or b"", None) if is_mapping else None
            if parent is not None:
                span = self._span_of(message, parent)
                spans.append(span)
                message = self._with_context(message, span)
            traced.append(message)
        return traced, spans

    def _span_of(self, message: Message, parent: Context) -> Span:
        about = {
            "messaging.system": "kafka",
            "messaging.operation.type": "send",
            "messaging.destination.name": message.topic,
            "messaging.kafka.message.key": (message.key or b"").decode(errors="replace"),
        }
        name = f"send {message.topic}"
        return self.tracer.start_span(name, parent, SpanKind.PRODUCER, attributes=about)

    def _with_context(self, message: Message, span: Span) -> Message:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(span))
        ours = ((TRACEPARENT, carrier[TRACEPARENT].encode()),)
        kept = tuple(header for header in message.headers if header[0] != TRACEPARENT)
        return Message(message.topic, message.key, message.value, kept + ours)

    def turn_ended(self, report: TurnReport, at: float) -> None:
        """Makes the spans of a turn that ended `at` (seconds since 1970) and did something: one of
        the turn, and within it one of each stage, which follow one another."""
        if report.idle:
            return
        seconds = report.stages
        begin_ns = round((at - sum(seconds.values())) * 1e9)
        about: dict[str, str | int] = {
            "adaptd.turn": report.turn,
            "adaptd.events": report.events,
            "adaptd.mappings": len(report.published),
        }
        turn = self.tracer.start_span("turn", Context(), attributes=about, start_time=begin_ns)
        within = set_span_in_context(turn, Context())
        for stage, taken_s in seconds.items():
            span = self.tracer.start_span(stage, within, start_time=begin_ns)
            begin_ns += round(taken_s * 1e9)
            span.end(begin_ns)
        turn.end(begin_ns)


@dataclass(frozen=True, slots=True)
class TracedEventSource:
    """An event source whose records' contexts are noted."""

    source: EventSource
    tracing: Tracing

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        """See EventSource."""
        polled = self.source.poll(timeout_s, max_records)
        self.tracing.note(polled.records)
        return polled

    def bounds(self, partitions: Sequence[int]) -> Mapping[int, Bounds]:
        """See EventSource."""
        return self.source.bounds(partitions)

    def seek(self, partition: int, offset: int) -> None:
        """See EventSource."""
        self.source.seek(partition, offset)

    def logs(self, partitions: Sequence[int]) -> TopicLogs:
        """See EventSource."""
        return self.source.logs(partitions)

    def commit(
        self, offsets: Mapping[int, int], notes: Mapping[int, str] | None = None
    ) -> Pending[bool]:
        """See EventSource."""
        return self.source.commit(offsets, notes)

    def lag(self) -> Mapping[int, int]:
        """See EventSource."""
        return self.source.lag()

    def joined(self) -> bool:
        """See EventSource."""
        return self.source.joined()

    def verify(self) -> None:
        """See EventSource."""
        self.source.verify()

    def close(self) -> None:
        """See EventSource."""
        self.source.close()


@dataclass(frozen=True, slots=True)
class TracedOutbox:
    """An outbox whose mappings carry the context of a span of their own."""

    outbox: Outbox
    tracing: Tracing

    def send(self, messages: Sequence[Message]) -> None:
        """See Outbox."""
        traced, spans = self.tracing.begin(messages)
        try:
            self.outbox.send(traced)
        finally:
            for span in spans:
                span.end()

    def close(self) -> None:
        """See Outbox."""
        self.outbox.close()
