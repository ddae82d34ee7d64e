"""The command line. `python -m daemon` without a command is `adaptd run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from daemon import config
from daemon.errors import Misconfigured, Unavailable

OK, FAILED, MISCONFIGURED = 0, 1, 2

app = typer.Typer(
    help="Keeps one small cross-modal mapping per stream fresh: paired events in from Kafka, "
    "adapted mappings out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
topics_app = typer.Typer(help="The Kafka topics.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
bench_app = typer.Typer(help="Figures, as JSON.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file of settings; the environment wins over it."),
]


@app.command()
def run(
    config_file: ConfigFile = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show the effective settings and exit.")
    ] = False,
) -> None:
    """Run the daemon: read paired events, adapt, publish, until SIGTERM.

    Settings come from ADAPTD_* variables (see the README's table), for example
    ADAPTD_KAFKA_BOOTSTRAP_SERVERS, ADAPTD_REDIS_URL and ADAPTD_META_INIT.
    """
    settings = config.load(config_file)
    if print_config:
        typer.echo(json.dumps(config.shown(settings), indent=2, ensure_ascii=False))
        raise typer.Exit(OK)
    from daemon.run import run as serve  # torch takes two seconds; a bad setting need not wait

    raise typer.Exit(serve(settings))


@app.command()
def check(config_file: ConfigFile = None) -> None:
    """Try everything that could stop the daemon: settings, θ, Kafka, topics, Redis.

    Exits 0 when all is well, 2 when something is wrong.
    """
    settings = config.load(config_file)
    from daemon.check import check as look

    good = True
    for finding in look(settings):
        good = good and finding.good
        typer.echo(f"{'ok   ' if finding.good else 'WRONG'}  {finding.what}: {finding.line}")
    raise typer.Exit(OK if good else MISCONFIGURED)


@topics_app.command("create")
def create_topics(config_file: ConfigFile = None) -> None:
    """Make the events, mappings and dead-letter topics where they do not exist.

    Partitions and replicas are the settings ADAPTD_TOPIC_PARTITIONS and ADAPTD_TOPIC_REPLICATION.
    """
    settings = config.load(config_file)
    from daemon.adapters.kafka_topics import KafkaTopics
    from daemon.topics import mapping_bytes, specs
    from model.errors import BadMetaInit
    from model.meta_init import load, shipped

    try:
        theta = load(settings.meta_init or shipped())
    except BadMetaInit as e:
        raise Misconfigured(f"ADAPTD_META_INIT: {e}") from e
    size = mapping_bytes(theta.source_dim, theta.hidden_dim, theta.target_dim)
    topics = KafkaTopics(settings)
    try:
        for spec in specs(settings, size):
            made = topics.create(spec)
            typer.echo(f"{spec.name}: {'created' if made else 'exists'}")
    finally:
        topics.close()


@app.command()
def up() -> None:
    """Start a local Kafka and Redis, print their addresses, end them with Ctrl-C.

    Needs neither Docker nor Java, but the extra: pip install 'adaptd[local]'.
    """
    from daemon.local.up import up as start

    raise typer.Exit(start(typer.echo))


@app.command()
def demo(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object, last on stdout.")
    ] = False,
    tenants: Annotated[int, typer.Option(min=1, max=99, help="Synthetic tenants.")] = 24,
    seconds: Annotated[
        float, typer.Option(min=1, max=3600, help="How long the producer takes.")
    ] = 30.0,
    kafka: Annotated[str | None, typer.Option(help="Brokers to use, not a local one.")] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL to use, with --kafka.")] = None,
    meta_init: Annotated[Path | None, typer.Option(help="θ to serve, not the shipped.")] = None,
) -> None:
    """See it work: real Kafka, real Redis, real pictures, about a minute.

    Starts a local Kafka and Valkey, a producer of emoji events for synthetic tenants, the daemon,
    a subscriber and a scraper. Exits 0 only if every promise held. Nothing is left behind.
    """
    from daemon.demo.plan import Plan
    from daemon.demo.run import Options
    from daemon.demo.run import demo as show

    plan = Plan(tenants=tenants, seconds=seconds)
    raise typer.Exit(show(Options(plan, as_json, kafka, redis, meta_init)))


@app.command("new-theta")
def new_theta(
    out: Annotated[Path, typer.Argument(help="Where to write the safetensors file.")],
    source_dim: Annotated[int, typer.Option(min=1, help="Dimensions of the source vectors.")],
    target_dim: Annotated[int, typer.Option(min=1, help="Dimensions of the target vectors.")],
    hidden_dim: Annotated[int, typer.Option(min=1, help="Units of the hidden layer.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
) -> None:
    """Write a random vector -> vector θ for dimensions of your own, to begin with.

    It is not meta-trained: streams learn from their own pairs alone.
    """
    from model.meta_init import fresh, save

    theta = fresh(source_dim, target_dim, hidden_dim, seed=seed)
    save(theta, out)
    typer.echo(f"{out}: {theta.version}, vector ({source_dim}) -> vector ({target_dim})")


@bench_app.command("stream")
def bench_stream(
    streams: Annotated[int | None, typer.Option(min=1, help="Streams that events go to.")] = None,
    events: Annotated[int | None, typer.Option(min=1, help="Events measured in a run.")] = None,
    repetitions: Annotated[int | None, typer.Option(min=1, help="Runs of each worker.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small run that shows that everything works.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="A file for the JSON, besides stdout.")] = None,
) -> None:
    """The daemon's throughput, CPU per event and latency, beside a do-nothing worker's.

    Starts a local Kafka and Redis of its own, as `adaptd up` does. Five minutes on two cores.
    """
    from daemon.bench.stream import command

    raise typer.Exit(command(streams, events, repetitions, quick=quick, out=out))


def main() -> None:
    """Run a command; turn our errors into exit codes and one line."""
    try:
        app()
    except Misconfigured as e:
        print(f"adaptd: {e}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        sys.exit(MISCONFIGURED)
    except Unavailable as e:
        print(f"adaptd: {e}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        sys.exit(FAILED)


if __name__ == "__main__":
    if len(sys.argv) == 1 or sys.argv[1].startswith(("--config", "--print-config")):
        sys.argv.insert(1, "run")
    main()
