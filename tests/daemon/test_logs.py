"""Logs: one JSON line for each event; a mapping is traced to its turn and its offsets."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from daemon.adapters.memory import MemoryRecord
from daemon.errors import MalformedEvent, MalformedReason, Unavailable
from daemon.turn.report import RefusedEvent, TurnReport, refused_event
from daemon.wire.dead_letter import DeadLetter
from daemon.worker import logs
from tests.daemon.lab import Worker, World, event, pair_of


def lines(captured: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.splitlines()]


def turn_log(level: logs.Level = "info") -> logs.TurnLog:
    return logs.TurnLog(logs.configure(level, "json", "worker-7"))


def worked(world: World) -> TurnReport:
    """A turn with a dead letter and a mapping."""
    worker = Worker(world, name="worker-7")
    worker.begin()
    world.feed("a", 3)
    world.produce("a", b"junk")
    return worker.turn()


def test_every_line_is_json_with_level_time_and_worker(capsys: pytest.CaptureFixture[str]) -> None:
    log = turn_log("debug")
    log.finished(worked(World()))
    log.gave_up(Unavailable("redis", "über\nzwei Zeilen"), retry_in_s=0.123456)
    captured = capsys.readouterr()
    assert captured.out == ""
    for line in lines(captured.err):
        assert {"event", "level", "timestamp", "instance"} <= line.keys()
        assert line["instance"] == "worker-7"
    gave_up = lines(captured.err)[-1]
    assert (gave_up["event"], gave_up["level"]) == ("unavailable", "warning")
    assert (gave_up["service"], gave_up["retry_in_s"]) == ("redis", 0.12)


def test_a_mapping_is_traced_by_its_turn_to_the_offsets_it_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = World()
    turn_log().finished(worked(world))
    (mapping,) = world.mappings("a")
    (line,) = [x for x in lines(capsys.readouterr().err) if x["event"] == "turn"]
    assert line["turn"] == mapping.facts.turn
    assert line["offsets"] == {"1": [0, 4]}
    low, high = line["versions"][str(mapping.facts.partition)]
    assert low <= mapping.facts.version <= high
    assert line["committed"] == {"0": 0, "1": 0}  # what the turn before asked for


def test_at_debug_every_mapping_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    turn_log("debug").finished(worked(World()))
    (line,) = [x for x in lines(capsys.readouterr().err) if x["event"] == "mapping_published"]
    assert (line["stream"], line["version"], line["outcome"]) == ("a", 2, "adapted")


def test_dead_letters_are_told_by_reason_and_never_by_content(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = World()
    world.produce("secret-stream", event(pair_of("a", 1)) + b"hunter2")
    worker = Worker(world)
    worker.begin()
    turn_log("debug").finished(worker.turn())
    captured = capsys.readouterr().err
    (line,) = [x for x in lines(captured) if x["event"] == "dead_letters"]
    assert line["reasons"] == {"undecodable": 1}
    assert "hunter2" not in captured


def refused_turn(number: int, *reasons: MalformedReason) -> TurnReport:
    report = TurnReport(f"w-{number}", dead_letters=Counter(reasons))
    for offset, reason in enumerate(reasons):
        event = RefusedEvent(reason, "a-stream", 3, 10 * number + offset, "what to do")
        report.refused.setdefault(reason, event)
    return report


def test_a_dead_letter_is_shown_with_stream_place_and_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = World()
    world.produce("a\nb", b'{"pairs": []}')
    worker = Worker(world)
    worker.begin()
    report = worker.turn()
    turn_log().finished(report)
    (line,) = [x for x in lines(capsys.readouterr().err) if x["event"] == "dead_letter"]
    assert (line["stream"], line["offset"], line["turn"]) == ("a\nb", 0, report.turn)
    assert (line["reason"], line["alike"], line["level"]) == ("schema", 0, "warning")
    assert "looks like JSON: set the header content-type: application/json" in line["detail"]
    assert isinstance(line["partition"], int)


def test_dead_letters_that_are_alike_are_shown_once_in_ten_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [100.0]
    log = logs.TurnLog(logs.configure("info", "json", "w"), lambda: now[0])
    log.finished(refused_turn(1, "schema", "schema", "oversize"))
    for number in range(2, 12):
        now[0] += 0.99
        log.finished(refused_turn(number, "schema"))
    now[0] += 0.2
    log.finished(refused_turn(12, "schema"))
    shown = [x for x in lines(capsys.readouterr().err) if x["event"] == "dead_letter"]
    assert [(x["reason"], x["offset"], x["alike"]) for x in shown] == [
        ("schema", 10, 1),
        ("oversize", 12, 0),
        ("schema", 120, 10),
    ]


def test_what_a_dead_letter_quotes_is_bounded_and_shows_no_value() -> None:
    record = MemoryRecord(7, 99, b"\xff" * 5_000, b"hunter2", ())
    error = MalformedEvent("schema", "x\n" * 5_000)
    shown = refused_event(DeadLetter(record, 3, error))
    assert len(shown.stream) <= 4 * 200
    assert len(shown.detail) <= 200
    assert "\n" not in shown.detail
    assert "hunter2" not in str(shown)


def test_an_idle_turn_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    turn_log("debug").finished(TurnReport("w-1"))
    assert capsys.readouterr().err == ""


def test_what_the_level_leaves_out_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    turn_log("error").finished(worked(World()))
    assert capsys.readouterr().err == ""


def test_what_libraries_log_and_warn_of_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(logging.root.handlers)
    try:
        logs.adopt_libraries(logs.configure("info", "json", "w"))
        library = logging.getLogger("a.library")
        library.info("too small")
        library.warning("two\nlines of %s", "text")
        library.error("%d", "no number")  # a fault of the library's
        try:
            raise ValueError("inner")
        except ValueError:
            library.exception("x" * 5_000)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("of something", stacklevel=1)
    finally:
        logging.captureWarnings(False)
        logging.root.handlers = before
    text, error, warning = lines(capsys.readouterr().err)
    assert (text["library"], text["level"]) == ("a.library", "warning")
    assert text["detail"] == "two\nlines of text"
    assert (error["level"], len(error["detail"])) == ("error", 1_000)
    assert error["exception"][0]["exc_value"] == "inner"
    assert "of something" in warning["detail"]


def test_a_worker_whose_kafka_is_away_writes_nothing_but_json(tmp_path: Path) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTD_")}
    away = {"ADAPTD_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "ADAPTD_KAFKA_TIMEOUT_MS": "500"}
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "daemon", "run"],
            env=clean | away | {"ADAPTD_HTTP_PORT": "0"},
            stdout=log,
            stderr=log,
        )
        try:
            give_up_at = time.monotonic() + 60
            while (tmp_path / "log").read_text().count('"unavailable"') < 2:
                assert time.monotonic() < give_up_at
                time.sleep(0.1)
        finally:
            worker.terminate()
            assert worker.wait(20) == 0
    told = lines((tmp_path / "log").read_text())
    assert {"starting", "unavailable", "stopped"} <= {line["event"] for line in told}


def test_people_get_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console", "w").info("hello", value=3)
    text = capsys.readouterr().err
    assert "hello" in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


def test_memory_that_is_too_small_is_told_once_a_minute(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    log = logs.TurnLog(logs.configure("info", "json", "worker-7"), lambda: now[0])
    for second in range(150):
        now[0] = float(second)
        returned = 30 if second < 70 else 5  # of 100 events
        log.finished(TurnReport(f"t-{second}", events=100, returned=returned))
    told = [x for x in lines(capsys.readouterr().err) if x["event"] == "memory_too_small"]
    assert [(x["returned"], x["events"]) for x in told] == [(30 * 61, 6_100)]
    assert "ADAPTD_MAX_RESIDENT_STREAMS" in told[0]["what_to_do"]
