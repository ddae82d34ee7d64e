"""A memory budget bounds how many windows are kept, and an engine takes the form that pays."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import Settings
from daemon.errors import Misconfigured
from daemon.worker.wiring import load_engine, loop_policy
from model.serving.engine import Engine
from model.serving.hidden_windows import HiddenWindows
from model.serving.windows import EpisodeWindows
from model.theta.meta_init import fresh_meta_init
from model.theta.meta_init_file import save_meta_init

WIDE = Engine(fresh_meta_init(512, 512, 128), "cpu", support_capacity=32, query_capacity=4)
MIB = 2**20


def most_resident(mib: int, streams: int = 20_000) -> int:
    settings = Settings(window_memory_mib=mib, max_resident_streams=streams)
    return loop_policy(settings, WIDE).max_resident_streams


def test_no_budget_leaves_it_to_the_number_of_streams() -> None:
    assert most_resident(0) == 20_000


@pytest.mark.parametrize("mib", [16, 1_000])
def test_as_many_windows_are_kept_as_the_budget_holds(mib: int) -> None:
    each = WIDE.windows(1).bytes_per_stream
    assert each > 36 * 4 * (2 * 512 + 2 * 128)  # features and projections
    assert most_resident(mib) * each <= mib * MIB < (most_resident(mib) + 1) * each


def test_a_large_budget_does_not_go_beyond_the_number_of_streams() -> None:
    assert most_resident(1_000_000, streams=7) == 7


def test_the_smallest_budget_keeps_one_window() -> None:
    wide = Settings(window_memory_mib=1, support_size=4_096, query_size=1_024)
    engine = Engine(
        fresh_meta_init(512, 512, 8), "cpu", support_capacity=4_096, query_capacity=1_024
    )
    assert loop_policy(wide, engine).max_resident_streams == 1


def test_hidden_space_is_taken_where_it_costs_less() -> None:
    narrow = Engine(
        fresh_meta_init(8, 8, 256, steps=10), "cpu", support_capacity=64, query_capacity=4
    )
    assert isinstance(WIDE.windows(1), HiddenWindows)
    assert isinstance(narrow.windows(1), EpisodeWindows)
    assert isinstance(narrow.windows(1, form="hidden"), HiddenWindows)
    assert isinstance(WIDE.windows(1, form="full"), EpisodeWindows)


def test_a_folder_that_takes_no_file_stops_the_start(
    tmp_path: Path,
) -> None:
    theta = tmp_path / "theta.safetensors"
    save_meta_init(fresh_meta_init(4, 4, 4), theta)
    gone = tmp_path / "spill"
    gone.mkdir()
    settings = Settings(meta_init=theta, window_spill_dir=gone, device="cpu")
    gone.rmdir()
    with pytest.raises(Misconfigured, match=r"ADAPTD_WINDOW_SPILL_DIR = .*spill"):
        load_engine(settings)
