"""`python -m benchmarks windows`: its sums against closed forms, its reading against the kernel,
and all of it once, small."""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import FIGURES, result
from benchmarks.machine import Resident, available_bytes, proc_numbers, resident
from benchmarks.timing import Stopwatch
from benchmarks.windows.memory import fitting, slope
from benchmarks.windows.plan import QUICK, Feed, WindowsPlan, names
from benchmarks.windows.spill import give_back, mappings, write_to_disk

MIB = 2**20
STATUS = (
    "Name:\tpython\nVmPeak:\t 9 kB\nVmRSS:\t    60 kB\nRssAnon:\t    10 kB\n"
    "RssFile:\t    20 kB\nRssShmem:\t    30 kB\nThreads:\t3\n"
)


def test_memory_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    assert resident(STATUS) == Resident(60 * 1024, 10 * 1024, 20 * 1024, 30 * 1024)
    assert Resident(9, 5, 3, 1) - Resident(4, 3, 1, 0) == Resident(5, 2, 2, 1)
    meminfo = tmp_path / "meminfo"
    assert available_bytes(meminfo) == float("inf")
    meminfo.write_text("MemFree:  1 kB\nMemAvailable:   7 kB\n")
    assert available_bytes(meminfo) == 7 * 1024
    assert proc_numbers("rchar: 5\nread_bytes: 4096\nName: x\n") == {"rchar": 5, "read_bytes": 4096}


def test_touched_memory_is_anonymous_and_a_mapped_files_is_the_files(tmp_path: Path) -> None:
    before = resident()
    block = mmap.mmap(-1, 32 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    np.frombuffer(block, np.uint8)[:] = 1
    grown = resident() - before
    assert 32 * MIB <= grown.anon < 40 * MIB
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        os.ftruncate(file.fileno(), 32 * MIB)
        spilled = mmap.mmap(file.fileno(), 32 * MIB)
    np.frombuffer(spilled, np.uint8)[:] = 7
    grown = resident() - before
    assert grown.anon < 40 * MIB
    assert 32 * MIB <= grown.file + grown.shmem < 40 * MIB


def test_spilled_pages_leave_memory_and_come_back_as_they_were(tmp_path: Path) -> None:
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        os.ftruncate(file.fileno(), 32 * MIB)
        spilled = mmap.mmap(file.fileno(), 32 * MIB)
    content = np.frombuffer(spilled, np.uint32)
    content[:] = np.arange(len(content))
    full = resident()
    if full.shmem > 32 * MIB:
        pytest.skip("the folder lies in memory itself")
    write_to_disk(tmp_path)
    try:
        give_back(tmp_path)
    except OSError:
        pytest.skip("this kernel does not take pages back when asked")
    assert (full - resident()).file > 24 * MIB
    assert np.array_equal(content, np.arange(len(content)))


def test_only_nameless_files_of_the_folder_are_found() -> None:
    maps = (
        "7f00-7f80 rw-s 00000000 fe:00 12 /tmp/spill/#12 (deleted)\n"
        "8f00-8f10 rw-s 00000000 fe:00 13 /tmp/spill/named\n"
        "9f00-9f10 rw-s 00000000 fe:00 14 /tmp/spillover/#14 (deleted)\n"
        "af00-af10 rw-p 00000000 00:00 0 \n"
    )
    assert mappings(maps, Path("/tmp/spill")) == [(0x7F00, 0x80)]


@given(a=st.floats(-9, 9), b=st.floats(-9, 9), n=st.integers(2, 20))
def test_a_straight_line_has_its_slope(a: float, b: float, n: int) -> None:
    x = [float(i) for i in range(n)]
    assert slope(x, [a + b * i for i in x]) == pytest.approx(b, abs=1e-9)


def test_the_best_line_is_numpys() -> None:
    x, y = [0.0, 1.0, 3.0, 4.5], [2.0, -1.0, 5.0, 4.0]
    assert slope(x, y) == pytest.approx(np.polyfit(x, y, 1)[0])
    assert slope([1.0], [3.0]) == 0.0


def test_as_many_streams_as_take_half_of_the_room() -> None:
    assert fitting(100, bytes_per_stream=10, room=4_000) == 100
    assert fitting(100, bytes_per_stream=10, room=1_000) == 50
    assert fitting(100, bytes_per_stream=10, room=5) == 1
    assert fitting(100, bytes_per_stream=0, room=1_000) == 100


def test_a_streams_features_are_of_both_sides_in_float32() -> None:
    assert WindowsPlan().raw_bytes == 32 * (512 + 512) * 4
    assert WindowsPlan().window_size == 32


def test_pairs_rise_and_fill_every_window_once() -> None:
    feed, ids = Feed(QUICK), names(QUICK, 5)
    arrivals = [each for turn in feed.full_windows(ids, QUICK) for each in turn]
    assert [stream for stream, _ in arrivals] == ids
    pairs = [pair for _, new in arrivals for pair in new]
    assert len(pairs) == 5 * QUICK.window_size
    assert sorted(pair.id for pair in pairs) == [pair.id for pair in pairs]
    assert {pair.x_D.shape for pair in pairs} == {(QUICK.dim,)}
    assert sorted(feed.chosen(4, 9)) == [0, 1, 2, 3]


def test_a_stopwatch_counts_work_and_not_sleep() -> None:
    watch = Stopwatch()
    assert watch.run(lambda: sum(range(10)), 3) == 45
    watch.wall_s, watch.cpu_s, watch.count = 2.0, 0.5, 1_000
    assert watch.figures("pair") == {
        "pairs": 1_000,
        "pairs_per_s": 500.0,
        "cpu_us_per_pair": 500.0,
    }


@pytest.mark.services
def test_a_quick_run_has_every_figure(run: Callable[..., int], tmp_path: Path) -> None:
    out = tmp_path / "windows.json"
    assert run("windows", "--streams", 30, "--spill-dir", tmp_path, "--quick", "--out", out) == 0
    report = json.loads(out.read_text())
    assert report["bench"] == "windows"
    for name, figures in report["memory"].items():
        assert figures["streams"] == 30
        assert figures["limited_by"] is None
        assert figures["filling"]["pairs"] == 30 * QUICK.window_size
        assert figures["resident_bytes"]["anon"] >= 0
        assert figures["going_on"]["append"]["pairs"] > 0
        assert figures["going_on"]["adapt"]["streams"] > 0
        assert ("written_out" in figures) == (name == "spilled")
    store = report["store"]
    assert store["keeping"]["pairs"] == QUICK.store_streams * QUICK.window_size
    assert store["redis_bytes_per_stream"] > QUICK.raw_bytes
    assert store["eviction"]["evicting"]["streams"] == QUICK.store_turns * 16
    assert store["cold_start"]["adapting"]["streams"] == QUICK.store_streams
    asked = [figure for figure in FIGURES if figure.at[0] == "windows"]
    assert not [r for figure in asked if (r := result(figure, {"windows": report}, {}).missing)]
    assert list(tmp_path.iterdir()) == [out]


def test_a_part_that_fails_gives_no_figures(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--quick", "--spill-dir", tmp_path / "nowhere", "--out", tmp_path / "out.json")
    assert run("windows", *words) == 1
    assert "no figures" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()
