"""Every setting, once: type, unit, default, range and why.

Each is read from the environment as `ADAPTD_` + its name in capitals, or from a TOML file named
by `--config` or `ADAPTD_CONFIG_FILE`; the environment wins. An unknown name is an error, for a
setting with a typo in it is a setting that does nothing.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    DirectoryPath,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    model_validator,
)

from daemon.errors import Misconfigured

PREFIX = "ADAPTD_"
CONFIG_FILE_VARIABLE = "ADAPTD_CONFIG_FILE"

BOOTSTRAP = r"^[^\s,:]+:\d{1,5}(,[^\s,:]+:\d{1,5})*$"
"""host:port, separated by commas."""
MAX_PAIRS_PER_TURN = 200_000
"""Redis takes 2**20 arguments in a command, and a pair has five."""
MAX_META_INIT_BYTES = 256 * 2**20
"""What `model.theta.meta_init_file` reads at most; a broker's own `socket.request.max.bytes`, 100
MB by default, must be larger than the θs that are published."""

Modality = Literal["vector", "image", "text", "audio", "video"]


def _redis_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must start with redis://, rediss:// or unix://")
    try:
        _ = urlsplit(url.get_secret_value()).port
    except ValueError:  # its message quotes what it takes for the port: part of a password, often
        raise ValueError(
            "has no valid host and port; in a password, percent-encode / ? # and @"
        ) from None
    return url


RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


class Settings(BaseModel):
    """The daemon's settings."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    # ---- Kafka
    kafka_client: Literal["kafka-python", "librdkafka"] = "kafka-python"
    """Which client reads events and writes mappings; librdkafka costs less CPU and
    needs the extra `adaptd[librdkafka]`. All else is the same."""
    kafka_bootstrap_servers: str = Field("127.0.0.1:9092", pattern=BOOTSTRAP)
    """Brokers to start from, host:port, separated by commas."""
    kafka_group_id: str = Field("adaptd", min_length=1, max_length=249)
    """Consumer group; workers of one group share the partitions and the windows."""
    kafka_events_topic: TopicName = "paired-events"
    """Paired events are read from here."""
    kafka_mappings_topic: TopicName = "adapted-mappings"
    """Adapted mappings are published here; a compacted topic."""
    kafka_dead_letters_topic: TopicName = "paired-events-dlq"
    """Events that cannot be used go here, as they came, with the reason."""
    kafka_meta_inits_topic: TopicName = "meta-inits"
    """Published θs, and which of them is active; a compacted topic of one partition, written by
    `adaptd meta-init`."""
    kafka_offset_reset: Literal["earliest", "latest"] = "earliest"
    """Where a group that has never committed begins."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to talk to the brokers."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """Needed with the SASL protocols."""
    kafka_sasl_username: str | None = None
    """Needed with the SASL protocols."""
    kafka_sasl_password: SecretStr | None = None
    """Needed with the SASL protocols; never logged."""
    kafka_ssl_cafile: FilePath | None = None
    """Certificate authorities (PEM) that sign the brokers' certificates; the system's if unset."""
    kafka_ssl_certfile: FilePath | None = None
    """This client's certificate (PEM), where brokers ask for one."""
    kafka_ssl_keyfile: FilePath | None = None
    """The key (PEM) of that certificate."""
    kafka_session_timeout_ms: int = Field(10_000, ge=6_000, le=300_000)
    """A worker silent for so long loses its partitions; brokers refuse less than 6 s by default."""
    kafka_max_poll_interval_ms: int = Field(300_000, ge=10_000, le=3_600_000)
    """The longest turn before the group takes the partitions away."""
    kafka_timeout_ms: int = Field(5_000, ge=500, le=120_000)
    """How long one request to Kafka may take before it counts as unavailable."""
    kafka_delivery_timeout_ms: int = Field(10_000, ge=1_000, le=300_000)
    """How long producing a turn's records may take before the turn is given up and recovered."""
    kafka_max_poll_records: int = Field(1_000, ge=1, le=100_000)
    """The most records one turn takes in; bounds a turn's memory and length."""

    # ---- Redis
    redis_url: RedisUrl = Field(SecretStr("redis://127.0.0.1:6379/0"))
    """Redis 7 or Valkey; rediss:// for TLS. Never logged, for it may carry a password."""
    redis_prefix: str = Field("adaptd", min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9._:-]+$")
    """Begins every key, so that one Redis can serve several installations."""
    redis_timeout_ms: int = Field(5_000, ge=100, le=120_000)
    """How long one command may take before Redis counts as unavailable."""
    window_ttl_s: int = Field(2_592_000, ge=0, le=315_360_000)
    """A window that has not changed for so long expires from Redis, as do those of former encoders
    and topics; 0 keeps all for ever. The default is 30 days."""
    rebuild_windows: bool = True
    """Read a partition from its beginning when Redis holds nothing for it though the group has
    committed: Redis was emptied, or the encoder changed. Off, such windows fill up anew."""

    # ---- meta-init and device
    meta_init: Path | None = None
    """The θ to serve while none is active in the meta-inits topic, a safetensors file; the shipped
    emoji θ if unset. If set, an active θ must have its modalities and dimensions."""
    follow_meta_inits: bool = True
    """Serve the θ that is active in the meta-inits topic, and change it between turns when another
    is activated. Off, the topic is not read."""
    meta_init_max_bytes: int = Field(33_554_432, ge=65_536, le=MAX_META_INIT_BYTES)
    """The largest θ that is published and followed; the meta-inits topic is made to take it."""
    source_modality: Modality | None = None
    """If set, the start fails unless θ maps from it."""
    target_modality: Modality | None = None
    """If set, the start fails unless θ maps to it."""
    source_dim: int | None = Field(None, ge=1, le=65_536)
    """If set, the start fails unless θ's source features have so many dimensions."""
    target_dim: int | None = Field(None, ge=1, le=65_536)
    """If set, the start fails unless θ's target features have so many dimensions."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where to adapt: auto takes a CUDA device when there is one."""
    torch_threads: int = Field(1, ge=0, le=256)
    """CPU threads for encoding and adapting; 0 leaves the choice to torch. Matrices are small here:
    more threads gain little and, where they outnumber the free cores, wait for one another."""

    # ---- windows and episodes
    support_size: int = Field(32, ge=1, le=4_096)
    """The most pairs adapted on."""
    query_size: int = Field(4, ge=1, le=1_024)
    """The newest pairs, held out of the support for the gate to judge on."""
    min_support: int = Field(4, ge=1, le=4_096)
    """A stream is adapted once it has so many support pairs and one query pair."""
    extra_steps: int = Field(0, ge=0, le=63)
    """Inner steps tried beyond those that θ was trained for, 64 in all at most; taken back in every
    stream where the support loss did not fall."""
    gate_ridge: bool = True
    """Publish ridge regression where on the newest pairs it is clearly better than the adapted
    mapping.
    Off, mappings are held against θ alone."""
    max_resident_streams: int = Field(20_000, ge=1, le=10_000_000)
    """Windows kept in memory; the least recently changed beyond it wait in Redis, and when they
    come back their publish interval begins anew."""
    window_memory_mib: int = Field(0, ge=0, le=16_777_216)
    """If set, no more windows are kept in memory than fit in so much, in MiB, with what the engine
    keeps beside them; 0 leaves it to max_resident_streams."""
    window_spill_dir: DirectoryPath | None = None
    """A folder on a local disk for a file (without a name) that holds the windows' raw features:
    the kernel writes them out where memory is short. The disk must have room for them all: where it
    is full the kernel ends the process. If unset they lie in memory."""

    # ---- batching and publishing
    max_batch: int = Field(256, ge=1, le=65_536)
    """The most streams adapted in one turn."""
    turn_interval_ms: int = Field(20, ge=0, le=1_000)
    """Turns begin at least so far apart, so that what each costs however few its events are (a
    script per partition, a commit) is shared by those that came meanwhile."""
    max_wait_ms: int = Field(50, ge=0, le=60_000)
    """How long a changed stream waits at most for a full batch, from its event's record time on."""
    adapt_every: int = Field(1, ge=1, le=4_096)
    """A stream is adapted again once so many events have changed it..."""
    adapt_latest_ms: int = Field(1_000, ge=0, le=86_400_000)
    """... or so long after the first of fewer. Offsets of events that wait are not committed."""
    publish_interval_ms: int = Field(1_000, ge=0, le=86_400_000)
    """A stream's mapping is published at most so often, except when the gate's outcome changes.
    Offsets whose mappings wait are not committed: a restart reads as much again."""
    mapping_encoding: Literal["full", "lowrank"] = "full"
    """How mappings are published: whole, or, where that is smaller, as what was added to θ. For the
    latter readers need θ: by `meta_init_hash`, from the meta-inits topic or from its file."""
    mapping_dtype: Literal["float32", "float16"] = "float32"
    """What numbers of published mappings are stored as. float16 takes half the room and keeps 11
    bits of each; a mapping whose numbers it cannot hold is published in float32."""

    # ---- limits on what is read
    max_event_bytes: int = Field(1_048_576, ge=1_024, le=104_857_600)
    """A larger event is a dead letter."""
    max_pairs_per_event: int = Field(64, ge=1, le=4_096)
    """An event with more pairs is a dead letter."""
    dead_letter_max_bytes: int = Field(900_000, ge=0, le=104_857_600)
    """A dead letter's key, headers and value together are cut here, so that its topic can take it;
    the whole stays in the events topic at the place it names."""

    # ---- HTTP and logs
    http_host: str = "127.0.0.1"
    """Address of /metrics, /livez, /readyz and /status; 0.0.0.0 in a pod."""
    http_port: int = Field(9464, ge=0, le=65_535)
    """Port of the same; 0 takes a free one and logs it."""
    liveness_max_age_s: float = Field(60.0, ge=5.0, le=3_600.0)
    """/livez fails when the last turn ended longer ago."""
    stop_timeout_s: float = Field(8.0, ge=1.0, le=3_600.0)
    """How long SIGTERM waits for the turn to finish before the process ends as it stands, with exit
    code 1, which loses nothing; less than the supervisor's own patience."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged; debug has a line for every published mapping."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """json for machines, console for people; auto asks whether stderr is a terminal."""
    instance: str | None = Field(None, max_length=128)
    """This worker's name in logs and turn ids; host name, process and start time if unset. A name
    of your own repeats its turn ids after a restart."""

    # ---- topics made by `adaptd topics create`
    topic_partitions: int = Field(8, ge=1, le=10_000)
    """Partitions of a new topic; the most workers that can share the work."""
    topic_replication: int = Field(1, ge=1, le=10)
    """Replicas of a new topic; 3 in production."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_support > self.support_size:
            raise ValueError(
                f"ADAPTD_MIN_SUPPORT = {self.min_support}: must be at most ADAPTD_SUPPORT_SIZE "
                f"({self.support_size})"
            )
        if self.kafka_security_protocol.startswith("SASL"):
            needed = (
                self.kafka_sasl_mechanism,
                self.kafka_sasl_username,
                self.kafka_sasl_password,
            )
            if None in needed:
                raise ValueError(
                    f"ADAPTD_KAFKA_SECURITY_PROTOCOL = {self.kafka_security_protocol!r}: needs "
                    "ADAPTD_KAFKA_SASL_MECHANISM, ADAPTD_KAFKA_SASL_USERNAME and "
                    "ADAPTD_KAFKA_SASL_PASSWORD"
                )
        if self.kafka_max_poll_records * self.max_pairs_per_event > MAX_PAIRS_PER_TURN:
            raise ValueError(
                f"ADAPTD_MAX_PAIRS_PER_EVENT = {self.max_pairs_per_event}: times "
                f"ADAPTD_KAFKA_MAX_POLL_RECORDS ({self.kafka_max_poll_records}) must be at most "
                f"{MAX_PAIRS_PER_TURN}, what Redis takes in one append"
            )
        longest_ms = self.kafka_delivery_timeout_ms
        longest_ms += 3 * self.kafka_timeout_ms + 2 * self.redis_timeout_ms
        if longest_ms > self.liveness_max_age_s * 1000:
            raise ValueError(
                f"ADAPTD_LIVENESS_MAX_AGE_S = {self.liveness_max_age_s:g}: must be at least "
                f"{longest_ms / 1000:g}, which is ADAPTD_KAFKA_DELIVERY_TIMEOUT_MS, three times "
                "ADAPTD_KAFKA_TIMEOUT_MS and twice ADAPTD_REDIS_TIMEOUT_MS, so that a service that "
                "is away does not get the worker killed"
            )
        return self


def load_settings(
    config_file: Path | None, environment: Mapping[str, str] = os.environ
) -> Settings:
    """The effective settings. Raises Misconfigured with one line."""
    named = environment.get(CONFIG_FILE_VARIABLE)
    path = config_file or (Path(named) if named else None)
    _refuse_unknown_variables(environment)
    given = (_read(path) if path else {}) | _from_environment(environment)
    try:
        return Settings.model_validate(given)
    except ValidationError as e:
        raise Misconfigured(_one_line(e, given)) from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An empty variable counts as unset."""
    upper = {variable.upper(): value for variable, value in environment.items()}
    named = {name: upper.get(PREFIX + name.upper()) for name in Settings.model_fields}
    return {name: value for name, value in named.items() if value}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as e:
        raise Misconfigured(f"config file {path}: {e}") from e
    except tomllib.TOMLDecodeError as e:
        raise Misconfigured(f"config file {path} is not TOML: {e}") from e


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {CONFIG_FILE_VARIABLE}
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise Misconfigured(
                f"unknown setting {name} in the environment; see adaptd run --print-config"
            )


def _one_line(error: ValidationError, given: Mapping[str, Any]) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":  # its value may be a secret under a misspelt name
        return f"unknown setting {name!r} in the config file; see adaptd run --print-config"
    value = "(hidden)" if is_secret(name) else repr(given.get(name))
    return f"{PREFIX}{name.upper()} = {value}: {message}"


def is_secret(name: str) -> bool:
    """Whether a setting's value must never be shown."""
    field = Settings.model_fields.get(name)
    return field is not None and "SecretStr" in str(field.annotation)


def shown_settings(settings: Settings) -> dict[str, Any]:
    """The effective settings as plain values, secrets masked."""
    return settings.model_dump(mode="json")
