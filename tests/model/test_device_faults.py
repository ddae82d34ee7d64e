"""A batch too large for the device is halved; a device that is gone is told from other errors."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.serving.device_faults import in_parts, lost_device_told
from model.serving.windows import EpisodeWindows, RawWindows
from model.values.episode import Adaptation, Cut, Episode
from model.values.errors import DeviceLost


class Memory:
    """Room for so many items at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.batches: list[int] = []

    def work(self, items: Sequence[int]) -> list[int]:
        if len(items) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        self.batches.append(len(items))
        return [2 * item for item in items]


@given(items=st.lists(st.integers()), room=st.integers(1, 9))
def test_a_batch_is_halved_until_it_fits_and_nothing_is_lost(items: list[int], room: int) -> None:
    memory = Memory(room)
    found, splits = in_parts(memory.work, items)
    assert found == [2 * item for item in items]
    assert all(size <= room for size in memory.batches)
    assert splits == len(memory.batches) - 1


def test_one_item_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        in_parts(Memory(0).work, [1, 2])


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...",
        "CUDA driver error: device not ready",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    ],
)
def test_what_torch_raises_when_a_device_is_gone_is_told(message: str) -> None:
    with pytest.raises(DeviceLost, match=message.splitlines()[0]), lost_device_told():
        raise RuntimeError(message)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        torch.OutOfMemoryError("CUDA out of memory"),
        ValueError("CUDA error: not from torch"),
    ],
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, lost_device_told():
        raise error
    assert caught.value is error


def test_windows_count_how_often_a_batch_was_halved() -> None:
    memory = Memory(2)

    def adapt(episodes: Sequence[Episode], _: Sequence[bool]) -> Sequence[Adaptation]:
        memory.work([0] * len(episodes))
        return []

    windows = EpisodeWindows(RawWindows(5, 2, 1, 1), adapt)
    one = np.ones(1, np.float32)
    for slot in range(5):
        windows.append([slot, slot], [one, one], [one, one])
    windows.adapt([Cut(slot, 1, 1) for slot in range(5)])
    assert (windows.batch_splits, memory.batches) == (2, [2, 1, 2])
    windows.adapt([Cut(0, 1, 1)])
    assert windows.batch_splits == 0
