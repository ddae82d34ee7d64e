"""Where the demo runs: its Kafka and Redis, its θs, and the settings of its workers.

Services are either started for the demo, or given. In given ones the demo uses names of its own
(topics, consumer groups, Redis keys), and deletes them at the end.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from redis import Redis, RedisError

from daemon import config
from daemon.adapters.kafka_python.client import connection_arguments
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.config import PREFIX, Settings
from daemon.demo.plan import Plan, RunConfig
from daemon.demo.scenarios import SCENARIOS, ScenarioName
from daemon.errors import Misconfigured
from daemon.local.services import local_services
from daemon.wire.topics import mapping_bytes, specs
from model.emoji.tenants import LOW_RANK_DIM
from model.theta.meta_init import MetaInit, Modality
from model.theta.meta_init_file import load_meta_init, shipped
from model.values.errors import BadMetaInit

SETTINGS = {
    "SUPPORT_SIZE": "64",
    "QUERY_SIZE": "4",
    "PUBLISH_INTERVAL_MS": "200",
    "MAX_WAIT_MS": "20",
    "TORCH_THREADS": "1",  # a turn is a few small products; the other cores are Kafka's
    "HTTP_PORT": "0",
    "LOG_FORMAT": "json",
    "FOLLOW_META_INITS": "false",  # a θ that is active on given services is not the demo's
}
"""Settings that differ from their defaults: larger windows, and mappings soon after events."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Otherwise each of six processes would start as many threads as there are cores."""


# ---- the θ of each scenario


@dataclass(frozen=True, slots=True)
class RequiredTheta:
    """What a scenario's θ must map to, and which one is used unless another is given."""

    shipped: str
    option: str
    target_modality: Modality
    target_dim: int | None
    """None: any, for the θ's own encoder makes the targets."""


REQUIRED_THETAS: Mapping[ScenarioName, RequiredTheta] = {
    "tenants": RequiredTheta("emoji-lowrank", "--meta-init", "vector", LOW_RANK_DIM),
    "names": RequiredTheta("emoji-names", "--names-meta-init", "text", None),
}


def theta_paths(given: Mapping[ScenarioName, Path | None]) -> dict[ScenarioName, Path]:
    """Returns each scenario's θ file: the given one, or else the shipped one."""
    return {
        scenario: (given.get(scenario) or shipped(required.shipped)).absolute()
        for scenario, required in REQUIRED_THETAS.items()
    }


def load_theta(scenario: ScenarioName, path: Path) -> MetaInit:
    """Returns the θ in the file. Raises Misconfigured unless it fits the scenario's events."""
    required = REQUIRED_THETAS[scenario]
    try:
        theta = load_meta_init(path)
    except BadMetaInit as e:
        raise Misconfigured(f"{required.option}: {e}") from e
    dim = required.target_dim or theta.target_dim
    wanted = ("image", required.target_modality, dim)
    if (theta.source_modality, theta.target_modality, theta.target_dim) != wanted:
        raise Misconfigured(
            f"{required.option}: the demo maps image to {required.target_modality} ({dim}), and θ "
            f"{theta.version} {theta.source_modality} to {theta.target_modality} "
            f"({theta.target_dim})"
        )
    return theta


# ---- services and settings


@dataclass(frozen=True, slots=True)
class DemoEnvironment:
    """The services, and the environment variables with which the demo's processes use them."""

    services: str
    """Which services these are, in one line."""
    common: Mapping[str, str]
    """The environment of every process."""
    own: Mapping[ScenarioName, Mapping[str, str]]
    """Variables of each scenario's processes: names of topics, group and Redis keys, and its θ."""

    def variables_of(self, scenario: ScenarioName) -> dict[str, str]:
        """Returns the whole environment of the scenario's worker."""
        return {**self.common, **self.own[scenario]}

    def settings_of(self, scenario: ScenarioName) -> Settings:
        """Returns the settings of the scenario's worker."""
        return config.load_settings(None, self.variables_of(scenario))

    def run_config(self, plan: Plan) -> RunConfig:
        """Returns what a process that serves both scenarios needs."""
        return RunConfig(plan, {scenario: dict(own) for scenario, own in self.own.items()})


@contextmanager
def demo_environment(
    kafka: str | None,
    redis: str | None,
    thetas: Mapping[ScenarioName, Path],
    note: Callable[[str], None],
) -> Iterator[DemoEnvironment]:
    """Provide services for the block: those at the given addresses, or else local ones.

    Afterwards local services are stopped, and what the demo made in given ones is deleted. Raises
    Misconfigured when only one address is given, and ServicesUnavailable.
    """
    if bool(kafka) != bool(redis):
        raise Misconfigured("--kafka and --redis go together: give both, or neither")
    run = f"adaptd-demo-{uuid.uuid4().hex[:8]}"
    own = {scenario: _own(f"{run}-{scenario}", thetas[scenario]) for scenario in SCENARIOS}
    with ExitStack() as stack:
        if kafka and redis:
            found = DemoEnvironment(f"given: Kafka at {kafka}", _common(kafka, redis), own)
            for scenario in SCENARIOS:
                stack.callback(_clean_up, found.settings_of(scenario))
        else:
            note("starting Kafka and Valkey ...")
            local = stack.enter_context(local_services(note))
            common = _common(local.kafka_bootstrap_servers, local.redis_url)
            found = DemoEnvironment(local.description, common, own)
        yield found


def create_scenario_topics(settings: Settings, theta: MetaInit) -> None:
    """Create the topics of one scenario: events, mappings, dead letters. Raises Unavailable."""
    size = mapping_bytes(theta.source_dim, theta.hidden_dim, theta.target_dim)
    topics = KafkaTopics(settings)
    try:
        for spec in specs(settings, size):
            topics.create(spec)
    finally:
        topics.close()


def _common(kafka: str, redis: str) -> dict[str, str]:
    """Returns this process's environment with the demo's settings in place of all ADAPTD_* ones."""
    others = {k: v for k, v in os.environ.items() if not k.upper().startswith(PREFIX)}
    ours = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "REDIS_URL": redis, **SETTINGS}
    return others | ONE_THREAD | _variables(ours)


def _own(name: str, theta: Path) -> dict[str, str]:
    """Returns variables with names that no other scenario, run or daemon uses."""
    return _variables(
        {
            "KAFKA_GROUP_ID": name,
            "KAFKA_EVENTS_TOPIC": f"{name}-paired-events",
            "KAFKA_MAPPINGS_TOPIC": f"{name}-adapted-mappings",
            "KAFKA_DEAD_LETTERS_TOPIC": f"{name}-paired-events-dlq",
            "REDIS_PREFIX": name,
            "META_INIT": str(theta),
        }
    )


def _variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {PREFIX + name: value for name, value in settings.items()}


def _clean_up(settings: Settings) -> None:
    """Delete one scenario's topics, group and Redis keys, as far as the services answer."""
    with suppress(KafkaError, OSError), KafkaAdminClient(**connection_arguments(settings)) as admin:
        ours = [t for t in admin.list_topics() if t.startswith(f"{settings.kafka_group_id}-")]
        if ours:
            admin.delete_topics(ours)
        admin.delete_groups([settings.kafka_group_id])
    with suppress(RedisError), Redis.from_url(settings.redis_url.get_secret_value()) as client:
        for key in client.scan_iter(match=f"{settings.redis_prefix}*", count=1000):
            client.delete(key)
