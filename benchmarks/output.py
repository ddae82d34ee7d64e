"""What every benchmark prints: progress and tables on stderr, one JSON report on stdout."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import host

Report = dict[str, Any]
Say = Callable[[str], None]  # tells one line of progress


class NoFigures(Exception):
    """A benchmark cannot be run, or a run did not measure what it set out to measure. The message
    says why; no figure is printed then."""


def to_stderr(line: str) -> None:
    """Prints a line of progress; stdout is for the report alone."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - a command's own progress


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One command of `python -m benchmarks`: how much it measures, and how."""

    name: str
    full: Any  # the plan, a dataclass
    quick: Any  # a plan that shows that everything works; its figures mean little
    packages: Sequence[str]  # whose versions stand in the report
    measure: Callable[..., Report]
    """Takes the plan, a `Say` and the command's own options; returns the figures, with `machine` if
    there is more to say of it. Raises NoFigures."""
    faults: Callable[[Report], list[str]] = lambda report: []
    """Returns a line for each figure that makes the command fail."""

    def run(self, plan: Any, say: Say, **options: Any) -> Report:
        """Returns the figures with what stands in every report: the benchmark's name, the date, the
        plan's parameters, machine and versions, and the seconds taken. What the words mean,
        `report.md.j2` says."""
        head = {
            "bench": self.name,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "parameters": dataclasses.asdict(plan),
            "machine": host(self.packages),
        }
        began, cpu_began = time.monotonic(), time.process_time()
        figures = self.measure(plan, say, **options)
        head["machine"] |= figures.pop("machine", {})
        took = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu_began}
        return head | figures | {name: round(seconds, 1) for name, seconds in took.items()}


def print_report(report: Report, out: Path | None) -> None:
    """Prints the report as JSON on stdout, and writes it to the file `out` if one is given."""
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    if out is not None:
        out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
