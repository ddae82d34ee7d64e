"""`python -m benchmarks`: figures, as JSON on stdout and as tables on stderr."""

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.output import Benchmark, NoFigures, print_report, to_stderr
from daemon.errors import Unavailable
from daemon.local.errors import ServicesUnavailable

app = typer.Typer(help="Figures, as JSON.", no_args_is_help=True, rich_markup_mode="markdown")

Quick = Annotated[bool, typer.Option("--quick", help="A small run to see that all works.")]
Out = Annotated[Path | None, typer.Option(help="A file for the JSON, besides stdout.")]
File = Path | None


@app.command("adapt")
def bench_adapt(device: str = "cpu", quick: Quick = False, out: Out = None) -> None:
    """Streams adapted per second by our inner loops, beside other libraries', on cpu or cuda.

    Before anything is timed, every result is compared with the right one. Peers that are not
    installed (`pip install -e '.[bench]'`) are named as missing.
    """
    _bench("inner.adapt", quick, out, {"device": device})


@app.command("stream")
def bench_stream(
    streams: Annotated[int | None, typer.Option(min=1, help="Streams that events go to.")] = None,
    events: Annotated[int | None, typer.Option(min=1, help="Beyond those that fill.")] = None,
    repetitions: Annotated[int | None, typer.Option(min=1, help="Runs of each worker.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A scenario; may be repeated.")] = None,
    profile: Annotated[File, typer.Option(help="For the last daemon's cProfile.")] = None,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """The daemon's throughput and CPU per event, beside a do-nothing and a usual worker's.

    Starts a local Kafka and Redis of its own, as `adaptd up` does. Five minutes on two cores.
    """
    given = {"streams": streams, "events": events, "repetitions": repetitions}
    scenarios = tuple(only) if only else None
    _bench("stream.stream", quick, out, given | {"scenarios": scenarios}, profile=profile)


@app.command("cliffs")
def bench_cliffs(
    only: Annotated[list[str] | None, typer.Option(help="A case; may be repeated.")] = None,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """Loads that must not be much dearer than others: large mappings, few events, little memory.

    A backlog of large mappings must drain; events that come one by one, and a few more streams than
    fit into memory, must cost little; another θ's mappings must not hold events up.

    Starts a local Kafka and Redis of its own. Four minutes and 4 GB of the disk.
    """
    _bench("stream.cliffs", quick, out, {"only": tuple(only) if only else None})


@app.command("tracing")
def bench_tracing(quick: Quick = False, out: Out = None) -> None:
    """What tracing costs an event in CPU time, where every event has a trace."""
    _bench("tracing", quick, out, {})


@app.command("windows")
def bench_windows(
    streams: Annotated[int | None, typer.Option(min=1, help="Fewer where they do not fit.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Of pairs that come.")] = None,
    spill_dir: Annotated[File, typer.Option(help="For raw features; on a local disk.")] = None,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """Many streams' windows: memory per stream, appends, eviction, cold start.

    Starts a local Redis of its own. 100,000 streams take 13 GB of the disk and three minutes.
    """
    given = {"streams": streams, "going_on_s": None if minutes is None else 60 * minutes}
    _bench("windows.windows", quick, out, given, spill_dir=spill_dir)


@app.command("subscriber")
def bench_subscriber(
    rate: Annotated[int | None, typer.Option(min=1, help="Mappings per second.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="Of each form.")] = None,
    streams: Annotated[int | None, typer.Option(min=1, help="Streams that are followed.")] = None,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """The SDK's subscriber: from published to served, CPU time per mapping, memory per stream.

    Starts a local Kafka of its own. A minute on two cores.
    """
    given = {"rate": rate, "seconds": seconds, "streams": streams}
    _bench("subscriber.subscriber", quick, out, given)


@app.command("forms")
def bench_forms(
    fit: Annotated[bool, typer.Option("--fit", help="Fit the rule's constants here.")] = False,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """Both forms of the inner loop over a grid of shapes, and what the cost rule's picks lose."""
    _bench("inner.forms", quick, out, {}, fit=fit)


@app.command("judging")
def bench_judging(quick: Quick = False, out: Out = None) -> None:
    """What judging and learning again from all pairs add to an adaptation's CPU time."""
    _bench("inner.judging", quick, out, {})


@app.command("learners")
def bench_learners(quick: Quick = False, out: Out = None) -> None:
    """Meta-training steps per second and peak memory of each learner, beside other libraries'."""
    _bench("inner.learners", quick, out, {})


@app.command("sinusoid")
def bench_sinusoid(
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each method.")] = 1,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """5-shot sinusoid regression by MAML and Meta-SGD, beside the published tables.

    Fails when a judged figure is worse than the published one; a quick run judges none.
    """
    _bench("methods.sinusoid", quick, out, {"seeds": seeds})


@app.command("retrieval")
def bench_retrieval(quick: Quick = False, out: Out = None) -> None:
    """Retrieval metrics at 256 candidates, beside torchmetrics'."""
    _bench("methods.retrieval", quick, out, {})


@app.command("canary")
def bench_canary(quick: Quick = False, out: Out = None) -> None:
    """How often the judge of canaries promotes a θ that it must not, and after how many streams.

    Fails when that is more often than it promises. A few seconds.
    """
    _bench("canary.judge_errors", quick, out, {})


@app.command("report")
def write_report(
    given: Annotated[File, typer.Option("--from", help="A folder with the JSON: no run.")] = None,
    keep: Annotated[File, typer.Option(help="A folder to keep the JSON in.")] = None,
    page: Annotated[Path, typer.Option(help="What is written.")] = Path("BENCHMARKS.md"),
    chart: Annotated[Path, typer.Option(help="Its chart.")] = Path("docs/benchmarks.png"),
    quick: Quick = False,
) -> None:
    """Runs adapt, stream and windows, and writes BENCHMARKS.md: the goals, and what was measured.

    A quarter to half an hour on two cores that do nothing else.
    """
    from benchmarks.report import write

    try:
        complete = write(given, keep, page, chart, quick=quick)
    except NoFigures as e:
        to_stderr(f"benchmarks: no report: {e}")
        raise typer.Exit(1) from e
    raise typer.Exit(0 if complete else 1)


def _bench(name: str, quick: bool, out: File, given: dict[str, Any], **options: Any) -> None:
    """Runs a benchmark with its plan changed to the values that are given, and prints the figures
    as JSON on stdout and as tables on stderr. The exit code is 1 when there are no figures, or a
    fault in them."""
    from benchmarks.report import tables

    bench: Benchmark = import_module(f"benchmarks.{name}").BENCHMARK  # each loads libraries
    changes = {name: value for name, value in given.items() if value is not None}
    plan = dataclasses.replace(bench.quick if quick else bench.full, **changes)
    try:
        found = bench.run(plan, to_stderr, **options)
    except (NoFigures, ServicesUnavailable, Unavailable, OSError) as e:
        to_stderr(f"benchmarks: no figures: {e}")
        raise typer.Exit(1) from e
    try:
        Console(stderr=True).print(Markdown(tables(found)))
    except NoFigures as e:
        to_stderr(f"benchmarks: no tables: {e}")
    print_report(found, out)
    faults = bench.faults(found)
    for line in faults:
        to_stderr(f"benchmarks: {line}")
    raise typer.Exit(1 if faults else 0)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
