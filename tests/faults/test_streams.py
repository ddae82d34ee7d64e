"""What one stream does or what memory holds changes nothing for the others."""

from __future__ import annotations

from pathlib import Path

from kafka import KafkaAdminClient, TopicPartition
from kafka.structs import OffsetAndMetadata

from tests.faults.conftest import Install
from tests.faults.lab import (
    LEARNED,
    Installation,
    Spring,
    assert_newest,
    assert_windows,
    kept_by_reader,
)


def test_an_exploding_stream_gets_the_fallback_and_its_neighbours_the_same_bits(
    install: Install, theta: Path
) -> None:
    streams = [f"stream-{i}" for i in range(30)]
    exploding = "stream-13"
    spring = Spring()
    events = [
        spring.event(s, scale=1e25 if s == exploding else 1) for _ in range(8) for s in streams
    ]
    with_it, without_it = install(2), install(2)
    with_it.send(events)
    without_it.send([event for event in events if event.stream != exploding])
    with with_it.worker() as one, without_it.worker() as other:
        with_it.wait_until_done()
        without_it.wait_until_done()
        adapted_at_once = max(line.get("adapted", 0) for line in one.lines())
        one.stop()
        other.stop()
    assert adapted_at_once > 5, "they must share a batch"
    disturbed, calm = kept_by_reader(with_it.mappings()), kept_by_reader(without_it.mappings())
    fallback = disturbed.pop(exploding)
    assert fallback.outcome == "not_finite"
    truth = with_it.truth.mappings(theta)
    assert fallback.content_hash == truth[exploding].content_hash
    neighbours = [s for s, shown in calm.items() if shown.outcome in LEARNED]
    assert len(neighbours) > 20
    assert {s: shown.content_hash for s, shown in disturbed.items()} == {
        s: shown.content_hash for s, shown in calm.items()
    }
    assert_windows(with_it.windows(), with_it.truth)


def test_evicted_windows_and_replayed_events_change_nothing(install: Install, theta: Path) -> None:
    lab = install(3, max_resident_streams=2)
    spring = Spring()
    lab.send([spring.event(f"stream-{i % 25}", pairs=1 + i % 3) for i in range(500)])
    with lab.worker() as worker:
        lab.wait_until_done()
        worker.stop()
    windows = lab.windows()
    assert_windows(windows, lab.truth)
    truth = lab.truth.mappings(theta)
    assert_newest(kept_by_reader(lab.mappings()), truth)

    seek_back(lab)
    with lab.worker(max_resident_streams=1000) as again:
        lab.wait_until_done()
        again.stop()
        replayed = sum(line.get("replayed", 0) for line in again.lines())
        slid = sum(line.get("pairs", 0) for line in again.lines())
    assert (replayed, slid) == (sum(len(e) for e in lab.truth.entries.values()), 0)
    assert lab.windows() == windows
    assert_newest(kept_by_reader(lab.mappings()), truth)


def seek_back(lab: Installation) -> None:
    """Everything is to be read again."""
    topic = lab.settings.kafka_events_topic
    marks = {
        TopicPartition(topic, partition): OffsetAndMetadata(0, "", -1)
        for partition in lab.committed()
    }
    with KafkaAdminClient(bootstrap_servers=lab.kafka) as admin:
        admin.alter_group_offsets(lab.name, marks)
