"""A run that was not what it set out to be gives no figures."""

import os
import time
from pathlib import Path

import pytest

from daemon.bench.errors import BenchFailed
from daemon.bench.freshness import Mapped, Place
from daemon.bench.one_run import check_events, check_mappings
from daemon.bench.worker import cpu_clock, environment
from daemon.config import Settings, load


def mapped(*streams: str) -> list[Mapped]:
    return [Mapped(stream, Place(0, 0), 0) for stream in streams]


def test_a_complete_run_passes() -> None:
    check_events(appended=15, paced_sent=5, prefilled=10, paced_count=5)
    check_mappings("adaptd", mapped("a", "b", "a"), {"a", "b"})


@pytest.mark.parametrize(("appended", "paced_sent"), [(14, 5), (16, 5), (15, 4)])
def test_a_lost_or_doubled_event_is_refused(appended: int, paced_sent: int) -> None:
    with pytest.raises(BenchFailed, match="events"):
        check_events(appended, paced_sent, prefilled=10, paced_count=5)


def test_a_stream_without_its_mapping_is_refused() -> None:
    with pytest.raises(BenchFailed, match="of 2 streams with enough pairs 1 have no mapping"):
        check_mappings("adaptd", mapped("a"), {"a", "b"})


def test_a_mapping_of_a_stream_with_too_few_pairs_is_refused() -> None:
    with pytest.raises(BenchFailed, match="1 others have one"):
        check_mappings("adaptd", mapped("a", "b"), {"a"})


def test_a_do_nothing_worker_must_have_made_something() -> None:
    check_mappings("do_nothing", mapped("a"), {"a", "b"})
    with pytest.raises(BenchFailed, match="nothing"):
        check_mappings("do_nothing", [], {"a", "b"})


def test_a_worker_gets_our_settings_and_no_foreign_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTD_MAX_BATCH", "7")
    ours = Settings(http_port=1234, meta_init=Path("theta.safetensors"), torch_threads=1)
    assert load(None, environment(ours)) == ours


def test_the_clock_counts_a_process_s_cpu_time() -> None:
    before = time.process_time()
    seen = time.clock_gettime(cpu_clock(os.getpid()))
    assert before <= seen <= time.process_time()
