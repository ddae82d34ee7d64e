"""`python -m benchmarks`: figures, as JSON on stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    from benchmarks.numerics.adapt import command

    raise typer.Exit(command(quick, out, device))


@app.command()
def stream(
    streams: Annotated[int | None, typer.Option(min=1, help="Streams that events go to.")] = None,
    events: Annotated[
        int | None, typer.Option(min=1, help="Events prefilled beyond those that fill windows.")
    ] = None,
    repetitions: Annotated[int | None, typer.Option(min=1, help="Runs of each worker.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A scenario; may be repeated.")] = None,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """The daemon's throughput and CPU per event, beside a do-nothing and a usual worker's.

    Starts a local Kafka and Redis of its own, as `adaptd up` does. Five minutes on two cores.
    """
    from benchmarks.worker.stream import command

    chosen = tuple(only or ())
    raise typer.Exit(command(streams, events, repetitions, quick=quick, out=out, only=chosen))


@app.command()
def forms(quick: Quick = False, out: Out = None) -> None:
    """Both forms of the inner loop over a grid of shapes, and what the cost rule's picks lose."""
    from benchmarks.numerics.forms import command

    raise typer.Exit(command(quick, out))


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
    from benchmarks.worker.windows import command

    raise typer.Exit(command(streams, minutes, spill_dir, quick=quick, out=out))


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
    """Runs adapt, stream and windows, and writes BENCHMARKS.md: what is to be reached, and what is.

    A quarter of an hour on two cores that do nothing else.
    """
    from benchmarks.worker.report import command

    raise typer.Exit(command(given, keep, page, chart, quick=quick))


@app.command()
def sinusoid(
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each method.")] = 1,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """5-shot sinusoid regression by MAML and Meta-SGD, beside the published tables."""
    from benchmarks.numerics.sinusoid import command

    raise typer.Exit(command(quick, out, seeds))


@app.command()
def learners(quick: Quick = False, out: Out = None) -> None:
    """Meta-training steps per second and peak memory of each learner, beside other libraries'."""
    from benchmarks.numerics.learners import command

    raise typer.Exit(command(quick, out))


@app.command()
def retrieval(quick: Quick = False, out: Out = None) -> None:
    """Retrieval metrics at 256 candidates, beside torchmetrics'."""
    from benchmarks.numerics.retrieval import command

    raise typer.Exit(command(quick, out))


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
