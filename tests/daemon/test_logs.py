"""Logs: one JSON line for each event; a mapping is traced to its turn and its offsets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daemon.errors import Unavailable
from daemon.turn.report import TurnReport
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


def test_an_idle_turn_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    turn_log("debug").finished(TurnReport("w-1"))
    assert capsys.readouterr().err == ""


def test_what_the_level_leaves_out_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    turn_log("error").finished(worked(World()))
    assert capsys.readouterr().err == ""


def test_people_get_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console", "w").info("hello", value=3)
    text = capsys.readouterr().err
    assert "hello" in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
