"""`adaptd check`: everything that could stop `adaptd run`, tried without reading an event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from daemon.adapters.kafka_python.meta_inits import KafkaMetaInits
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.adapters.redis.info import describe
from daemon.config import Settings
from daemon.errors import AdaptdError
from daemon.thetas.publish import active_theta, signature_of
from daemon.wire.topics import faults, mapping_bytes, specs
from daemon.worker.wiring import load_engine
from model.serving.engine import Engine


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    what: str
    good: bool
    line: str


def run_checks(settings: Settings) -> Iterator[Finding]:
    """Look at θ, Kafka and its topics, and Redis; a fault does not stop the rest."""
    engine = None
    try:
        engine = load_engine(settings)
        yield Finding("θ", True, _describe(engine))
    except AdaptdError as e:
        yield Finding("θ", False, str(e))
    size = (
        0
        if engine is None
        else mapping_bytes(engine.source_dim, engine.hidden_dim, engine.target_dim)
    )
    yield from _guarded("Kafka", lambda: _kafka(settings, size))
    if settings.follow_meta_inits:
        yield from _guarded("published θs", lambda: _active(settings))
    yield from _guarded("Redis", lambda: _redis(settings))


def _describe(engine: Engine) -> str:
    return (
        f"{engine.meta_init_version}: {engine.source_modality} ({engine.source_dim}) -> "
        f"{engine.target_modality} ({engine.target_dim}) on {engine.device}"
    )


def _active(settings: Settings) -> Iterator[Finding]:
    """Which θ workers are told to serve; that none is, is no fault."""
    topic = KafkaMetaInits(settings, "adaptd-check")
    try:
        found = topic.catalogue()
        theta = active_theta(topic, found)
        if theta is not None:
            signature_of(settings).refuse_others(theta)
    finally:
        topic.close()
    told = f"{theta.version} is active" if theta else "none is active: the one above is served"
    yield Finding("published θs", True, f"{len(found.published)}, {told}")


def _guarded(what: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except AdaptdError as e:
        yield Finding(what, False, str(e))


def _kafka(settings: Settings, mapping_size: int) -> Iterator[Finding]:
    wanted = specs(settings, mapping_size)
    topics = KafkaTopics(settings)
    try:
        found = topics.describe(spec.name for spec in wanted)
    finally:
        topics.close()
    yield Finding("Kafka", True, f"answers at {settings.kafka_bootstrap_servers}")
    wrong = list(faults(wanted, found))
    for line in wrong:
        yield Finding("topics", False, line)
    if not wrong:
        shown = ", ".join(f"{t.name} ({t.partitions} partitions)" for t in found.values())
        yield Finding("topics", True, shown)


def _redis(settings: Settings) -> Iterator[Finding]:
    info = describe(settings.redis_url.get_secret_value(), settings.redis_timeout_ms / 1000)
    yield Finding("Redis", True, f"answers, version {info.version}")
    if info.eviction not in (None, "noeviction"):
        yield Finding(
            "Redis",
            False,
            f"maxmemory-policy is {info.eviction}: it may drop windows; use noeviction",
        )
