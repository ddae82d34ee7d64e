"""Events files: what is written is read back, and a bad entry costs only itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import Misconfigured
from daemon.offline.events_file import BadEntry, RecordedEvent, event_writer, read_events
from daemon.wire import paired_event
from daemon.wire.paired_event import EventLimits, Image, Text, WirePair

LIMITS = EventLimits(max_event_bytes=5_000, max_pairs=3)
CONTENTS = st.one_of(
    st.text(min_size=1, max_size=20).map(Text),
    st.binary(max_size=50).map(Image),
    st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=5).map(
        lambda values: paired_event.vector(np.array(values, np.float32))
    ),
)
EVENTS = st.builds(
    RecordedEvent,
    stream=st.text(min_size=1, max_size=10),
    pairs=st.lists(
        st.builds(WirePair, CONTENTS, CONTENTS, st.none() | st.text(max_size=5)),
        min_size=1,
        max_size=3,
    ),
    id=st.none() | st.text(max_size=5),
    time_ms=st.none() | st.integers(0, 10**12),
    partition=st.none() | st.integers(0, 100),
    offset=st.none() | st.integers(0, 10**12),
)


def write(path: Path, events: list[RecordedEvent]) -> None:
    with path.open("wb") as file:
        put = event_writer(path, file)
        for event in events:
            put(event)


@pytest.mark.parametrize("name", ["events.jsonl", "events.msgpack"])
@given(events=st.lists(EVENTS, max_size=5))
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, events: list[RecordedEvent]
) -> None:
    path = tmp_path_factory.mktemp("events") / name
    write(path, events)
    assert list(read_events(path, LIMITS)) == events


def an_event(stream: str = "s", **changes: Any) -> RecordedEvent:
    values: dict[str, Any] = {"stream": stream, "pairs": [WirePair(Text("a"), Text("b"))]}
    return RecordedEvent(**(values | changes))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"stream": "s"}', "schema"),
        (b"{nonsense", "schema"),
        (b'{"stream": "", "pairs": []}', "empty_key"),
        (b'{"stream": "s", "pairs": []}', "wrong_pair_count"),
        (b'{"stream": "s", "pairs": [], "id": "' + b"x" * 6_000 + b'"}', "oversize"),
        (b"[" * 4_000, "schema"),
    ],
)
def test_a_bad_line_is_told_by_its_number_and_the_next_one_is_read(
    tmp_path: Path, bad: bytes, reason: str
) -> None:
    path = tmp_path / "events.jsonl"
    good = msgspec.json.encode(an_event())
    path.write_bytes(good + b"\n\n" + bad + b"\n" + good)
    first, middle, last = read_events(path, LIMITS)
    assert first == last == an_event()
    assert isinstance(middle, BadEntry)
    assert (middle.place, middle.error.reason) == ("line 3", reason)


def test_a_bad_msgpack_object_is_told_by_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "events.msgpack"
    good = msgspec.msgpack.encode(an_event())
    path.write_bytes(good + msgspec.msgpack.encode({"stream": "s"}) + good + good[:-3])
    first, bad, second, cut = read_events(path, LIMITS)
    assert first == second == an_event()
    assert isinstance(bad, BadEntry)
    assert (bad.place, bad.error.reason) == (f"byte {len(good)}", "schema")
    assert isinstance(cut, BadEntry)
    assert cut.error.reason == "oversize"


def test_a_name_without_a_known_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"ends in one of \.jsonl"):
        list(read_events(tmp_path / "events.csv", LIMITS))


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be read: No such file"):
        list(read_events(tmp_path / "none.jsonl", LIMITS))
