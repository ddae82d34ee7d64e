"""`adaptd streams` and `adaptd explain`: what streams are served by, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from daemon import config
from daemon.commands.options import ConfigFile
from daemon.config import Settings
from daemon.errors import Misconfigured
from daemon.utc import time_told

if TYPE_CHECKING:
    from daemon.client.newest import Selection
    from daemon.turn.window import Pair
    from daemon.wire.adapted_mapping import AdaptedMapping, Facts

app = typer.Typer(
    help="The streams, and the mappings that serve them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

StreamName = Annotated[str, typer.Argument(help="The stream's id.", metavar="STREAM")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, an object on each line.")]


@app.command("list")
def list_streams(
    prefix: Annotated[str, typer.Option(help="Of streams that begin so.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = 100,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """List streams with the mapping that serves each, the newest published first.

    Reads the topic of mappings from its beginning.
    """
    settings = config.load_settings(config_file)
    found = newest_facts(settings, prefix)
    shown = sorted(found, key=lambda facts: -facts.published_at_ms)[:limit]
    if as_json:
        for facts in shown:
            typer.echo(json.dumps(facts.as_strings(), ensure_ascii=False))
        return
    typer.echo(
        f"{'published (UTC)':20} {'outcome':10} {'version':>10} {'pairs':>5} {'loss':>19}  stream"
    )
    for facts in shown:
        loss = f"{facts.query_loss_before:.3g} -> {facts.query_loss_after:.3g}"
        typer.echo(
            f"{time_told(facts.published_at_ms):20} {facts.outcome.value:10} {facts.version:10} "
            f"{facts.support_pairs:5} {loss:>19}  {facts.stream}"
        )
    typer.echo(f"{len(shown)} of {len(found)} streams")


@app.command("show")
def show_stream(
    stream: StreamName, as_json: AsJson = False, config_file: ConfigFile = None
) -> None:
    """Show every fact of a stream's mapping, and the pairs of its window in Redis."""
    settings = config.load_settings(config_file)
    facts = newest_mapping(settings, stream).facts
    window = _window(settings, facts)
    places = [f"{pair.id.offset}-{pair.id.place}" for pair in window]
    if as_json:
        typer.echo(json.dumps(facts.as_strings() | {"window": places}, ensure_ascii=False))
        return
    for name, text in facts.as_strings().items():
        typer.echo(f"{name:20} {text}")
    typer.echo(f"{'window':20} {len(places)} pairs: {' '.join(places)}")


def explain_stream(stream: StreamName, config_file: ConfigFile = None) -> None:
    """Say in words why a stream has the mapping that it has: its pairs, the candidates, their
    scores, the outcome; and whether the window in Redis still gives that mapping."""
    from daemon.commands.send import served_theta
    from daemon.replay.explain import explained
    from daemon.replay.thetas import Remakers
    from daemon.replay.verify import remade_alike

    settings = config.load_settings(config_file)
    mapping = newest_mapping(settings, stream)
    window = _window(settings, mapping.facts)
    for sentence in explained(mapping.facts, window):
        typer.echo(sentence)
    remakers = Remakers(settings, served_theta(settings, ask_kafka=True))
    remaker = remakers(mapping.facts.meta_init_hash)
    if remaker is None:
        typer.echo(f"θ {mapping.facts.meta_init} is not known here, so it is not made again.")
        return
    found = remade_alike(mapping, window, remaker)
    typer.echo(
        {
            "same": "Made again from that window, it is the same to the bit.",
            "different": f"Made again from that window, it is another one: {found.detail}.",
        }.get(found.result, f"It cannot be made again: {found.detail}.")
    )


def newest_facts(settings: Settings, prefix: str) -> list[Facts]:
    """Returns the facts of the mapping that readers serve each stream by, of streams that begin so;
    their tensors together might not fit into memory. Raises Unavailable, Misconfigured."""
    from daemon.client.newest import selection

    found: dict[str, Facts] = {}
    for stream, mapping in _served(settings, selection(prefix)):
        found.pop(stream, None)
        if mapping is not None:
            found[stream] = mapping.facts
    return list(found.values())


def newest_mapping(settings: Settings, stream: str) -> AdaptedMapping:
    """Returns the mapping that readers serve a stream by. Raises Unavailable, and Misconfigured
    where it has none."""
    from daemon.client.newest import selection

    served: AdaptedMapping | None = None
    for _, mapping in _served(settings, selection([stream])):
        served = mapping
    if served is None:
        topic = settings.kafka_mappings_topic
        raise Misconfigured(f"{topic!r} holds no mapping of stream {stream!r}")
    return served


def _served(settings: Settings, followed: Selection) -> Iterator[tuple[str, AdaptedMapping | None]]:
    """Yields each change of the mapping that a stream is served by; None: it was erased."""
    from daemon.adapters.kafka_python.reader import read_topic
    from daemon.client.newest import older
    from daemon.wire.adapted_mapping import BadMapping, decode_mapping

    held: dict[str, Facts] = {}
    for _, record in read_topic(settings, settings.kafka_mappings_topic):
        stream = (record.key or b"").decode(errors="replace")
        if stream not in followed:
            continue
        if record.value is None:
            held.pop(stream, None)
            yield stream, None
            continue
        try:
            mapping = decode_mapping(record.value)
        except BadMapping:
            continue
        facts, before = mapping.facts, held.get(stream)
        if facts.stream == stream and not (before and older(facts, before)):
            held[stream] = facts
            yield stream, mapping


def _window(settings: Settings, facts: Facts) -> list[Pair]:
    """Returns the stream's window as Redis has it, without claiming its partition."""
    from daemon.adapters.kafka_python.topics import KafkaTopics
    from daemon.adapters.redis.keys import WindowLayout
    from daemon.adapters.redis.windows import RedisWindowStore

    with closing(KafkaTopics(settings)) as topics:
        topic = topics.describe([facts.topic]).get(facts.topic)
    layout = WindowLayout(
        prefix=settings.redis_prefix,
        group=settings.kafka_group_id,
        incarnation=topic.incarnation if topic else "",
        encoder_version=facts.encoder,
        window_size=settings.support_size + settings.query_size,
        source_dim=facts.source_dim,
        target_dim=facts.target_dim,
        topic=facts.topic,
    )
    url, timeout_s = settings.redis_url.get_secret_value(), settings.redis_timeout_ms / 1000
    with closing(RedisWindowStore(url, timeout_s, layout)) as store:
        return list(store.look(facts.partition, facts.stream))
