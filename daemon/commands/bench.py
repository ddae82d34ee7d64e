"""`adaptd bench`: figures, as JSON on stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Figures, as JSON.", no_args_is_help=True)

Quick = Annotated[
    bool, typer.Option("--quick", help="A small run that shows that everything works.")
]
Out = Annotated[Path | None, typer.Option(help="A file for the JSON, besides stdout.")]


@app.command()
def stream(
    streams: Annotated[int | None, typer.Option(min=1, help="Streams that events go to.")] = None,
    events: Annotated[int | None, typer.Option(min=1, help="Events measured in a run.")] = None,
    repetitions: Annotated[int | None, typer.Option(min=1, help="Runs of each worker.")] = None,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """The daemon's throughput, CPU per event and latency, beside a do-nothing worker's.

    Starts a local Kafka and Redis of its own, as `adaptd up` does. Five minutes on two cores.
    """
    from daemon.bench.stream import command

    raise typer.Exit(command(streams, events, repetitions, quick=quick, out=out))


@app.command()
def sinusoid(
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each method.")] = 1,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """5-shot sinusoid regression by MAML and Meta-SGD, beside the published tables."""
    from model.bench.sinusoid import command

    raise typer.Exit(command(quick, out, seeds))


@app.command()
def learners(quick: Quick = False, out: Out = None) -> None:
    """Meta-training steps per second and peak memory of each learner, beside other libraries'."""
    from model.bench.learners import command

    raise typer.Exit(command(quick, out))


@app.command()
def retrieval(quick: Quick = False, out: Out = None) -> None:
    """Retrieval metrics at 256 candidates, beside torchmetrics'."""
    from model.bench.retrieval import command

    raise typer.Exit(command(quick, out))
