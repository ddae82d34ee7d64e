"""A log that nobody reads, or that has no room, stops nothing: its lines are counted as lost."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import pytest

from daemon.worker import log_sink, logs
from daemon.worker.log_sink import MAX_LINE_BYTES, LogSink

LINE = "x" * 99 + "\n"


@contextmanager
def pipe() -> Iterator[tuple[int, TextIO]]:
    """The reading end, and the writing end as a stream."""
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    try:
        yield reading, stream
    finally:
        os.close(reading)
        stream.close()


def fill(sink: LogSink) -> int:
    """Writes lines until one is lost; returns how many were not."""
    written = 0
    while not sink.lost_lines:
        sink.write(LINE)
        written += 1
    return written - 1


def test_lines_go_to_the_stream_at_once(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        sink = LogSink(file)
        sink.write("grüße, \ud800\n")
        assert (tmp_path / "log").read_text() == "grüße, \\ud800\n"


def test_a_reader_that_is_gone_stops_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        sink = LogSink(stream)
        logger = logs.configure("info", "json", "w", sink)
        logger.info("hello")
        logger.info("hello")
        assert sink.lost_lines == 2


def test_a_full_disk_stops_nothing() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        sink = LogSink(full)
        sink.write(LINE)
        assert sink.lost_lines == 1


def test_a_stream_that_is_closed_or_was_never_there_stops_nothing(tmp_path: Path) -> None:
    file = (tmp_path / "log").open("w")
    closed, none = LogSink(file), LogSink(None)
    file.close()
    for sink in (closed, none):
        sink.write(LINE)
        sink.flush()
        assert sink.lost_lines == 1
        assert not sink.isatty()


def test_a_reader_that_sleeps_costs_half_a_second_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_sink, "PATIENCE_S", 0.2)
    with pipe() as (reading, stream):
        sink = LogSink(stream)
        written = fill(sink)
        began = time.monotonic()
        for _ in range(1_000):
            sink.write(LINE)
        assert time.monotonic() - began < 0.2
        assert sink.lost_lines == 1_001
        read = b""
        while len(read) < 100 * written:
            read += os.read(reading, 65_536)
        sink.write("again\n")
        assert (read + os.read(reading, 65_536)).splitlines()[-1] == b"again"
        assert sink.lost_lines == 1_001


def test_a_line_that_was_cut_short_is_ended_before_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_sink, "PATIENCE_S", 0.05)
    with pipe() as (reading, stream):
        sink = LogSink(stream)
        while not sink.lost_lines:
            sink.write("y" * 9_999 + "\n")
        whole = b""
        os.set_blocking(reading, False)
        with suppress(BlockingIOError):
            while True:
                whole += os.read(reading, 65_536)
        sink.write("again\n")
        whole += os.read(reading, 65_536)
        assert whole.endswith(b"y\nagain\n")


def test_a_line_without_end_is_cut() -> None:
    with pipe() as (reading, stream):
        sink = LogSink(io.StringIO())
        sink.write(LINE)
        sink = LogSink(stream)
        sink.write("z" * (MAX_LINE_BYTES - 1_000) + "\n")
        assert len(os.read(reading, 2 * MAX_LINE_BYTES)) == MAX_LINE_BYTES - 999


def test_text_that_is_no_file_of_the_system_is_written_to() -> None:
    text = io.StringIO()
    LogSink(text).write("a" * (MAX_LINE_BYTES + 10) + "\n")
    assert text.getvalue().endswith("a…\n")
    assert len(text.getvalue()) == MAX_LINE_BYTES + 2
