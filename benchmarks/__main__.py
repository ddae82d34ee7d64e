"""`python -m benchmarks`: figures, as JSON on stdout and as tables on stderr."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.output import NoFigures, Report, publish, to_stderr
from daemon.errors import Unavailable
from daemon.local.errors import ServicesUnavailable

app = typer.Typer(help="Figures, as JSON.", no_args_is_help=True, rich_markup_mode="markdown")

Quick = Annotated[
    bool, typer.Option("--quick", help="A small run that shows that everything works.")
]
Out = Annotated[Path | None, typer.Option(help="A file for the JSON, besides stdout.")]


@app.command()
def adapt(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quick: Quick = False,
    out: Out = None,
) -> None:
    """Streams adapted per second by our inner loops, beside other libraries'.

    Before anything is timed, every result is compared with the right one. Peers that are not
    installed (`pip install -e '.[bench]'`) are named as missing.
    """
    from benchmarks.inner.adapt import QUICK, Plan, bench, wrong

    plan = dataclasses.replace(QUICK if quick else Plan(), device=device)
    _tell(lambda: bench(plan, to_stderr), out, wrong)


@app.command()
def stream(
    streams: Annotated[int | None, typer.Option(min=1, help="Streams that events go to.")] = None,
    events: Annotated[
        int | None, typer.Option(min=1, help="Events prefilled beyond those that fill windows.")
    ] = None,
    repetitions: Annotated[int | None, typer.Option(min=1, help="Runs of each worker.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A scenario; may be repeated.")] = None,
    profile: Annotated[
        Path | None, typer.Option(help="A file for the profile of the last daemon's loop thread.")
    ] = None,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """The daemon's throughput and CPU per event, beside a do-nothing and a usual worker's.

    Starts a local Kafka and Redis of its own, as `adaptd up` does. Five minutes on two cores.
    """
    from benchmarks.stream.plan import QUICK, Plan
    from benchmarks.stream.stream import bench

    scenarios = tuple(only) if only else None
    plan = _changed(
        QUICK if quick else Plan(),
        {"streams": streams, "events": events, "repetitions": repetitions, "scenarios": scenarios},
    )
    _tell(lambda: bench(plan, to_stderr, profile), out)


@app.command()
def windows(
    streams: Annotated[
        int | None, typer.Option(min=1, help="Windows to fill; fewer where they do not fit.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="How long pairs keep coming to full windows.")
    ] = None,
    spill_dir: Annotated[
        Path | None, typer.Option(help="Where raw features are spilled; on a local disk.")
    ] = None,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """Many streams' windows: memory per stream, appends, eviction, cold start.

    Starts a local Redis of its own. 100,000 streams take 13 GB of the disk and three minutes.
    """
    from benchmarks.windows.plan import QUICK, Plan
    from benchmarks.windows.windows import bench

    going_on_s = None if minutes is None else 60 * minutes
    plan = _changed(QUICK if quick else Plan(), {"streams": streams, "going_on_s": going_on_s})
    _tell(lambda: bench(plan, spill_dir, to_stderr), out)


@app.command()
def forms(
    fit: Annotated[
        bool, typer.Option("--fit", help="Fit the cost rule's constants to this machine.")
    ] = False,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """Both forms of the inner loop over a grid of shapes, and what the cost rule's picks lose."""
    from benchmarks.inner.forms import QUICK, Plan, bench

    _tell(lambda: bench(QUICK if quick else Plan(), to_stderr, fit=fit), out)


@app.command()
def learners(quick: Quick = False, out: Out = None) -> None:
    """Meta-training steps per second and peak memory of each learner, beside other libraries'."""
    from benchmarks.inner.learners import QUICK, Plan, bench

    _tell(lambda: bench(QUICK if quick else Plan(), to_stderr), out)


@app.command()
def sinusoid(
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each method.")] = 1,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """5-shot sinusoid regression by MAML and Meta-SGD, beside the published tables.

    Fails when a judged figure is worse than the published one; a quick run judges none.
    """
    from benchmarks.methods.sinusoid import QUICK, Plan, bench, worse

    plan = dataclasses.replace(QUICK if quick else Plan(), seeds=seeds)
    _tell(lambda: bench(plan, to_stderr), out, worse)


@app.command()
def retrieval(quick: Quick = False, out: Out = None) -> None:
    """Retrieval metrics at 256 candidates, beside torchmetrics'."""
    from benchmarks.methods.retrieval import QUICK, Plan, bench

    _tell(lambda: bench(QUICK if quick else Plan()), out)


@app.command()
def report(
    given: Annotated[
        Path | None,
        typer.Option("--from", help="A folder with adapt.json, stream.json, windows.json: no run."),
    ] = None,
    keep: Annotated[Path | None, typer.Option(help="A folder to keep the JSON in.")] = None,
    page: Annotated[Path, typer.Option(help="What is written.")] = Path("BENCHMARKS.md"),
    chart: Annotated[Path, typer.Option(help="Its chart.")] = Path("docs/benchmarks.png"),
    quick: Quick = False,
) -> None:
    """Runs adapt, stream and windows, and writes BENCHMARKS.md: the goals, and what was measured.

    A quarter of an hour on two cores that do nothing else.
    """
    from benchmarks.report import write

    try:
        complete = write(given, keep, page, chart, quick=quick)
    except NoFigures as e:
        to_stderr(f"benchmarks: no report: {e}")
        raise typer.Exit(1) from e
    raise typer.Exit(0 if complete else 1)


def _changed(plan: Any, given: dict[str, Any]) -> Any:
    """The plan with those of these values that are given."""
    return dataclasses.replace(
        plan, **{k: value for k, value in given.items() if value is not None}
    )


def _tell(
    measure: Callable[[], Report],
    out: Path | None,
    faults: Callable[[Report], list[str]] = lambda report: [],
) -> None:
    """Prints the figures as JSON on stdout and as tables on stderr. The exit code is 1 when there
    are none, or a fault in them."""
    from benchmarks.report import tables

    try:
        found = measure()
    except (NoFigures, ServicesUnavailable, Unavailable, OSError) as e:
        to_stderr(f"benchmarks: no figures: {e}")
        raise typer.Exit(1) from e
    try:
        Console(stderr=True).print(Markdown(tables(found)))
    except NoFigures as e:
        to_stderr(f"benchmarks: no tables: {e}")
    publish(found, out)
    for line in faults(found):
        to_stderr(f"benchmarks: {line}")
    raise typer.Exit(1 if faults(found) else 0)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
