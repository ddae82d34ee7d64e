"""`python -m benchmarks report`: runs the benchmarks in turn, and writes BENCHMARKS.md.

No number on the page comes from elsewhere than the benchmarks' JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.chart import draw_chart
from benchmarks.figures import FIGURES, Report, Result, at, cell, number, result, spread_text
from benchmarks.output import NoFigures, to_stderr

COMMANDS: Mapping[str, Sequence[str]] = {
    "adapt": ["adapt"],
    "adapt-cuda": ["adapt", "--device", "cuda"],
    "stream": ["stream"],
    "windows": ["windows"],
    "cliffs": ["cliffs"],
}
"""By the name of the JSON that each writes, in the page's order."""
TEMPLATE = Path(__file__).with_name("report.md.j2")


def run_all(folder: Path, *, quick: bool) -> dict[str, str]:
    """Runs every benchmark, its JSON into the folder. Returns why some have none, or failed."""
    import torch

    failed: dict[str, str] = {}
    for name, words in COMMANDS.items():
        if name == "adapt-cuda" and not torch.cuda.is_available():
            continue
        to_stderr(f"python -m benchmarks {' '.join(words)}")
        to = folder / f"{name}.json"
        to.unlink(missing_ok=True)  # a run that fails must not leave an earlier run's figures
        arguments = [*words, "--out", str(to)] + ["--quick"] * quick
        command = [sys.executable, "-m", "benchmarks", *arguments]
        code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        if code:
            failed[name] = f"exit code {code}; its last words are on the terminal"
    return failed


def kept(folder: Path) -> dict[str, Report]:
    """Returns the reports that lie there. Raises NoFigures for what is not a benchmark's JSON."""
    files = {name: folder / f"{name}.json" for name in COMMANDS}
    return {name: _read(file, name) for name, file in files.items() if file.exists()}


def _read(file: Path, name: str) -> Report:
    try:
        report = json.loads(file.read_text())
    except ValueError as e:
        raise NoFigures(f"{file}: no JSON: {e}") from e
    if not isinstance(report, dict) or report.get("bench") != COMMANDS[name][0]:
        raise NoFigures(f"{file} is not from python -m benchmarks {COMMANDS[name][0]}")
    return report


def write(
    given: Path | None, keep: Path | None, to: Path, chart: Path, *, quick: bool = False
) -> bool:
    """Runs what is not given, and writes page and chart. Returns whether every benchmark ran.
    Raises NoFigures when there is nothing to write of."""
    with ExitStack() as stack:
        folder = given or keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        failed = {} if given else run_all(folder, quick=quick)
        reports = kept(folder)
    if not reports:
        raise NoFigures(f"{folder} has none of {', '.join(COMMANDS)} (.json)")
    absent = {"adapt-cuda": "no CUDA device at hand"}
    absent |= {name: f"`{name}` has no figures: {why}" for name, why in failed.items()}
    every = [result(figure, reports, absent) for figure in FIGURES]
    chart.parent.mkdir(parents=True, exist_ok=True)
    draw_chart(every, chart)
    link = os.path.relpath(chart, to.parent)
    to.write_text(report_page(every, reports, failed, link), encoding="utf-8")
    met = sum(found.met for found in every)
    to_stderr(f"{to} and {chart}: {met} of {len(every)} goals met")
    return not failed


def report_page(
    every: Sequence[Result], reports: Mapping[str, Report], failed: Mapping[str, str], chart: str
) -> str:
    """Returns the whole page. `failed` says which benchmarks ended with an error; `chart` is the
    picture's path as seen from the page."""
    rows = [(found, _remark(found, reports)) for found in every]
    return _rendered(rows=rows, reports=reports, failed=failed, chart=chart)


def tables(report: Report) -> str:
    """Returns the part of the page that is about one benchmark."""
    return _rendered(alone=report)


def _rendered(**values: Any) -> str:
    text: str = _environment().get_template(TEMPLATE.name).render(values)
    return text.strip() + "\n"


def _remark(found: Result, reports: Mapping[str, Report]) -> tuple[str, bool]:
    """What stands beside the number, and whether what was run is less than the goal is about."""
    if found.missing is not None:
        return found.missing, False
    figure, environment = found.figure, _environment()
    report = reports[str(figure.at[0])]
    facts = {**report, "case": at(report, figure.at[1:3])}
    text = f"{{% from '{TEMPLATE.name}' import factors, per_event with context %}}{figure.remark}"
    partly = figure.partly and environment.compile_expression(figure.partly)(facts)
    return environment.from_string(text).render(facts), bool(partly)


def _environment() -> Any:
    """Only here: it comes with the `bench` extra. Raises NoFigures when it is not installed."""
    try:
        import jinja2
    except ImportError as e:
        raise NoFigures("jinja2 is not installed: pip install -e '.[bench]'") from e
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters |= {"number": number, "spread": spread_text, "cell": cell}
    environment.filters["at"] = lambda report, path: at(report, path.split("."))
    return environment
