"""Runs a command of `python -m benchmarks` in this process."""

from collections.abc import Callable

import pytest

from benchmarks.__main__ import app

Run = Callable[..., int]


@pytest.fixture
def run() -> Run:
    """Calls the command with these words; returns its exit code."""

    def call(*words: object) -> int:
        return int(app([str(word) for word in words], standalone_mode=False) or 0)

    return call
