"""Settings that ask for more memory than there is are refused, naming both sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import Settings
from daemon.errors import Misconfigured
from daemon.worker.memory import require_memory

MIB, GIB = 2**20, 2**30


def settings(**changes: object) -> Settings:
    return Settings.model_validate(changes)


def test_what_fits_is_taken() -> None:
    require_memory(settings(max_batch=1_024), MIB, GIB)
    require_memory(settings(window_memory_mib=1_024), MIB, GIB)


def test_a_batch_that_does_not_fit_is_refused() -> None:
    with pytest.raises(Misconfigured) as refusal:
        require_memory(settings(max_batch=1_025), MIB, GIB)
    assert str(refusal.value) == (
        "ADAPTD_MAX_BATCH = 1025: so many mappings of 1048576 bytes, as ADAPTD_META_INIT makes "
        "them, are 1.0 GiB; there is 1.0 GiB of memory"
    )


def test_windows_that_do_not_fit_are_refused_unless_they_may_be_spilt(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"ADAPTD_WINDOW_MEMORY_MIB = 1025: .*SPILL_DIR"):
        require_memory(settings(window_memory_mib=1_025), MIB, GIB)
    require_memory(settings(window_memory_mib=1_025, window_spill_dir=tmp_path), MIB, GIB)


def test_a_mapping_that_fits_no_record_is_refused() -> None:
    with pytest.raises(Misconfigured, match="at most 67092480 fit into a record"):
        require_memory(settings(max_batch=1), 64 * MIB, 1_024 * GIB)
