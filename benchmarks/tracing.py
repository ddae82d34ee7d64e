"""`python -m benchmarks tracing`: what spans cost, in CPU time for each event.

What tracing adds to a turn is timed alone, for beside a turn's own work it could not be seen: to
note the contexts of the events that were polled, to begin and end a span for each mapping, and to
make the spans of the turn. `every_event`: each comes with a sampled context and leads to a mapping,
which is the most there can be to do. `no_context`: none comes with one. Spans go to an exporter
that drops them; sending them is done on a thread of its own.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.output import Benchmark, NoFigures, Report, Say
from daemon.adapters.tracing import Tracing
from daemon.turn.report import STAGES, OffsetRange, TurnReport
from daemon.wire.record import Message, RawRecord

CONTEXT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
CONTENT = ("content-type", b"application/msgpack")


@dataclass(frozen=True, slots=True)
class TracingPlan:
    """How much is measured."""

    events_per_turn: int = 256
    turns: int = 40
    repetitions: int = 5


class DroppingExporter(SpanExporter):
    """Takes spans, counts them, and drops them."""

    def __init__(self) -> None:
        self.count = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Counts them."""
        self.count += len(spans)
        return SpanExportResult.SUCCESS


def tracing_figures(plan: TracingPlan, say: Say) -> Report:
    """Times what tracing adds to turns. Raises NoFigures when spans are missing."""
    found = {}
    for name, headers in (("every_event", (CONTENT, CONTEXT)), ("no_context", (CONTENT,))):
        runs = [cpu_us_per_event(plan, headers) for _ in range(plan.repetitions)]
        found[name] = {
            "cpu_us_per_event": round(statistics.median(runs), 2),
            "least": round(min(runs), 2),
            "most": round(max(runs), 2),
        }
        say(f"{name}: {found[name]['cpu_us_per_event']} µs of CPU an event")
    return {"tracing": found}


def cpu_us_per_event(plan: TracingPlan, headers: tuple[tuple[str, bytes], ...]) -> float:
    """Returns the process's CPU time for each event, the exporter's thread included."""
    keys = [b"stream-%d" % number for number in range(plan.events_per_turn)]
    polled = {0: [RawRecord(0, 0, key, b"", headers) for key in keys]}
    messages = [Message("adapted-mappings", key, b"", ()) for key in keys]
    read = {0: OffsetRange(0, len(keys))}
    stages = dict.fromkeys(STAGES, 1e-3)
    report = TurnReport("w-1", events=len(keys), offsets=read, stages=stages)
    exporter, provider = DroppingExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=1_000_000))
    tracing = Tracing(provider.get_tracer("adaptd"), "adapted-mappings")
    began = time.process_time()
    for _ in range(plan.turns):
        tracing.note(polled)
        _, spans = tracing.begin(messages)
        for span in spans:
            span.end()
        tracing.turn_ended(report, at=time.time())
    provider.shutdown()
    taken_s = time.process_time() - began
    due = plan.turns * (1 + len(STAGES) + (len(keys) if CONTEXT in headers else 0))
    if exporter.count != due:
        raise NoFigures(f"{exporter.count} spans were made, not {due}")
    return taken_s / (plan.turns * len(keys)) * 1e6


BENCHMARK = Benchmark(
    name="tracing",
    full=TracingPlan(),
    quick=TracingPlan(turns=2, repetitions=1),
    packages=("adaptd", "opentelemetry-sdk"),
    measure=tracing_figures,
)
