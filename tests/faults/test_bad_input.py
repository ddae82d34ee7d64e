"""Each kind of bad event goes to the dead-letter topic, as it came and with its reason, while the
good events around it are processed. A θ that does not fit stops the start."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image as Picture

from daemon.wire.paired_event import Image, PairedEvent, Vector, WirePair, encode_event, vector
from model.theta.meta_init_file import load_meta_init, shipped
from tests.faults.conftest import Install
from tests.faults.lab import (
    SOURCE_DIM,
    TARGET_DIM,
    Installation,
    Pairs,
    Raw,
    Spring,
    assert_newest,
    assert_windows,
    eventually,
    kept_by_reader,
)

MAX_EVENT_BYTES = 8_192
X, Y = np.ones(SOURCE_DIM, np.float32), np.ones(TARGET_DIM, np.float32)
NAN, INFINITE = np.full(SOURCE_DIM, np.nan, np.float32), np.full(TARGET_DIM, np.inf, np.float32)


def event(*pairs: WirePair) -> bytes:
    return encode_event(PairedEvent(list(pairs)))


def png(side: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    Picture.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of 60 bytes that says it has 900 million pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def many_scans() -> bytes:
    """A JPEG of 80 KB that goes over its million pixels 6,000 times."""
    file = io.BytesIO()
    Picture.new("RGB", (1_020, 1_020), "gold").save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * 6_000 + b"\xff\xd9"


GOOD = WirePair(vector(X), vector(Y))
LIE = Vector("float32", [1_000_000_000], X.tobytes())
UNKNOWN = {"pairs": [{"source": {"type": "smell"}, "target": {"type": "smell"}}]}

BAD_VECTORS: list[tuple[str, bytes | None, bytes | None]] = [
    ("undecodable", b"a", b"\xc1"),
    ("undecodable", b"a", event(GOOD)[:-3]),
    ("schema", b"a", msgspec.msgpack.encode({"pears": []})),
    ("schema", b"a", msgspec.msgpack.encode([1, 2])),
    ("unknown_modality", b"a", msgspec.msgpack.encode(UNKNOWN)),
    ("wrong_modality", b"a", event(WirePair(Image(png(8)), vector(Y)))),
    ("wrong_dimension", b"a", event(WirePair(vector(X[:-1]), vector(Y)))),
    ("wrong_dimension", b"a", event(WirePair(vector(X), vector(X)))),
    ("not_finite", b"a", event(WirePair(vector(NAN), vector(Y)))),
    ("not_finite", b"a", event(GOOD, WirePair(vector(X), vector(INFINITE)))),
    ("empty_key", None, event(GOOD)),
    ("empty_key", b"", event(GOOD)),
    ("key_not_utf8", b"\xff\xfe", event(GOOD)),
    ("oversize_key", b"k" * 2_000, event(GOOD)),
    ("oversize", b"a", event(*[GOOD] * 60) + bytes(MAX_EVENT_BYTES)),
    ("lying_shape", b"a", event(WirePair(LIE, vector(Y)))),
    ("lying_shape", b"a", event(WirePair(Vector("float32", [4, 4], X.tobytes()), vector(Y)))),
    ("lying_shape", b"a", event(WirePair(Vector("float32", [-1], b""), vector(Y)))),
    ("wrong_pair_count", b"a", event()),
    ("no_value", b"a", None),
    ("implausible_time", b"a", encode_event(PairedEvent([GOOD], time_ms=1_767_225_600))),
]


def test_vectors(install: Install, theta: Path) -> None:
    lab = install(3, max_event_bytes=MAX_EVENT_BYTES)
    spring = Spring()
    bad = [Raw(key, value, (("tenant", b"\x00\xff"),)) for _, key, value in BAD_VECTORS]
    bad.append(Raw(b"a", event(GOOD), (("content-type", b"application/pickle"),)))
    bad.append(Raw(b"a", b'{"pairs": [}', (("content-type", b"application/json"), ("n", b"1"))))
    reasons = [reason for reason, _, _ in BAD_VECTORS] + ["unknown_content_type", "undecodable"]
    with lab.worker() as worker:
        lab.send([spring.event(f"stream-{i % 5}") for i in range(30)])
        places = []
        for each in bad:
            places += lab.send([each])
            lab.send([spring.event(f"stream-{i}") for i in range(5)])
        worker.wait_until_ready(3)
        lab.wait_until_done()
        worker.stop()
    assert_dead(lab, bad, places, reasons)
    assert_windows(lab.windows(), lab.truth)
    assert_newest(kept_by_reader(lab.mappings()), lab.truth.mappings(theta))


def assert_dead(
    lab: Installation, bad: list[Raw], places: list[tuple[int, int]], reasons: list[str]
) -> None:
    """Each once, with key, value and headers as sent and ours behind."""
    letters = {}
    for letter in lab.records(lab.settings.kafka_dead_letters_topic):
        ours = {name: value.decode() for name, value in letter.headers if name[:7] == "adaptd-"}
        place = int(ours["adaptd-partition"]), int(ours["adaptd-offset"])
        assert place not in letters
        letters[place] = letter, ours
    assert letters.keys() == set(places)
    for sent, place, reason in zip(bad, places, reasons, strict=True):
        letter, ours = letters[place]
        assert (letter.key, letter.value or None) == (sent.key, sent.value or None)
        assert letter.headers[: len(sent.headers)] == list(sent.headers)
        assert ours["adaptd-reason"] == reason, ours
        assert ours["adaptd-topic"] == lab.settings.kafka_events_topic
        assert ours["adaptd-error"] == "MalformedEvent"
        assert ours["adaptd-detail"]
        assert int(ours["adaptd-timestamp-ms"]) > 1_700_000_000_000


def test_pictures(install: Install) -> None:
    """On the θ that ships: pictures into vectors."""
    target_dim = load_meta_init(shipped()).target_dim
    lab = install(2, meta_init=shipped(), max_event_bytes=100_000)
    good, y = png(32), vector(np.ones(target_dim, np.float32))
    bad_pictures = {
        "truncated_image": good[: len(good) // 2],
        "decompression_bomb": bomb(),
        "unsupported_image_format": b"GIF89a" + bytes(40),
        "too_much_work": many_scans(),
    }
    bad = [Raw(b"tenant", event(WirePair(Image(data), y))) for data in bad_pictures.values()]
    bad.append(Raw(b"tenant", event(WirePair(vector(X), y))))
    reasons = [*bad_pictures, "wrong_modality"]
    fine = Raw(b"tenant", event(WirePair(Image(good), y)))
    with lab.worker() as worker:
        places = []
        for each in bad:
            places += lab.send([each])
            lab.send([fine, fine])
        lab.wait_until_done()
        eventually(lambda: len(lab.mappings()) > 0, 20, worker.tail)
        worker.stop()
    assert_dead(lab, bad, places, reasons)
    assert [len(window) for window in lab.windows().values()] == [2 * len(bad)]


def test_a_theta_of_other_dimensions_stops_the_start(install: Install) -> None:
    lab = install(1)
    with lab.worker(source_dim=SOURCE_DIM + 1) as worker:
        assert worker.process.wait(30) == 2
    lines = worker.log.read_text().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("adaptd: ADAPTD_SOURCE_DIM = 17: θ fresh-16x16x8-0 has 16")


def test_good_events_alone_leave_no_dead_letter(install: Install) -> None:
    lab = install(1)
    sent: list[Pairs] = [Spring().event("stream") for _ in range(5)]
    lab.send(sent)
    with lab.worker() as worker:
        lab.wait_until_done()
        worker.stop()
    assert lab.records(lab.settings.kafka_dead_letters_topic) == []
