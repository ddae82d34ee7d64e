import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu need one; which machine has one is not theirs to say."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


def pytest_configure() -> None:
    """One thread: tests are small, and threads that wait for each other crawl on a busy machine."""
    torch.set_num_threads(1)
