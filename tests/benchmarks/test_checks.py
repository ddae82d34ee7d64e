"""A run that was not what it set out to be gives no figures."""

import os
import time
from pathlib import Path

import pytest

from benchmarks.machine import cpu_clock
from benchmarks.output import NoFigures
from benchmarks.stream.latency import check_events, check_streams
from benchmarks.stream.worker_process import environment
from daemon.config import Settings, load_settings


def test_a_complete_run_passes() -> None:
    check_events(appended=5, sent=5, count=5)
    check_streams({"a", "b"}, {"a", "b"})


@pytest.mark.parametrize(("appended", "sent"), [(4, 5), (6, 5), (5, 4)])
def test_a_lost_or_doubled_event_is_refused(appended: int, sent: int) -> None:
    with pytest.raises(NoFigures, match="events"):
        check_events(appended, sent, count=5)


def test_a_stream_without_its_mapping_is_refused() -> None:
    with pytest.raises(NoFigures, match="of 2 streams 1 have no mapping"):
        check_streams({"a"}, {"a", "b"})


def test_a_mapping_of_an_unknown_stream_is_refused() -> None:
    with pytest.raises(NoFigures, match="1 others have one"):
        check_streams({"a", "b"}, {"a"})


def test_a_worker_gets_our_settings_and_no_foreign_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTD_MAX_BATCH", "7")
    ours = Settings(http_port=1234, meta_init=Path("theta.safetensors"), torch_threads=1)
    assert load_settings(None, environment(ours)) == ours


def test_the_clock_counts_a_process_s_cpu_time() -> None:
    before = time.process_time()
    seen = time.clock_gettime(cpu_clock(os.getpid()))
    assert before <= seen <= time.process_time()
