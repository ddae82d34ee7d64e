"""Where the daemon's time goes: one drain with the worker under cProfile.

    python -m benchmarks.worker.profile_worker [SCENARIO [LINES]]

The figures are the profiler's, and slower than life; it sees the loop's thread alone, from the
start of the process on. `python -m benchmarks stream` has the stages' times as they are.
"""

from __future__ import annotations

import dataclasses
import pstats
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.worker.one_run import Bench
from benchmarks.worker.output import to_stderr
from benchmarks.worker.plan import SCENARIOS, Plan
from benchmarks.worker.servers import servers
from benchmarks.worker.stream import prefilled_topic
from benchmarks.worker.stream_report import drain_line


def main(scenario: str = "every_fourth", lines: str = "45") -> None:
    """Print the functions that took longest, without what they called."""
    plan = dataclasses.replace(Plan(), events=30_000)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        profile = folder / "profile"
        services = stack.enter_context(servers(to_stderr))
        bench = Bench(plan, services, folder, "profile", profile)
        prefilled_topic(bench, stack, to_stderr)
        interval_ms = plan.first_interval_ms if SCENARIOS[scenario].paced_publishing else None
        drain = bench.drain(SCENARIOS[scenario], interval_ms, 3 * plan.steady_s)
        to_stderr(drain_line(scenario, drain))
        pstats.Stats(str(profile)).sort_stats("tottime").print_stats(int(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
