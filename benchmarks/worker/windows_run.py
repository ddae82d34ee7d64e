"""One part of `python -m benchmarks windows`, in a process of its own, whose memory is then its
alone.

    python -m benchmarks.worker.windows_run '{"part": "memory", "plan": {...}, "spill": null}'

A line of JSON on stdout, or on stderr why there is none (exit code 1).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.worker import windows_memory, windows_store
from benchmarks.worker.errors import BenchFailed
from benchmarks.worker.windows_plan import Plan
from daemon.errors import Unavailable


def measured(request: dict[str, Any]) -> dict[str, Any]:
    """The part's figures. Raises BenchFailed, Unavailable, OSError."""
    plan = Plan(**request["plan"])
    torch.set_num_threads(plan.torch_threads)
    if request["part"] == "store":
        return windows_store.measure(plan, request["redis_url"])
    spill = request["spill"]
    return windows_memory.measure(plan, Path(spill) if spill else None)


def main(request: str) -> int:
    """Answer; the exit code."""
    try:
        figures = measured(json.loads(request))
    except (BenchFailed, Unavailable, OSError) as e:
        sys.stderr.write(f"{type(e).__name__}: {e}\n")
        return 1
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
