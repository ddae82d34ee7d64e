"""Whether the settings ask for more memory than this process may take."""

from __future__ import annotations

from daemon.config import MAX_RECORD_BYTES, Settings
from daemon.errors import Misconfigured
from daemon.wire.topics import ENVELOPE_BYTES


def require_memory(settings: Settings, mapping_size: int, limit: int) -> None:
    """Raises Misconfigured for settings that cannot work with mappings of so many bytes and a
    memory of `limit` bytes. A batch's mappings lie in memory together while they are adapted."""
    if mapping_size + ENVELOPE_BYTES > MAX_RECORD_BYTES:
        raise Misconfigured(
            f"ADAPTD_META_INIT: its mappings have {mapping_size} bytes; at most "
            f"{MAX_RECORD_BYTES - ENVELOPE_BYTES} fit into a record"
        )
    batch = settings.max_batch * mapping_size
    if batch > limit:
        raise Misconfigured(
            f"ADAPTD_MAX_BATCH = {settings.max_batch}: so many mappings of {mapping_size} bytes, "
            f"as ADAPTD_META_INIT makes them, are {_gib(batch)}; there is {_gib(limit)} of memory"
        )
    windows = settings.window_memory_mib * 2**20
    if windows > limit and settings.window_spill_dir is None:
        raise Misconfigured(
            f"ADAPTD_WINDOW_MEMORY_MIB = {settings.window_memory_mib}: there is {_gib(limit)} of "
            "memory, and ADAPTD_WINDOW_SPILL_DIR is unset"
        )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
