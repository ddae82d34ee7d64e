"""Events files to streams: every usable pair once, the rest counted and told by its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from daemon.errors import Misconfigured
from daemon.offline import dataset
from daemon.offline.dataset import Reading
from daemon.offline.events_file import RecordedEvent, event_writer
from daemon.offline.gallery import Gallery
from daemon.wire import paired_event
from daemon.wire.paired_event import Content, EventLimits, Text, WirePair
from model.encoders.vector import VectorAsItIs
from model.meta.recorded_streams import RecordedStream

LIMITS = EventLimits(max_event_bytes=5_000, max_pairs=8)
CPU = torch.device("cpu")
X, Y = VectorAsItIs(3, CPU), VectorAsItIs(2, CPU)


def vector(*values: float) -> Content:
    return paired_event.vector(np.array(values, np.float32))


def pair(number: float, label: str | None = None) -> WirePair:
    return WirePair(vector(number, number, number), vector(-number, -number), label)


def events_file(folder: Path, *events: RecordedEvent) -> Path:
    path = folder / "events.jsonl"
    with path.open("wb") as file:
        put = event_writer(path, file)
        for event in events:
            put(event)
    return path


def read(path: Path) -> tuple[dict[str, RecordedStream], Reading]:
    reading = Reading()
    pairs = dataset.raw_pairs([path], LIMITS, reading)
    return {s.name: s for s in dataset.encoded(pairs, X, Y, reading)}, reading


def test_every_pair_goes_to_its_stream_in_order(tmp_path: Path) -> None:
    path = events_file(
        tmp_path,
        RecordedEvent(stream="a", pairs=[pair(1), pair(2)], time_ms=10),
        RecordedEvent(stream="b", pairs=[pair(7)], time_ms=11),
        RecordedEvent(stream="a", pairs=[pair(3)], time_ms=12),
    )
    streams, reading = read(path)
    assert sorted(streams) == ["a", "b"]
    assert streams["a"].x_ND[:, 0].tolist() == [1, 2, 3]
    assert streams["a"].y_NE[:, 1].tolist() == [-1, -2, -3]
    assert streams["a"].times_N.tolist() == [10, 10, 12]
    assert (reading.events, reading.pairs, reading.left_out.total()) == (3, 4, 0)


def test_a_stream_keeps_its_labels_only_if_each_pair_has_one(tmp_path: Path) -> None:
    path = events_file(
        tmp_path,
        RecordedEvent(stream="all", pairs=[pair(1, "x"), pair(2, "y")]),
        RecordedEvent(stream="some", pairs=[pair(1, "x"), pair(2)]),
    )
    streams, _ = read(path)
    assert streams["all"].labels == ("x", "y")
    assert streams["some"].labels is None


def test_what_cannot_be_used_is_counted_and_named_and_the_rest_is_read(tmp_path: Path) -> None:
    lying = paired_event.Vector("float32", [3], b"1234")
    path = events_file(
        tmp_path,
        RecordedEvent(stream="a", pairs=[WirePair(vector(1, 2), vector(1, 2))]),
        RecordedEvent(stream="a", pairs=[WirePair(Text("x"), vector(1, 2))]),
        RecordedEvent(stream="a", pairs=[WirePair(vector(1, 2, np.nan), vector(1, 2))]),
        RecordedEvent(stream="a", pairs=[WirePair(lying, vector(1, 2))]),
        RecordedEvent(stream="a", pairs=[pair(5)]),
    )
    with path.open("ab") as file:
        file.write(b"nonsense\n")
    streams, reading = read(path)
    assert streams["a"].x_ND.tolist() == [[5, 5, 5]]
    assert dict(reading.left_out) == {
        "wrong_dimension": 1,
        "wrong_modality": 1,
        "not_finite": 1,
        "lying_shape": 1,
        "schema": 1,
    }
    assert any("line 6: schema" in example for example in reading.examples)


def test_no_usable_pair_at_all_is_one_line_with_the_first_fault(tmp_path: Path) -> None:
    path = events_file(tmp_path, RecordedEvent(stream="a", pairs=[WirePair(Text("x"), Text("y"))]))
    with pytest.raises(Misconfigured, match=r"no usable pair .* wrong_modality"):
        read(path)


def test_the_gallery_finds_a_pair_by_its_features_and_keeps_the_wanted_streams_alone(
    tmp_path: Path,
) -> None:
    path = events_file(
        tmp_path,
        RecordedEvent(stream="shown", pairs=[pair(1, "one"), pair(2)]),
        RecordedEvent(stream="hidden", pairs=[pair(3, "three")]),
    )
    gallery, reading = Gallery(lambda name: name == "shown"), Reading()
    pairs = dataset.raw_pairs([path], LIMITS, reading)
    streams = {s.name: s for s in dataset.encoded(pairs, X, Y, reading, gallery.keep)}
    shown, hidden = streams["shown"], streams["hidden"]
    assert gallery.find(shown.x_ND[0], shown.y_NE[0]) == ("one", "one")
    assert gallery.find(shown.x_ND[1], shown.y_NE[1]) == ("pair 2", "pair 2")
    assert gallery.find(hidden.x_ND[0], hidden.y_NE[0]) is None
