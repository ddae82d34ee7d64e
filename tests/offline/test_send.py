"""`adaptd send` without Kafka: what is read from files, checked, and handed over to be sent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from daemon.errors import Misconfigured, Unavailable
from daemon.offline.events_file import RecordedEvent, event_writer
from daemon.offline.pairs_file import PairsForm, read_pairs
from daemon.offline.send import BATCH_EVENTS, SendReport, send_pairs
from daemon.wire.paired_event import (
    EventLimits,
    PairedEvent,
    Text,
    Vector,
    WirePair,
    encode_event,
    vector,
)
from daemon.wire.record import Message
from model.serving.engine import Engine
from model.theta.meta_init import fresh_meta_init
from model.theta.meta_init_file import load_meta_init, shipped

LIMITS = EventLimits(max_event_bytes=100_000, max_pairs=8)
VECTORS = PairsForm("vector", "vector", 100_000)


class Kept:
    """An outbox that keeps what it is told to send."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, messages: list[Message]) -> None:
        self.messages += messages

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(fresh_meta_init(3, 2, hidden_dim=4), "cpu")


def sent(
    path: Path, engine: Engine, reading: PairsForm = VECTORS
) -> tuple[SendReport, list[Message]]:
    kept = Kept()
    found = send_pairs(read_pairs(path, reading), "t", LIMITS, engine, kept, lambda _: None)  # type: ignore[arg-type]
    return found, kept.messages


def expected(source: list[float], target: list[float]) -> bytes:
    x, y = (vector(np.array(side, np.float32)) for side in (source, target))
    pair = WirePair(x, y)
    return encode_event(PairedEvent([pair]))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"stream": "s", "source": [1, 2.5, -3], "target": [0, 1e2]}\n'),
        ("b.jsonl", '\ufeff{"stream":"s","source":[1,2.5,-3],"target":[0,100]}'),
        ("a.csv", 'stream,source,target\ns,"1, 2.5, -3",0 100\n'),
        ("b.csv", '\ufefftarget,stream,source\r\n"[0, 100]",s,"[1, 2.5, -3]"\r\n'),
    ],
)
def test_a_pair_of_numbers_becomes_one_event(
    tmp_path: Path, engine: Engine, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    found, messages = sent(tmp_path / name, engine)
    assert (found.pairs, found.streams, found.first_errors) == (1, {"s"}, [])
    (message,) = messages
    assert (message.topic, message.key) == ("t", b"s")
    assert message.value == expected([1, 2.5, -3], [0, 100])


BAD_LINES = {
    "not json": "not JSON",
    "[1]": "not an object",
    '{"source": [1,2,3], "target": [1,2]}': "no stream",
    '{"stream": 5, "source": [1,2,3], "target": [1,2]}': "no stream",
    '{"stream": "", "source": [1,2,3], "target": [1,2]}': "no key",
    '{"stream": "s", "target": [1,2]}': "no source",
    '{"stream": "s", "source": [1,2], "target": [1,2]}': r"shape \(2,\), not \(3,\)",
    '{"stream": "s", "source": [1,2,1e39], "target": [1,2]}': "inf",
    '{"stream": "s", "source": [1,2,true], "target": [1,2]}': "Expected `float`",
    '{"stream": "s", "source": [1,2,"3"], "target": [1,2]}': "Expected `float`",
    '{"stream": "s", "source": "one two", "target": [1,2]}': "could not convert",
    '{"stream": "s", "source": [1,2,NaN], "target": [1,2]}': "not JSON",
    '{"stream": "s", "source": {"type": "text", "text": "x"}, "target": [1,2]}': "'text'",
    '{"stream": "s", "source": {"type": "song"}, "target": [1,2]}': "song",
    '{"stream": "s", "source": [1,2,3], "target": [1,2], "time_ms": 1700000000}': "milliseconds",
    '{"stream": "s", "source": [1,2,3], "target": [1,2], "time_ms": "now"}': "time_ms",
    '{"stream": "s", "pairs": []}': "0 pairs",
    "[" * 5_000: "not JSON",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:70])
def test_a_bad_line_is_left_out_and_named_and_the_next_is_sent(
    tmp_path: Path, engine: Engine, line: str
) -> None:
    good = '{"stream": "s", "source": [1,2,3], "target": [1,2]}'
    path = tmp_path / "a.jsonl"
    path.write_text(f"{good}\n{line}\n\n{good}\n")
    found, messages = sent(path, engine)
    assert (found.pairs, len(messages), found.left_out.total()) == (2, 2, 1)
    (error,) = found.first_errors
    assert error.startswith("line 2: ")
    assert re.search(BAD_LINES[line], error), error


def test_what_was_recorded_can_be_sent_again(tmp_path: Path, engine: Engine) -> None:
    value = expected([1, 2, 3], [4, 5])
    event = PairedEvent([WirePair(vector(np.ones(3)), vector(np.zeros(2)), "l")] * 2, "id", 5)
    path = tmp_path / "events.jsonl"
    with path.open("wb") as file:
        write = event_writer(path, file)
        write(RecordedEvent(event.pairs, event.id, event.time_ms, stream="s", offset=7))
    found, (message,) = sent(path, engine)
    assert found.pairs == 2
    assert message.value == encode_event(event) != value


def test_a_csv_without_the_columns_says_which_it_has(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "a.csv").write_text("user,x,y\nu,1 2 3,1 2\n")
    with pytest.raises(Misconfigured, match=r"no column source, target, stream; it has user, x, y"):
        sent(tmp_path / "a.csv", engine)
    reading = PairsForm("vector", "vector", 100_000, "x", "y", stream="one")
    assert sent(tmp_path / "a.csv", engine, reading)[0].streams == {"one"}


@pytest.mark.parametrize("row", ["s,1 2 3", "s", "s,,", "s,1 2 3,caf\udce9"])
def test_a_bad_row_is_left_out(tmp_path: Path, engine: Engine, row: str) -> None:
    path = tmp_path / "a.csv"
    text = f"stream,source,target\n{row}\ns,1 2 3,4 5\n"
    path.write_bytes(text.encode(errors="surrogateescape"))
    found, _ = sent(path, engine)
    assert (found.pairs, found.left_out.total()) == (1, 1)
    assert found.first_errors[0].startswith("line 2: ")


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", (32, 32), (200, 30, 30)).save(path)


def test_a_folder_pairs_pictures_with_texts_of_the_same_stem(tmp_path: Path) -> None:
    theta = load_meta_init(shipped())
    engine = Engine(theta, "cpu")
    for name in ("cam/a.png", "cam/b.png", "cam/broken.png", "c.png"):
        picture(tmp_path / "data" / name)
    (tmp_path / "data" / "cam" / "broken.png").write_bytes(b"\x89PNG nothing")
    numbers = " ".join(["0.5"] * theta.target_dim)
    for stem in ("cam/a", "cam/broken", "c"):
        (tmp_path / "data" / f"{stem}.txt").write_text(numbers + "\n")
    reading = PairsForm(theta.source_modality, theta.target_modality, 100_000)
    found, messages = sent(tmp_path / "data", engine, reading)
    assert [message.key for message in messages] == [b"data", b"cam"]
    places = [error.split(":")[0] for error in found.first_errors]
    assert places == ["cam/b.png", "cam/broken.png"]


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    picture(tmp_path / "pictures" / "a.png")
    (tmp_path / "note.txt").write_text("x")
    lines = [
        {"stream": "s", "source": name, "target": "red"}
        for name in ("pictures/a.png", "pictures/none.png", "pictures", "zero\0byte")
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    entries = list(read_pairs(path, PairsForm("image", "text", 100_000)))
    assert entries[0].event is not None
    assert entries[0].event.pairs[0].target == Text("red")
    assert [bool(entry.error) for entry in entries] == [False, True, True, True]
    small = PairsForm("image", "text", max_event_bytes=50)
    assert "at most 50" in next(read_pairs(path, small)).error


def test_a_folder_needs_a_theta_with_one_picture_or_sound(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="vector to vector"):
        list(read_pairs(tmp_path, VECTORS))
    with pytest.raises(Misconfigured, match="holds no file"):
        list(read_pairs(tmp_path, PairsForm("image", "text", 1_000)))


def test_a_vector_as_on_the_wire_is_taken(tmp_path: Path, engine: Engine) -> None:
    content = {"type": "vector", "dtype": "float32", "shape": [2], "data": "AAAAAAAAAAA="}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"stream": "s", "source": [1, 2, 3], "target": content}) + "\n")
    (entry,) = read_pairs(path, VECTORS)
    assert entry.event is not None
    assert entry.event.pairs[0].target == Vector("float32", [2], bytes(8))
    assert sent(path, engine)[0].pairs == 1


class Away(Kept):
    """An outbox whose Kafka goes away after the first batch."""

    def send(self, messages: list[Message]) -> None:
        if self.messages:
            raise Unavailable("kafka", "produce: no broker")
        super().send(messages)


def test_an_outage_on_the_way_says_how_far_it_came(tmp_path: Path, engine: Engine) -> None:
    path, line = tmp_path / "a.jsonl", '{"stream": "s", "source": [1,2,3], "target": [1,2]}\n'
    path.write_text(line * (BATCH_EVENTS + 7))
    entries, away = read_pairs(path, VECTORS), Away()
    with pytest.raises(Unavailable, match="500 pairs were sent before, of the next 7 events"):
        send_pairs(entries, "t", LIMITS, engine, away, lambda _: None)  # type: ignore[arg-type]


def test_of_many_errors_the_first_are_named_and_all_are_counted(
    tmp_path: Path, engine: Engine
) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n" * 40)
    found, messages = sent(tmp_path / "a.jsonl", engine)
    assert (found.pairs, messages, found.left_out.total()) == (0, [], 40)
    assert [error.split(":")[0] for error in found.first_errors] == [
        f"line {n}" for n in range(1, 6)
    ]


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path, engine: Engine) -> None:
    good = '{"stream": "s", "source": [1,2,3], "target": [1,2]}\n'
    (tmp_path / "a.jsonl").write_text("x" * 1_000_000 + "\n" + good + "x" * 900_000)
    found, _ = sent(tmp_path / "a.jsonl", engine)
    assert (found.pairs, found.left_out.total()) == (1, 2)
