"""`adaptd streams` and `adaptd explain`: what streams are served by, and why."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon import config
from daemon.config import Settings
from daemon.errors import Misconfigured

if TYPE_CHECKING:
    from daemon.turn.window import Pair
    from daemon.wire.adapted_mapping import AdaptedMapping, Facts

app = typer.Typer(
    help="The streams, and the mappings that serve them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file of settings; the environment wins over it."),
]
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
    found = [m.facts for m in newest_mappings(settings, prefix).values()]
    shown = sorted(found, key=lambda facts: -facts.published_at_ms)[:limit]
    if as_json:
        for facts in shown:
            typer.echo(json.dumps(facts.as_strings(), ensure_ascii=False))
        return
    typer.echo(f"{'published':20} {'outcome':10} {'version':>10} {'pairs':>5} {'loss':>19}  stream")
    for facts in shown:
        loss = f"{facts.query_loss_before:.3g} -> {facts.query_loss_after:.3g}"
        typer.echo(
            f"{_moment(facts.published_at_ms):20} {facts.outcome.value:10} {facts.version:10} "
            f"{facts.support_pairs:5} {loss:>19}  {facts.stream}"
        )
    typer.echo(f"{len(shown)} of {len(found)} streams")


@app.command("show")
def show_stream(
    stream: StreamName, as_json: AsJson = False, config_file: ConfigFile = None
) -> None:
    """Show every fact of a stream's mapping, and the pairs of its window in Redis."""
    settings = config.load_settings(config_file)
    facts = _mapping(settings, stream).facts
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
    mapping = _mapping(settings, stream)
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


def newest_mappings(settings: Settings, prefix: str = "") -> dict[str, AdaptedMapping]:
    """Returns the mapping that readers serve each stream by. Raises Unavailable, Misconfigured."""
    from daemon.adapters.kafka_python.reader import read_topic
    from daemon.client.newest import older
    from daemon.wire.adapted_mapping import BadMapping, decode_mapping

    found: dict[str, AdaptedMapping] = {}
    for _, record in read_topic(settings, settings.kafka_mappings_topic):
        stream = (record.key or b"").decode(errors="replace")
        if not stream.startswith(prefix):
            continue
        if record.value is None:
            found.pop(stream, None)
            continue
        try:
            mapping = decode_mapping(record.value)
        except BadMapping:
            continue
        held = found.get(stream)
        if mapping.facts.stream == stream and (
            held is None or not older(mapping.facts, held.facts)
        ):
            found[stream] = mapping
    return found


def _mapping(settings: Settings, stream: str) -> AdaptedMapping:
    mapping = newest_mappings(settings, stream).get(stream)
    if mapping is None:
        topic = settings.kafka_mappings_topic
        raise Misconfigured(f"{topic!r} holds no mapping of stream {stream!r}")
    return mapping


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


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")[:19] + "Z"
