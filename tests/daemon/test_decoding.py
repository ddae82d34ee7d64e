"""What an event costs to decode is counted over all of its contents."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image as Picture

from daemon.adapters.memory import MemoryRecord
from daemon.turn.decoding import Decoded, decode_record
from daemon.wire.dead_letter import DeadLetter
from daemon.wire.paired_event import (
    Content,
    EventLimits,
    Image,
    PairedEvent,
    Video,
    WirePair,
    encode_event,
    vector,
)
from model.serving.engine import Engine
from model.theta.meta_init_file import load_meta_init, shipped

LIMITS = EventLimits(max_event_bytes=2**20, max_pairs=64)
TARGET = vector(np.ones(32, np.float32))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(load_meta_init(shipped()), "cpu")


def webp(side: int) -> bytes:
    file = io.BytesIO()
    Picture.new("RGB", (side, side), (1, 2, 3)).save(file, "WEBP", lossless=True)
    return file.getvalue()


def jpeg(scans: int) -> bytes:
    file = io.BytesIO()
    Picture.new("RGB", (1_020, 1_020), (1, 2, 3)).save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * scans + b"\xff\xd9"


def decoded(engine: Engine, *sources: Content) -> Decoded | DeadLetter:
    value = encode_event(PairedEvent([WirePair(source, TARGET) for source in sources]))
    assert len(value) <= LIMITS.max_event_bytes
    record = MemoryRecord(offset=3, timestamp=1, key=b"s", value=value, headers=())
    return decode_record(0, record, LIMITS, engine)


def test_a_jpeg_of_86000_scans_is_a_dead_letter_at_once(engine: Engine) -> None:
    started = time.process_time()
    letter = decoded(engine, Image(jpeg(80_000)))
    assert isinstance(letter, DeadLetter)
    assert letter.error.reason == "too_much_work"
    assert "source of pair 0: JPEG of 80010 scans" in letter.error.detail
    assert time.process_time() - started < 0.5


def test_pictures_of_all_pairs_are_counted_together(engine: Engine) -> None:
    largest = webp(4_096)
    started = time.process_time()
    for sources in ([Image(largest)] * 64, [Video([largest] * 5)] * 2):
        letter = decoded(engine, *sources)
        assert isinstance(letter, DeadLetter)
        assert letter.error.reason == "too_much_work"
        assert f"all {len(sources)} pairs" in letter.error.detail
    assert time.process_time() - started < 0.5
    event = decoded(engine, *[Image(webp(40))] * 64)
    assert isinstance(event, Decoded)
    assert len(event.sources) == 64
