"""A recorded topic is a data set: what a daemon reads is written down, and a θ is trained on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon.offline.events_file import RecordedEvent, read_events
from daemon.wire.paired_event import EventLimits
from model.theta.meta_init_file import load_meta_init

LIMITS = EventLimits(max_event_bytes=1_000_000, max_pairs=64)
STREAMS, EVENTS, MALFORMED = 6, 40, 3
"""What the fixture `daemon_at_work` produces."""


def adaptd(*words: str, at_work: Any) -> subprocess.CompletedProcess[str]:
    own = {
        "ADAPTD_KAFKA_BOOTSTRAP_SERVERS": at_work.kafka_bootstrap_servers,
        "ADAPTD_KAFKA_EVENTS_TOPIC": at_work.events_topic,
        "OMP_NUM_THREADS": "1",
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTD_")}
    return subprocess.run(
        [sys.executable, "-m", "daemon", *words],
        env=kept | own,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("name", ["events.jsonl", "events.msgpack"])
def test_every_good_event_is_recorded_in_the_order_of_its_stream(
    daemon_at_work: Any, tmp_path: Path, name: str
) -> None:
    done = adaptd("record", str(tmp_path / name), at_work=daemon_at_work)
    assert done.returncode == 0, done.stderr
    assert f"{STREAMS * EVENTS} events of {STREAMS} streams" in done.stdout
    assert f"left out as malformed: {MALFORMED} undecodable" in done.stdout
    events = list(read_events(tmp_path / name, LIMITS))
    assert all(isinstance(event, RecordedEvent) for event in events)
    offsets: dict[tuple[str, int | None], list[int]] = {}
    for event in events:
        assert isinstance(event, RecordedEvent)
        assert event.offset is not None
        assert event.time_ms is not None
        offsets.setdefault((event.stream, event.partition), []).append(event.offset)
    assert len(offsets) == STREAMS
    assert all(sorted(of_stream) == of_stream for of_stream in offsets.values())


def test_limit_and_since_choose_a_part(daemon_at_work: Any, tmp_path: Path) -> None:
    some = adaptd("record", str(tmp_path / "a.jsonl"), "--limit", "7", at_work=daemon_at_work)
    assert "7 events of" in some.stdout
    assert len(list(read_events(tmp_path / "a.jsonl", LIMITS))) == 7
    late = ("record", str(tmp_path / "b.jsonl"), "--since", "2100-01-01T00:00:00Z")
    none = adaptd(*late, at_work=daemon_at_work)
    assert "0 events of 0 streams" in none.stdout
    vague = ("record", str(tmp_path / "c.jsonl"), "--since", "2100-01-01T00:00:00")
    refused = adaptd(*vague, at_work=daemon_at_work)
    assert refused.returncode == 2
    assert "needs a time zone" in refused.stderr
    assert not (tmp_path / "c.jsonl").exists()


def test_a_theta_is_meta_trained_on_the_recorded_topic(daemon_at_work: Any, tmp_path: Path) -> None:
    events, theta = tmp_path / "events.msgpack", tmp_path / "mine.safetensors"
    page = tmp_path / "report.html"
    adaptd("record", str(events), at_work=daemon_at_work)
    words = ["meta-train", str(events), "--out", str(theta), "--report", str(page), "--json"]
    words += ["--steps", "3", "--hidden-dim", "16", "--seed", "3"]
    done = adaptd(*words, at_work=daemon_at_work)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    trained = load_meta_init(theta)
    assert document["theta"] == trained.version
    assert trained.version.startswith("mine-")
    assert (trained.source_dim, trained.hidden_dim, trained.target_dim) == (16, 16, 8)
    assert "<svg" in page.read_text()
    told = json.loads(trained.facts["evaluation"]) if document["figures"] else []
    assert {row["pairs"] for row in told} == {row["pairs"] for row in document["figures"]}
    assert json.loads(trained.facts["recipe"])["seed"] == 3
    again = adaptd(*words, at_work=daemon_at_work)  # continues from its end: nothing is left to do
    assert json.loads(again.stdout)["content_hash"] == document["content_hash"]
