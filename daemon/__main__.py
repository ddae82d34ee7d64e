"""The command line.

`adaptd --config F` and `adaptd --print-config` mean `adaptd run` with that option. With nothing
behind it, `adaptd` prints its help and exits with 0; `python -m daemon` is the same program.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from daemon import config
from daemon.commands import meta_init, offsets, streams
from daemon.commands.evaluate import evaluate
from daemon.commands.meta_train import meta_train
from daemon.commands.options import ConfigFile
from daemon.commands.outputs import require_writable, writing
from daemon.commands.plan import plan
from daemon.commands.record import record
from daemon.commands.replay import replay_range
from daemon.commands.send import send_file
from daemon.commands.up import up
from daemon.errors import Misconfigured, Unavailable
from model.theta.meta_init import MAX_DIM

OK, FAILED, MISCONFIGURED = 0, 1, 2

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode="markdown",  # which leaves [brackets] as they are
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
topics_app = typer.Typer(
    help="The Kafka topics.", no_args_is_help=True, rich_markup_mode="markdown"
)
app.add_typer(topics_app, name="topics")
app.add_typer(meta_init.app, name="meta-init")
app.add_typer(offsets.app, name="offsets")
app.add_typer(streams.app, name="streams")
app.command()(record)
app.command("meta-train")(meta_train)
app.command()(evaluate)
app.command("send")(send_file)
app.command("explain")(streams.explain_stream)
app.command("replay")(replay_range)
app.command()(up)
app.command()(plan)

AllowEviction = Annotated[
    bool,
    typer.Option("--allow-eviction", help="Accept a Redis that evicts keys when it is full."),
]
PrintConfig = Annotated[
    bool, typer.Option("--print-config", help="Show the effective settings and exit.")
]


def insisting(allow_eviction: bool) -> Mapping[str, str]:
    """Returns the environment with what the option adds to it."""
    return os.environ | ({"ADAPTD_REDIS_ALLOW_EVICTION": "true"} if allow_eviction else {})


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"adaptd {version('adaptd')}")
        raise typer.Exit(OK)


@app.callback()
def default_command(
    context: typer.Context,
    config_file: ConfigFile = None,
    print_config: PrintConfig = False,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Keep one small cross-modal mapping per stream fresh: read paired events from Kafka, publish
    adapted mappings to it."""
    command = context.invoked_subcommand
    if command is None and not (config_file or print_config):
        typer.echo(context.get_help())
    elif command is None:
        run_command(config_file, print_config)
    elif config_file or print_config:
        raise typer.BadParameter(f"--config and --print-config belong behind {command!r}")


@app.command("run")
def run_command(
    config_file: ConfigFile = None,
    print_config: PrintConfig = False,
    allow_eviction: AllowEviction = False,
) -> None:
    """Run the daemon: read paired events, adapt, publish, until SIGTERM.

    Settings come from ADAPTD_* variables (see docs/settings.md), for example
    ADAPTD_KAFKA_BOOTSTRAP_SERVERS, ADAPTD_REDIS_URL and ADAPTD_META_INIT.
    """
    settings = config.load_settings(config_file, insisting(allow_eviction))
    if print_config:
        typer.echo(json.dumps(config.shown_settings(settings), indent=2, ensure_ascii=False))
        raise typer.Exit(OK)
    from daemon.worker.run import serve  # torch takes two seconds; a bad setting need not wait

    raise typer.Exit(serve(settings))


@app.command("check")
def check_command(config_file: ConfigFile = None, allow_eviction: AllowEviction = False) -> None:
    """Check everything that could stop the daemon: settings, θ, Kafka, topics, rights, Redis. Print
    the least rights that a worker needs.

    Exits 0 when all is well, 2 when something is wrong.
    """
    settings = config.load_settings(config_file, insisting(allow_eviction))
    from daemon.worker.check import least_rights, run_checks

    good = True
    for finding in run_checks(settings):
        good = good and finding.good
        typer.echo(f"{'ok   ' if finding.good else 'WRONG'}  {finding.what}: {finding.line}")
    for line in least_rights(settings):
        typer.echo(line)
    raise typer.Exit(OK if good else MISCONFIGURED)


@topics_app.command("create")
def create_topics(config_file: ConfigFile = None) -> None:
    """Make the topics that do not exist: of events, mappings, dead letters, θs and evidence.

    The last two are left out where ADAPTD_FOLLOW_META_INITS is off, the last where ADAPTD_CANARY
    is. Partitions (those two have one) and replicas are the settings ADAPTD_TOPIC_PARTITIONS and
    ADAPTD_TOPIC_REPLICATION.
    """
    settings = config.load_settings(config_file)
    from daemon.adapters.kafka_python.topics import KafkaTopics
    from daemon.wire.topics import mapping_bytes, optional_specs, specs
    from model.theta.meta_init_file import load_meta_init, shipped
    from model.values.errors import BadMetaInit

    try:
        theta = load_meta_init(settings.meta_init or shipped())
    except BadMetaInit as e:
        raise Misconfigured(f"ADAPTD_META_INIT: {e}") from e
    size = mapping_bytes(theta.source_dim, theta.hidden_dim, theta.target_dim)
    topics = KafkaTopics(settings)
    try:
        for spec in [*specs(settings, size), *optional_specs(settings)]:
            made = topics.create(spec)
            typer.echo(f"{spec.name}: {'created' if made else 'exists'}")
    finally:
        topics.close()


@app.command("demo")
def demo_command(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object, last on stdout.")
    ] = False,
    tenants: Annotated[int, typer.Option(min=1, max=99, help="Synthetic tenants.")] = 24,
    seconds: Annotated[
        float, typer.Option(min=1, max=3600, help="How long the producer takes.")
    ] = 30.0,
    kafka: Annotated[str | None, typer.Option(help="Brokers to use, not a local one.")] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL to use, with --kafka.")] = None,
    meta_init: Annotated[Path | None, typer.Option(help="The tenants' θ, not the shipped.")] = None,
    names_meta_init: Annotated[Path | None, typer.Option(help="The names' θ, likewise.")] = None,
) -> None:
    """See it work: real Kafka, real Redis, real pictures, about a minute.

    Starts a local Kafka and Valkey, a producer of emoji pictures with vectors of synthetic tenants
    and with names in six languages, a worker for each, a subscriber and a scraper. Exits 0 only if
    every check passes. Nothing is left behind.
    """
    from daemon.demo.plan import Plan
    from daemon.demo.run import DemoOptions, run_demo

    plan = Plan(tenants=tenants, seconds=seconds)
    options = DemoOptions(plan, as_json, kafka, redis, meta_init, names_meta_init)
    raise typer.Exit(run_demo(options))


@app.command("new-theta")
def new_theta(
    out: Annotated[Path, typer.Argument(help="Where to write the safetensors file.")],
    source_dim: Annotated[
        int, typer.Option(min=1, max=MAX_DIM, help="Dimensions of the source vectors.")
    ],
    target_dim: Annotated[
        int, typer.Option(min=1, max=MAX_DIM, help="Dimensions of the target vectors.")
    ],
    hidden_dim: Annotated[
        int, typer.Option(min=1, max=MAX_DIM, help="Units of the hidden layer.")
    ] = 128,
    generator: Annotated[str, typer.Option(help="mlp, attention, mixture or adversarial.")] = "mlp",
    learner: Annotated[
        str, typer.Option(help="maml, fomaml, reptile, meta-sgd, anil, adam, r2d2 or alpaca.")
    ] = "maml",
    loss: Annotated[str, typer.Option(help="mse, cosine, infonce or hinge.")] = "mse",
    activation: Annotated[str, typer.Option(help="relu, gelu, tanh or sigmoid.")] = "gelu",
    output_activation: Annotated[
        str, typer.Option(help="none, relu, gelu, tanh or sigmoid.")
    ] = "none",
    steps: Annotated[int, typer.Option(min=1, max=64, help="Inner steps.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the random weights.")] = 0,
) -> None:
    """Write a random vector -> vector θ for dimensions of your own, to begin with.

    It is not meta-trained, so streams learn from nothing but their own pairs.
    """
    from model.losses import Loss
    from model.meta.fresh import fresh_theta_of_kind
    from model.theta.meta_init_file import save_meta_init
    from model.values.errors import BadMetaInit

    require_writable(out)
    try:
        theta = fresh_theta_of_kind(
            (source_dim, hidden_dim, target_dim),
            generator,
            learner,
            Loss.from_config({"kind": loss}),
            activation,  # type: ignore[arg-type]  # judged by MetaInit
            output_activation,  # type: ignore[arg-type]
            steps,
            seed,
        )
    except BadMetaInit as e:
        raise Misconfigured(str(e)) from e
    with writing(out):
        save_meta_init(theta, out)
    typer.echo(f"{out}: {theta.version}, vector ({source_dim}) -> vector ({target_dim})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command, by default the one in sys.argv, and exits. An error that a person can mend
    becomes one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # θ, or a path, may be more than a locale can say
            stream.reconfigure(errors="backslashreplace")
    try:
        app(arguments)
    except Misconfigured as e:
        _end(str(e), MISCONFIGURED)
    except Unavailable as e:
        _end(str(e), FAILED)
    except OSError as e:  # of stdout, or of a file that went away meanwhile
        _let_go_of_stdout()
        _end(str(e), FAILED)
    except MemoryError as e:
        _end(f"out of memory: {e}", FAILED)


def _end(line: str, code: int) -> NoReturn:
    with suppress(OSError):
        print(f"adaptd: {' '.join(line.split())}", file=sys.stderr)  # noqa: T201 - no log yet
    sys.exit(code)


def _let_go_of_stdout() -> None:
    """What Python still holds for a stdout that takes nothing must not be its last words."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
