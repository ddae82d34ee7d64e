"""`adaptd check`: tries everything that could stop `adaptd run`, without reading an event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from daemon.adapters.kafka_python.meta_inits import KafkaPythonMetaInits
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.adapters.redis.info import describe
from daemon.config import Settings
from daemon.errors import AdaptdError
from daemon.thetas.active import active_theta, signature_of
from daemon.wire.topics import faults, mapping_bytes, specs
from daemon.worker.wiring import load_engine
from model.values.outside import described


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    what: str
    good: bool
    line: str


def run_checks(settings: Settings) -> Iterator[Finding]:
    """Checks θ, Kafka, its topics and Redis, and yields what it finds. A fault does not keep it
    from the checks that follow."""
    mapping_size = 0
    try:
        engine = load_engine(settings)
        theta = engine.theta
        mapping_size = mapping_bytes(theta.source_dim, theta.hidden_dim, theta.target_dim)
        yield Finding("θ", True, f"{theta.version}: {theta.maps} on {engine.device}")
    except Exception as e:
        yield Finding("θ", False, _line(e))
    yield from _guarded("Kafka", lambda: _kafka(settings, mapping_size))
    if settings.follow_meta_inits:
        yield from _guarded("published θs", lambda: _active(settings))
    yield from _guarded("Redis", lambda: _redis(settings))


def _active(settings: Settings) -> Iterator[Finding]:
    """Finds which θ is active. It is no fault that none is."""
    topic = KafkaPythonMetaInits(settings, "adaptd-check")
    try:
        found = topic.catalogue()
        theta = active_theta(topic, found)
        if theta is not None:
            signature_of(settings).require(theta, theta.version)
    finally:
        topic.close()
    served = f"{theta.version} is active" if theta else "none is active: the one above is served"
    yield Finding("published θs", True, f"{len(found.published)}, {served}")


def _guarded(what: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as e:  # what a client raises that its adapter does not know is a finding too
        yield Finding(what, False, _line(e))


def _line(e: Exception) -> str:
    return str(e) if isinstance(e, AdaptdError) else described(e)


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
