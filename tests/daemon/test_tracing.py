"""Traces go through the daemon: from an event's headers to its mapping's, with spans for stages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from daemon.adapters import tracing
from daemon.adapters.tracing import TracedEventSource, TracedOutbox, Tracing
from daemon.turn.report import STAGES
from daemon.wire.record import Message
from tests.daemon.lab import TOPICS, Worker, World, event, pair_of, partition_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01".encode()


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(exporter: InMemorySpanExporter) -> Iterator[Tracing]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield Tracing(provider.get_tracer("adaptd"), TOPICS.mappings)
    provider.shutdown()


def worker(world: World, traced: Tracing) -> Worker:
    made = Worker(
        world,
        source=lambda port: TracedEventSource(port, traced),
        outbox=lambda port: TracedOutbox(port, traced),
    )
    made.begin()
    return made


def send(world: World, key: str, seed: int, header: bytes | None = None) -> None:
    headers = [("traceparent", header)] if header is not None else []
    value, partition = event(pair_of(key, seed)), partition_of(key)
    now_ms = world.clock.wall_ms()
    world.topic.produce(partition, key.encode(), value, headers=headers, timestamp_ms=now_ms)


def headers_of(world: World, key: str) -> list[dict[str, bytes | None]]:
    return [dict(m.headers) for m in world.of(TOPICS.mappings) if m.key == key.encode()]


def test_a_mapping_carries_on_the_trace_of_its_newest_event(
    traced: Tracing, exporter: InMemorySpanExporter
) -> None:
    world = World()
    at_work = worker(world, traced)
    for seed in range(4):
        send(world, "a", seed)
        send(world, "b", seed)
    send(world, "a", 4, b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01")
    send(world, "a", 5, SAMPLED)
    at_work.drain()
    (of_mapping,) = [s for s in exporter.get_finished_spans() if s.name == "send mappings"]
    assert of_mapping.parent is not None
    assert of_mapping.context is not None
    assert f"{of_mapping.context.trace_id:032x}" == TRACE
    assert f"{of_mapping.parent.span_id:016x}" == PARENT
    header = headers_of(world, "a")[-1]["traceparent"]
    assert header == f"00-{TRACE}-{of_mapping.context.span_id:016x}-01".encode()
    assert all("traceparent" not in headers for headers in headers_of(world, "b"))


def test_each_stage_of_a_turn_is_a_span_within_the_turns(
    traced: Tracing, exporter: InMemorySpanExporter
) -> None:
    world = World()
    at_work = worker(world, traced)
    world.feed("a", 4)
    report = at_work.turn()
    traced.turn_ended(report, at=1_000.0)
    traced.turn_ended(at_work.drain()[-1], at=1_001.0)  # which did nothing
    spans: dict[str, ReadableSpan] = {span.name: span for span in exporter.get_finished_spans()}
    turn = spans.pop("turn")
    assert tuple(spans) == STAGES
    assert turn.end_time == 1_000 * 10**9
    for name, span in spans.items():
        assert span.parent is not None
        assert turn.context is not None
        assert span.parent.span_id == turn.context.span_id, name
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.end_time - span.start_time == round(report.stages[name] * 1e9)


@pytest.mark.parametrize(
    "header",
    [b"", b"00", b"00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-01", b"\xff" * 55, b"x" * 10_000],
)
def test_a_header_that_is_no_context_is_passed_over(traced: Tracing, header: bytes) -> None:
    world = World()
    at_work = worker(world, traced)
    for seed in range(4):
        send(world, "a", seed, header)
    at_work.drain()
    assert headers_of(world, "a")
    assert all("traceparent" not in headers for headers in headers_of(world, "a"))


def test_an_unsampled_trace_stays_unsampled(
    traced: Tracing, exporter: InMemorySpanExporter
) -> None:
    world = World()
    at_work = worker(world, traced)
    for seed in range(4):
        send(world, "a", seed, SAMPLED[:-1] + b"0")
    at_work.drain()
    header = headers_of(world, "a")[-1]["traceparent"]
    assert header is not None
    assert header.startswith(f"00-{TRACE}-".encode())
    assert header.endswith(b"-00")
    assert not exporter.get_finished_spans()


def test_contexts_are_bounded_and_the_oldest_go_first(
    traced: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "MOST_CONTEXTS", 2)
    world = World()
    for key in ("a", "c", "e"):
        send(world, key, 0, SAMPLED)
    polled = TracedEventSource(Worker(world).source, traced).poll(0, 10)
    assert polled.records
    assert len(traced.contexts) == 2


def test_a_dead_letter_keeps_its_own_context(traced: Tracing) -> None:
    world = World()
    at_work = worker(world, traced)
    partition = partition_of("a")
    world.topic.produce(partition, b"a", b"no event", headers=[("traceparent", SAMPLED)])
    at_work.drain()
    (letter,) = world.of(TOPICS.dead_letters)
    assert dict(letter.headers)["traceparent"] == SAMPLED


def test_a_span_ends_although_the_send_fails(
    traced: Tracing, exporter: InMemorySpanExporter
) -> None:
    world = World()
    send(world, "a", 0, SAMPLED)
    TracedEventSource(Worker(world).source, traced).poll(0, 10)
    world.outbox.down = True
    with pytest.raises(Exception, match="kafka"):
        TracedOutbox(world.outbox, traced).send([Message("mappings", b"a", b"", ())])
    assert [span.name for span in exporter.get_finished_spans()] == ["send mappings"]
