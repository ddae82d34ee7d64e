"""Ring buffers: the newest pairs in order, in memory or spilled, resident as they fill."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.serving.windows import RawWindows, reserved
from model.values.arrays import FloatArray
from model.values.episode import Cut

SIZE, D, E = 4, 3, 2


def rows_of(numbers: list[int], dim: int) -> FloatArray:
    return np.array([[n + 0.1 * i for i in range(dim)] for n in numbers], np.float32).reshape(
        -1, dim
    )


def held(windows: RawWindows, slot: int) -> tuple[list[int], list[int]]:
    """Numbers of the pairs of a slot, all support, oldest first."""
    episode = windows.episode(Cut(slot, windows.count(slot), 0))
    assert np.array_equal(
        episode.x_support_SD, rows_of(list(map(int, episode.x_support_SD[:, 0])), D)
    )
    return (
        episode.x_support_SD[:, 0].astype(int).tolist(),
        episode.y_support_SE[:, 0].astype(int).tolist(),
    )


@given(
    batches=st.lists(st.lists(st.integers(0, 2), max_size=15), max_size=5), spilled=st.booleans()
)
@settings(deadline=None)
def test_each_slot_holds_its_newest_pairs_in_order(
    batches: list[list[int]], spilled: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spill_dir = tmp_path_factory.getbasetemp() if spilled else None
    windows = RawWindows(3, SIZE, D, E, spill_dir)
    expected: dict[int, list[int]] = {0: [], 1: [], 2: []}
    number = 0
    for batch in batches:
        numbers = list(range(number, number + len(batch)))
        number += len(batch)
        went = windows.append(batch, rows_of(numbers, D), rows_of(numbers, E))
        for slot, each, row in zip(batch, numbers, went, strict=True):
            expected[slot].append(each)
            assert row == -1 or row // SIZE == slot
    for slot, numbers in expected.items():
        assert windows.count(slot) == min(len(numbers), SIZE)
        assert held(windows, slot) == (numbers[-SIZE:], numbers[-SIZE:])


def test_a_cut_of_another_number_of_pairs_is_refused() -> None:
    windows = RawWindows(1, SIZE, D, E)
    windows.append([0], rows_of([1], D), rows_of([1], E))
    with pytest.raises(ValueError, match="of a window of 1 pairs"):
        windows.episode(Cut(0, 2, 1))


def test_a_cleared_slot_is_empty() -> None:
    windows = RawWindows(2, SIZE, D, E)
    windows.append([0, 1], rows_of([1, 2], D), rows_of([1, 2], E))
    windows.clear(0)
    assert (windows.count(0), held(windows, 1)) == (0, ([2], [2]))


def test_a_spill_file_has_no_name(tmp_path: Path) -> None:
    windows = RawWindows(3, 64, 1024, 1, tmp_path)
    windows.append([2], np.ones((1, 1024), np.float32), np.ones((1, 1), np.float32))
    assert list(tmp_path.iterdir()) == []
    assert windows.x_ZWD[2, 0].sum() == 1024


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        RawWindows(1, 1, 1, 1, tmp_path / "missing")


def test_what_is_reserved_is_resident_only_where_it_is_written() -> None:
    before = resident_bytes()
    block = reserved((100_000, 4096))  # 1.6 GB
    block[:1000] = 1.0  # slots are used from the first on
    grown = resident_bytes() - before
    assert 1000 * 16_384 <= grown < 1000 * 16_384 + 8 * 2**20  # whole pages, of 2 MB at most
    assert block[5_000].max() == 0.0


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
