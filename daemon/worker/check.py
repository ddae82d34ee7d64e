"""`adaptd check`: looks for whatever could stop `adaptd run`, without reading an event.

D = source dim, E = target dim
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import uuid4

import numpy as np

from daemon.adapters.kafka_python.meta_inits import KafkaPythonMetaInits
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.adapters.redis.info import describe
from daemon.adapters.redis.windows import least_redis_acl
from daemon.config import Settings
from daemon.errors import AdaptdError
from daemon.thetas.active import active_theta, signature_of
from daemon.turn.ports import Append
from daemon.turn.window import Pair, PairId
from daemon.wire.topics import (
    faults,
    group_faults,
    least_kafka_acls,
    mapping_bytes,
    optional_specs,
    specs,
)
from daemon.worker.wiring import eviction_fault, load_engine, open_store
from model.serving.engine import Engine
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
    mapping_size, engine = 0, None
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
    if engine is not None:
        yield from _guarded("Redis", lambda: _windows(settings, engine))


def least_rights(settings: Settings) -> Iterator[str]:
    """Yields the rights that a worker needs, for whoever grants them: a line each."""
    yield "least rights in Kafka (ACL):"
    for line in least_kafka_acls(settings, [*specs(settings, 0), *optional_specs(settings)]):
        yield f"  {line}"
    yield "least rights in Redis (ACL SETUSER), +info and +config|get only for what it evicts:"
    yield f"  {least_redis_acl(settings.redis_prefix)}"


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
    """Asks for topics and rights. Reading and writing are not tried: a member more would make the
    group rebalance, and a record more would be read; the brokers say whether both are allowed."""
    wanted = specs(settings, mapping_size)
    topics = KafkaTopics(settings)
    try:
        found = topics.describe(spec.name for spec in wanted)
        besides = topics.describe(spec.name for spec in optional_specs(settings))
        group = topics.group_rights(settings.kafka_group_id)
    finally:
        topics.close()
    yield Finding("Kafka", True, f"answers at {settings.kafka_bootstrap_servers}")
    wrong = list(faults(wanted, found))
    for line in wrong:
        yield Finding("topics", False, line)
    if not wrong:
        shown = ", ".join(f"{t.name} ({t.partitions} partitions)" for t in found.values())
        yield Finding("topics", True, shown)
    for line in faults(optional_specs(settings), besides):
        yield Finding("canaries", True, f"cannot be judged: {line}")
    refused = list(group_faults(settings, group))
    for line in refused:
        yield Finding("group", False, line)
    if not refused:
        said = "rights are not told by the brokers" if group is None else "may be joined"
        yield Finding("group", True, f"{settings.kafka_group_id}: {said}")


def _redis(settings: Settings) -> Iterator[Finding]:
    info = describe(settings.redis_url.get_secret_value(), settings.redis_timeout_ms / 1000)
    yield Finding("Redis", True, f"answers, version {info.version or 'unknown'}")
    if fault := eviction_fault(info, settings):
        yield Finding("Redis", False, fault.removeprefix("redis: "))
    elif info.eviction is None:
        yield Finding("Redis", True, "does not say which keys it evicts when it is full")


def _windows(settings: Settings, engine: Engine) -> Iterator[Finding]:
    """Does all that a worker does in Redis, on keys of a topic that does not exist, and removes
    them."""
    store = open_store(settings, engine, f"check-{uuid4()}")
    try:
        theta = engine.theta
        x_D, y_E = np.zeros(theta.source_dim, np.float32), np.zeros(theta.target_dim, np.float32)
        pair = Pair(PairId(0, 0), x_D, y_E, 0)
        epoch = store.claim(0, 0).epoch
        # one pair too few: the script deletes the window, which a worker must be allowed to do
        store.append(0, epoch, 1, [Append("check", pair)], {"check": 1})
        store.restore(0, epoch, {"check": [pair]})
        store.shorten(0, epoch, {"check": 0})
        store.load(0, ["check"])
        store.streams([0])
        store.mark(0, epoch, "check")
        store.verify({0: epoch})
        store.expire_all(0)
    finally:
        store.close()
    yield Finding("Redis", True, "every command that a worker needs is allowed")
