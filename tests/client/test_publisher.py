"""What a publisher refuses, it refuses with the reason that the dead letter would have had."""

from __future__ import annotations

from threading import Thread
from typing import Any

import numpy as np
import pytest

from daemon.client.publisher import PairPublisher, Unacknowledged, as_content
from daemon.config import Settings
from daemon.errors import MalformedEvent, Unavailable
from daemon.wire.paired_event import Audio, EventLimits, Image, Text, Vector
from tests.client.conftest import THETA

SOURCE, TARGET = np.ones(6, np.float32), np.ones(4, np.float32)
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt "


@pytest.fixture(scope="module")
def pairs() -> PairPublisher:
    """One that checks and has no Kafka: what passes all checks fails behind them."""
    made = PairPublisher.__new__(PairPublisher)
    made._settings, made._theta = Settings(), THETA
    made._limits = EventLimits(2_000, 3)
    return made


@pytest.mark.parametrize(
    ("reason", "stream", "source", "target", "more"),
    [
        ("empty_key", "", SOURCE, TARGET, {}),
        ("oversize_key", "s" * 1025, SOURCE, TARGET, {}),
        ("key_not_utf8", "\ud800", SOURCE, TARGET, {}),
        ("wrong_dimension", "s", SOURCE[:5], TARGET, {}),
        ("wrong_dimension", "s", SOURCE, np.ones(5), {}),
        ("wrong_modality", "s", "a text", TARGET, {}),
        ("not_finite", "s", SOURCE * np.nan, TARGET, {}),
        ("not_finite", "s", SOURCE, TARGET * np.inf, {}),
        ("lying_shape", "s", np.ones((1, 6)), TARGET, {}),
        ("schema", "s", object(), TARGET, {}),
        ("schema", "s", None, TARGET, {}),
        ("implausible_time", "s", SOURCE, TARGET, {"time_ms": 1_767_225_600}),
        ("schema", "s", SOURCE, TARGET, {"time_ms": -1}),
        ("oversize", "s", SOURCE, TARGET, {"label": "x" * 3_000}),
    ],
)
def test_a_bad_pair_is_refused_before_it_is_sent(
    pairs: PairPublisher, reason: str, stream: str, source: Any, target: Any, more: dict[str, Any]
) -> None:
    with pytest.raises(MalformedEvent) as refused:
        pairs.send(stream, source, target, **more)
    assert refused.value.reason == reason


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_or_many_pairs_are_refused(pairs: PairPublisher, count: int) -> None:
    with pytest.raises(MalformedEvent, match=f"{count} pairs; expected 1 to 3"):
        pairs.send_event("s", [(SOURCE, TARGET, None)] * count)


def test_contents_are_told_by_what_they_are() -> None:
    import torch

    assert as_content("a text") == Text("a text")
    assert as_content(b"\x89PNG") == Image(b"\x89PNG")
    assert as_content(WAV) == Audio(WAV)
    assert as_content(Audio(b"", "pcm_s16le", 8000)) == Audio(b"", "pcm_s16le", 8000)
    tensor = torch.ones(3, requires_grad=True, dtype=torch.bfloat16)
    for numbers in ([1, 1, 1], (1.0, 1.0, 1.0), np.ones(3, np.int64), tensor):
        content = as_content(numbers)
        assert isinstance(content, Vector)
        assert content.shape == [3]
    assert as_content(np.ones(2, np.float16)) == Vector("float16", [2], b"\x00\x3c" * 2)


def test_what_kafka_has_not_acknowledged_is_limited() -> None:
    waiting = Unacknowledged(most=100)
    waiting.add(1_000, timeout_s=0)  # alone, an event may have any size
    with pytest.raises(Unavailable, match="1000 bytes of events are not acknowledged"):
        waiting.add(1, timeout_s=0.01)
    waiting.remove(1_000)
    waiting.add(60, timeout_s=0)
    waiting.add(40, timeout_s=0)
    acknowledging = Thread(target=waiting.remove, args=[40])
    acknowledging.start()
    waiting.add(30, timeout_s=10)
    acknowledging.join()
    with pytest.raises(Unavailable, match="90 bytes"):
        waiting.add(11, timeout_s=0.01)
