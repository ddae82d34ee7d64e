"""`python -m benchmarks report`: runs the benchmarks in turn, and writes BENCHMARKS.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.worker.errors import BenchFailed
from benchmarks.worker.output import to_stderr
from benchmarks.worker.report_chart import draw
from benchmarks.worker.report_figures import ADAPT, CUDA, FIGURES, STREAM, WINDOWS
from benchmarks.worker.report_page import page
from benchmarks.worker.report_results import Report, results

COMMANDS: Mapping[str, Sequence[str]] = {
    ADAPT: ["adapt"],
    STREAM: ["stream"],
    WINDOWS: ["windows"],
    CUDA: ["adapt", "--device", "cuda"],
}
NO_GPU = "no CUDA device at hand"


def measured(folder: Path, *, quick: bool) -> dict[str, str]:
    """Run every benchmark, its JSON into the folder; why some have none, or failed."""
    failed: dict[str, str] = {}
    for name, words in COMMANDS.items():
        if name == CUDA and not _has_cuda():
            continue
        to_stderr(f"python -m benchmarks {' '.join(words)}")
        arguments = [*words, "--out", str(folder / f"{name}.json")] + ["--quick"] * quick
        command = [sys.executable, "-m", "benchmarks", *arguments]
        code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        if code:
            failed[name] = f"exit code {code}; its last words are on the terminal"
    return failed


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def found(folder: Path) -> dict[str, Report]:
    """The reports that lie there. Raises BenchFailed for one that is no JSON, or another's."""
    reports: dict[str, Report] = {}
    for name in COMMANDS:
        file = folder / f"{name}.json"
        if file.exists():
            reports[name] = _read(file, COMMANDS[name][0])
    return reports


def _read(file: Path, bench: str) -> Report:
    try:
        report = json.loads(file.read_text())
    except ValueError as e:
        raise BenchFailed(f"{file}: no JSON: {e}") from e
    if not isinstance(report, dict) or report.get("bench") != bench:
        raise BenchFailed(f"{file} is not from python -m benchmarks {bench}")
    return report


def write(folder: Path, failed: Mapping[str, str], to: Path, chart: Path) -> int:
    """The page and the chart; how many figures were not reached or not measured."""
    reports = found(folder)
    absent = {CUDA: NO_GPU} | {name: f"`{name}` has no figures: {failed[name]}" for name in failed}
    every = results(FIGURES, reports, absent)
    chart.parent.mkdir(parents=True, exist_ok=True)
    draw(every, reports.get(ADAPT), chart)
    link = os.path.relpath(chart, to.parent)
    to.write_text(page(every, reports, failed, link), encoding="utf-8")
    return sum(not result.met for result in every)


def command(
    given: Path | None, keep: Path | None, to: Path, chart: Path, *, quick: bool = False
) -> int:
    """Run what is not given, and write; the exit code: 1 if a benchmark failed or there is
    nothing to write of."""
    with ExitStack() as stack:
        if given is not None:
            folder, failed = given, dict[str, str]()
        else:
            folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.mkdir(parents=True, exist_ok=True)
            failed = measured(folder, quick=quick)
        try:
            if not found(folder):
                raise BenchFailed(f"{folder} has none of {', '.join(COMMANDS)} (.json)")
            missed = write(folder, failed, to, chart)
        except BenchFailed as e:
            to_stderr(f"benchmarks: no report: {e}")
            return 1
    to_stderr(f"{to} and {chart}: {len(FIGURES) - missed} of {len(FIGURES)} figures reached")
    return 1 if failed else 0
