"""`adaptd send`: pairs from files to the events topic."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon import config
from daemon.commands.options import ConfigFile
from daemon.config import Settings
from daemon.errors import Misconfigured, RefusedMetaInit

if TYPE_CHECKING:
    from daemon.offline.send import SendReport
    from model.theta.meta_init import MetaInit

SHOW_EVERY_S = {True: 0.2, False: 5.0}
"""Seconds between two lines of progress, by whether they go to a terminal."""
OK, FAILED = 0, 1


def send_file(
    path: Annotated[Path, typer.Argument(help="A .jsonl or .csv file, or a folder.")],
    stream: Annotated[str | None, typer.Option(help="The stream of every pair.")] = None,
    source_column: Annotated[str, typer.Option(help="The source's name in the file.")] = "source",
    target_column: Annotated[str, typer.Option(help="The target's name in the file.")] = "target",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and send nothing.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Send the pairs of a file to the events topic, after the checks that a worker makes.

    A line of JSON, or a row of CSV, has stream, source and target: the numbers of a vector, a text,
    or the path of a picture or WAV file, as θ needs. In a folder, each picture or WAV file has a
    .txt of the same stem. A pair that a worker would refuse is left out and told. Kafka's default
    partitioner (murmur2 of the key) chooses the partition. Exits 1 if pairs were left out.
    """
    from daemon.adapters.kafka_python.outbox import KafkaPythonOutbox
    from daemon.offline.pairs_file import PairsForm, read_pairs
    from daemon.offline.send import send_pairs
    from daemon.wire.paired_event import EventLimits
    from model.serving.engine import Engine

    try:
        path.stat()
    except (OSError, ValueError) as e:  # ValueError for a name that no file can have
        why = getattr(e, "strerror", None) or e
        raise Misconfigured(f"{path}: cannot be read: {why}") from e
    settings = config.load_settings(config_file)
    if not dry_run:
        _require_topic(settings)
    theta = served_theta(settings, ask_kafka=not dry_run)
    reading = PairsForm(
        theta.source_modality,
        theta.target_modality,
        settings.max_event_bytes,
        source_column,
        target_column,
        stream,
    )
    limits = EventLimits(settings.max_event_bytes, settings.max_pairs_per_event)
    outbox = None if dry_run else KafkaPythonOutbox(settings, "adaptd-send")
    try:
        engine, progress = Engine(theta, "cpu"), _Progress()
        topic = settings.kafka_events_topic
        sent = send_pairs(read_pairs(path, reading), topic, limits, engine, outbox, progress.show)
    finally:
        if outbox is not None:
            outbox.close()
    progress.end()
    for line in sent.first_errors:
        typer.echo(f"{path}: {line}", err=True)
    done = "would be sent" if dry_run else f"sent to {topic}"
    left_out = ", ".join(f"{n} {reason}" for reason, n in sorted(sent.left_out.items()))
    told = f"; left out: {left_out}" if left_out else ""
    typer.echo(f"{path}: {sent.pairs} pairs of {len(sent.streams)} streams {done}{told}")
    raise typer.Exit(FAILED if left_out else OK)


class _Progress:
    """Lines of progress on stderr: one that is written over on a terminal, new ones in a file."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._began_at = self._shown_at = time.monotonic()
        self._open = False

    def show(self, sent: SendReport) -> None:
        now = time.monotonic()
        if now - self._shown_at < SHOW_EVERY_S[self._terminal]:
            return
        self._shown_at = now
        rate = sent.pairs / (now - self._began_at)
        line = f"{sent.pairs} pairs, {sum(sent.left_out.values())} left out, {rate:.0f} pairs/s"
        typer.echo(f"\r{line} " if self._terminal else line, err=True, nl=not self._terminal)
        self._open = self._terminal

    def end(self) -> None:
        """Ends the line on a terminal."""
        if self._open:
            typer.echo("", err=True)


def _require_topic(settings: Settings) -> None:
    """Raises Misconfigured when the events topic does not exist, and Unavailable."""
    from daemon.adapters.kafka_python.topics import KafkaTopics

    topic = settings.kafka_events_topic
    with closing(KafkaTopics(settings)) as topics:
        if topic not in topics.describe([topic]):
            raise Misconfigured(f"kafka: there is no topic {topic}: run adaptd topics create")


def served_theta(settings: Settings, ask_kafka: bool) -> MetaInit:
    """Returns the θ that workers serve: the active one, or the one in the settings. Raises
    Misconfigured when it cannot be had, and Unavailable."""
    from daemon.adapters.kafka_python.meta_inits import KafkaPythonMetaInits
    from daemon.thetas.active import active_theta
    from model.theta.meta_init_file import load_meta_init, shipped
    from model.values.errors import BadMetaInit

    try:
        if ask_kafka and settings.follow_meta_inits:
            with closing(KafkaPythonMetaInits(settings, "adaptd-send")) as topic:
                active = active_theta(topic, topic.catalogue())
            if active is not None:
                return active
        return load_meta_init(settings.meta_init or shipped())
    except RefusedMetaInit as e:
        raise Misconfigured(f"the active θ: {e}") from e
    except BadMetaInit as e:
        raise Misconfigured(f"ADAPTD_META_INIT: {e}") from e
