"""Every setting, once: type, unit, default, range and purpose.

Each setting is read from the environment as `ADAPTD_` and its name in capitals, or from a TOML file
that `--config` or `ADAPTD_CONFIG_FILE` names; the environment wins. An unknown name is an error,
because a setting with a typo in its name would do nothing.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
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

BROKER = re.compile(r"[^\s,:/]+:([0-9]{1,5})")
HIGHEST_PORT = 65_535
MAX_PAIRS_PER_TURN = 200_000
"""Redis takes 2**20 arguments in a command, and a pair has five of them."""
PRODUCER_LINGER_MS = 5
"""How long a producer waits for a batch to fill; part of the time that a delivery takes."""
PUBLISH_BUDGET_MS = 5_000
"""How long a turn begins further slices of mappings (`daemon.turn.publishing`)."""
MAX_RECORD_BYTES = 64 * 2**20
"""The largest record that the adapters' producers take."""
INTERNAL_TOPICS = ("__consumer_offsets", "__transaction_state")
MAX_SHOWN_CHARS = 200
"""A refused value that is longer is cut when it is shown."""
MAX_META_INIT_BYTES = 256 * 2**20
"""The largest θ that `model.theta.meta_init_file` reads. The brokers' `socket.request.max.bytes`,
by default 100 MB, must be larger than every θ that is published."""

Modality = Literal["vector", "image", "text", "audio", "video"]
KafkaClient = Literal["kafka-python", "librdkafka"]


def _redis_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must start with redis://, rediss:// or unix://")
    try:
        parts = urlsplit(url.get_secret_value())
        _ = parts.port
        (parts.hostname or "").encode("idna")  # as the socket will
    except ValueError:  # its message quotes what it takes for the port: part of a password, often
        raise ValueError(
            "has no valid host and port; in a password, percent-encode / ? # and @"
        ) from None
    if parts.scheme == "unix" and not parts.path:
        raise ValueError("has no path of a socket")
    return url


def _sasl_mechanism(name: object) -> object:
    if isinstance(name, str) and name.upper() == "GSSAPI":
        raise ValueError(
            "Kerberos is not supported, for neither Kafka client comes with a library for it; use "
            "SCRAM-SHA-512 or OAUTHBEARER"
        )
    return name


SaslMechanism = Annotated[
    Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"],
    BeforeValidator(_sasl_mechanism),
]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]


def _topic_name(name: str) -> str:
    if name in (".", "..", *INTERNAL_TOPICS):
        raise ValueError("is a name that Kafka keeps for itself")
    return name


TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$"), AfterValidator(_topic_name)]


TOPIC_SETTINGS = (
    "kafka_events_topic",
    "kafka_mappings_topic",
    "kafka_dead_letters_topic",
    "kafka_meta_inits_topic",
    "kafka_evidence_topic",
)


def _brokers(text: str) -> str:
    for address in text.split(","):
        found = BROKER.fullmatch(address)
        if found is None or not 1 <= int(found[1]) <= HIGHEST_PORT:
            raise ValueError(
                f"{address!r} is not host:port; expected brokers with commas and no spaces between "
                "them, for example kafka-1:9092,kafka-2:9092"
            )
    return text


Brokers = Annotated[str, AfterValidator(_brokers)]
IN_WORDS = {
    "device": "expected auto, cpu, cuda, or cuda: and a number",
    "redis_prefix": "expected letters, digits and . _ : -, with no space between them",
} | dict.fromkeys(
    TOPIC_SETTINGS, "expected a topic's name: 1 to 249 letters, digits, dots, underscores, dashes"
)
"""What is allowed by a pattern, in words."""


class Settings(BaseModel):
    """The settings of the daemon."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    # ---- Kafka
    kafka_client: KafkaClient = "kafka-python"
    """The client that reads events and writes mappings. librdkafka costs less CPU and needs the
    extra `librdkafka`; docs/kafka-clients.md lists what else is not the same."""
    kafka_bootstrap_servers: Brokers = "127.0.0.1:9092"
    """The brokers to connect to first: host:port, separated by commas."""
    kafka_group_id: str = Field("adaptd", min_length=1, max_length=249)
    """The consumer group. Workers of one group share the partitions and the windows."""
    kafka_events_topic: TopicName = "paired-events"
    """The topic that paired events are read from."""
    kafka_mappings_topic: TopicName = "adapted-mappings"
    """The topic that adapted mappings are published to. It must be compacted."""
    kafka_dead_letters_topic: TopicName = "paired-events-dlq"
    """The topic that events go to which cannot be used, as they came and with the reason."""
    kafka_meta_inits_topic: TopicName = "meta-inits"
    """The topic of published θs, which also says which of them is active. `adaptd meta-init` writes
    it. It must be compacted and have one partition."""
    kafka_evidence_topic: TopicName = "meta-evidence"
    """The topic that workers write to how a candidate θ does beside the active one. It must have
    one partition and not be compacted."""
    kafka_offset_reset: Literal["earliest", "latest"] = "earliest"
    """Where a group begins to read that has never committed. Partitions and topics that are made
    later are read from their beginning."""
    kafka_isolation_level: Literal["read_committed", "read_uncommitted"] = "read_committed"
    """Whether only records of committed transactions are read, and those of none. An open
    transaction then holds back what lies behind its first record."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to connect to the brokers."""
    kafka_sasl_mechanism: SaslMechanism | None = None
    """The SASL protocols need it. OAUTHBEARER takes a token in place of a name and a password."""
    kafka_sasl_username: str | None = None
    """The SASL protocols need it."""
    kafka_sasl_password: SecretStr | None = None
    """The SASL protocols need it. It is never logged."""
    kafka_oauth_token_provider: str | None = Field(None, max_length=256)
    """OAUTHBEARER needs it: `module:function`, or the name of an entry point in the group
    `adaptd.token_providers`. The function returns a token, and until when it is valid (Unix time in
    seconds)."""
    kafka_ssl_cafile: FilePath | None = None
    """The certificate authorities (PEM) that sign the brokers' certificates. If unset, those of the
    system."""
    kafka_ssl_certfile: FilePath | None = None
    """The certificate (PEM) of this client, if brokers ask for one."""
    kafka_ssl_keyfile: FilePath | None = None
    """The private key (PEM) of that certificate."""
    kafka_session_timeout_ms: int = Field(10_000, ge=6_000, le=300_000)
    """A worker that is silent for this long loses its partitions. By default brokers refuse less
    than 6 s."""
    kafka_max_poll_interval_ms: int = Field(300_000, ge=10_000, le=3_600_000)
    """The longest time between two polls, and so the longest turn, before the group revokes the
    worker's partitions."""
    kafka_timeout_ms: int = Field(5_000, ge=500, le=120_000)
    """How long a request to Kafka may take before Kafka counts as unavailable."""
    kafka_delivery_timeout_ms: int = Field(10_000, ge=1_000, le=300_000)
    """How long Kafka may take to acknowledge the records that a turn produces before the worker
    gives the turn up and recovers."""
    kafka_max_poll_records: int = Field(1_000, ge=1, le=100_000)
    """The most records that one turn reads. It bounds the turn's memory and length."""

    # ---- Redis
    redis_url: RedisUrl = Field(SecretStr("redis://127.0.0.1:6379/0"))
    """The address of Redis 7 or Valkey; rediss:// for TLS. It is never logged, because it may hold
    a password."""
    redis_prefix: str = Field("adaptd", min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9._:-]+$")
    """The beginning of every key, so that several installations can share one Redis."""
    redis_timeout_ms: int = Field(5_000, ge=100, le=120_000)
    """How long a command may take before Redis counts as unavailable."""
    redis_allow_eviction: bool = False
    """Starts although Redis evicts keys when its memory is full (a maxmemory-policy other than
    noeviction), so that windows may be lost. `--allow-eviction` sets it too."""
    window_ttl_s: int = Field(2_592_000, ge=0, le=315_360_000)
    """A window that has not changed for this long expires from Redis, and so do the windows of
    former encoders and topics. 0 keeps them for ever. The default is 30 days."""
    rebuild_windows: bool = True
    """Reads a partition from its beginning when Redis holds nothing of it although the group has
    committed, because Redis was emptied or the encoder changed. If off, such windows start
    empty."""

    # ---- meta-init and device
    meta_init: Path | None = None
    """The θ, a safetensors file, to serve while no θ is active in the meta-inits topic; if unset,
    the shipped emoji θ. If set, an active θ must have its modalities and dimensions."""
    follow_meta_inits: bool = True
    """Serves the θ that is active in the meta-inits topic, and changes to another one between two
    turns when that is activated. If off, the topic is not read."""
    meta_init_max_bytes: int = Field(33_554_432, ge=65_536, le=MAX_META_INIT_BYTES)
    """The largest θ that is published and followed. `adaptd topics create` makes the meta-inits
    topic take it."""
    canary: Literal["off", "ask", "auto"] = "ask"
    """What workers do with a candidate θ that `adaptd meta-init canary` has put on trial. ask: they
    judge it on some streams, publish nothing of it, and leave its activation to a person. auto: one
    that has won is activated, and put back if it then turns out to be worse. off: nothing."""
    source_modality: Modality | None = None
    """If set, the worker starts only with a θ that maps from this modality."""
    target_modality: Modality | None = None
    """If set, the worker starts only with a θ that maps to this modality."""
    source_dim: int | None = Field(None, ge=1, le=65_536)
    """If set, the worker starts only with a θ whose source features have this many dimensions."""
    target_dim: int | None = Field(None, ge=1, le=65_536)
    """If set, the worker starts only with a θ whose target features have this many dimensions."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where to adapt. auto takes a CUDA device when there is one."""
    torch_threads: int = Field(1, ge=0, le=256)
    """CPU threads that encode and adapt; 0 leaves the number to torch. The matrices are small: more
    threads gain little, and where they outnumber the free cores they wait for one another."""

    # ---- windows and episodes
    support_size: int = Field(32, ge=1, le=4_096)
    """The most pairs that a stream is adapted on before the gate judges."""
    query_size: int = Field(4, ge=1, le=1_024)
    """The newest pairs of a window, which are kept out of the support so that the gate can judge on
    them. The mapping that wins then learns from them too."""
    min_support: int = Field(4, ge=1, le=4_096)
    """A stream is adapted once it has this many support pairs and one query pair."""
    extra_steps: int = Field(0, ge=0, le=63)
    """Inner steps that are tried beyond those that θ was trained for, 64 together at most. They are
    taken back in every stream whose support loss they did not lower."""
    gate_ridge: bool = True
    """Publishes ridge regression or Procrustes where it is clearly better than the adapted mapping
    on the newest pairs; for a θ that was never trained, unless the adapted mapping is clearly
    better. If off, mappings are compared with θ alone."""
    prequential_streams: int = Field(32, ge=0, le=10_000)
    """Of how many streams, chosen by the hash of their keys, each new pair is scored by the mapping
    that was published before it came, for the metrics `adaptd_prequential_loss`, `_pairs` and
    `_hits`. Each takes the memory of its mapping and of a linear one."""
    drift: bool = True
    """Watches the losses of each stream for a change. A stream that seems to have changed is also
    adapted to its pairs since then alone; if that mapping is clearly better on the newest pairs,
    the window loses the older ones, in Redis too."""
    max_resident_streams: int = Field(20_000, ge=1, le=10_000_000)
    """How many windows are kept in memory. Beyond that, windows are evicted: of two chosen by
    chance the one that changed longer ago. Redis keeps them; reading one back costs as much as
    several events, and many of those are logged as `memory_too_small`."""
    window_memory_mib: int = Field(0, ge=0, le=16_777_216)
    """If set, no more windows are kept in memory than fit into this many MiB, together with what
    the engine keeps beside them. 0 leaves the number to max_resident_streams."""
    window_spill_dir: DirectoryPath | None = None
    """A folder on a local disk for a file (without a name) that holds the raw features of the
    windows, so that the kernel can write them out when memory is short. The disk must have room for
    all of them: when it is full, the kernel ends the process. If unset, they lie in memory."""

    # ---- batching and publishing
    max_batch: int = Field(256, ge=1, le=65_536)
    """The most streams that one turn adapts."""
    turn_interval_ms: int = Field(20, ge=0, le=1_000)
    """The shortest time between the beginnings of two turns. A turn has a fixed cost (a script per
    partition, a commit), which the events that gather in this time share. Fewer than 64 events
    gather for `ADAPTD_MAX_WAIT_MS` instead, if that is longer and at most 100, and are then adapted
    in the turn that reads them. 0 lets no turn wait."""
    max_wait_ms: int = Field(50, ge=0, le=60_000)
    """How long a changed stream waits at most for a full batch, counted from its event's record
    time."""
    adapt_every: int = Field(1, ge=1, le=4_096)
    """A stream is adapted again once this many events have changed it, or after
    `ADAPTD_ADAPT_LATEST_MS`, and in any case not before its publish interval is over."""
    adapt_latest_ms: int = Field(1_000, ge=0, le=86_400_000)
    """How long after the first event since its last adaptation a stream is adapted again that fewer
    events have changed. The offsets of events that wait are not committed."""
    publish_interval_ms: int = Field(1_000, ge=0, le=86_400_000)
    """The shortest time between two mappings of a stream, and between two adaptations: what nobody
    would receive is not made. A stream on the fallback is adapted with each batch until it has a
    mapping of its own. Offsets whose mappings wait are not committed, so a restart reads those
    events again."""
    mapping_encoding: Literal["full", "lowrank"] = "full"
    """How mappings are published: whole, or as what was added to θ where that is smaller. Readers
    of the latter need θ, which they find by `meta_init_hash` in the meta-inits topic or in its
    file."""
    mapping_dtype: Literal["float32", "float16"] = "float32"
    """The numbers of published mappings. float16 takes half the space and keeps 11 bits of each; a
    mapping whose numbers it cannot hold is published in float32."""

    # ---- limits on what is read
    max_event_bytes: int = Field(1_048_576, ge=1_024, le=104_857_600)
    """A larger event becomes a dead letter."""
    max_pairs_per_event: int = Field(64, ge=1, le=4_096)
    """An event with more pairs becomes a dead letter."""
    dead_letter_max_bytes: int = Field(900_000, ge=0, le=MAX_RECORD_BYTES - 2**20)
    """The most bytes that a dead letter has of the record's key, headers and value together, so
    that its topic can take it. The whole record stays in the events topic, at the offset that the
    dead letter names."""

    # ---- HTTP and logs
    http_host: str = "127.0.0.1"
    """The address on which /metrics, /livez, /readyz and /status are served; 0.0.0.0 in a pod."""
    http_port: int = Field(9464, ge=0, le=65_535)
    """The port on which they are served; 0 takes a free one and logs it."""
    liveness_max_age_s: float = Field(60.0, ge=5.0, le=3_600.0)
    """/livez fails when the last turn ended longer ago than this."""
    stop_timeout_s: float = Field(8.0, ge=1.0, le=3_600.0)
    """How long the turn may take to finish after SIGTERM. Then the process ends at once with exit
    code 1, which loses nothing. It must be less than the supervisor's own timeout."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines that are logged; debug logs a line for every published mapping."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """json is for machines, console for people. auto is console if stderr is a terminal."""
    tracing: bool = False
    """Sends spans by OTLP over HTTP to where OTEL_EXPORTER_OTLP_ENDPOINT says: one for each stage
    of a turn, and one for each mapping of an event that came with a trace context (the header
    `traceparent`), which the mapping then carries on. Needs the extra `tracing`."""
    instance: str | None = Field(None, max_length=128)
    """The name of this worker in logs and turn ids; if unset, host name, process and start time.
    With a name of your own, turn ids repeat after a restart."""

    # ---- topics made by `adaptd topics create`
    topic_partitions: int = Field(8, ge=1, le=10_000)
    """How many partitions a new topic gets, and so how many workers can share the work."""
    topic_replication: int = Field(1, ge=1, le=10)
    """How many replicas a new topic gets; 3 in production."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_support > self.support_size:
            raise ValueError(
                f"ADAPTD_MIN_SUPPORT = {self.min_support}: must be at most ADAPTD_SUPPORT_SIZE "
                f"({self.support_size})"
            )
        self._require_credentials()
        if self.kafka_max_poll_records * self.max_pairs_per_event > MAX_PAIRS_PER_TURN:
            raise ValueError(
                f"ADAPTD_MAX_PAIRS_PER_EVENT = {self.max_pairs_per_event}: times "
                f"ADAPTD_KAFKA_MAX_POLL_RECORDS ({self.kafka_max_poll_records}) must be at most "
                f"{MAX_PAIRS_PER_TURN}, what Redis takes in one append"
            )
        longest_ms = PUBLISH_BUDGET_MS + self.kafka_delivery_timeout_ms
        longest_ms += 3 * self.kafka_timeout_ms + 2 * self.redis_timeout_ms
        if longest_ms > self.liveness_max_age_s * 1000:
            raise ValueError(
                f"ADAPTD_LIVENESS_MAX_AGE_S = {self.liveness_max_age_s:g}: must be at least "
                f"{longest_ms / 1000:g}, which is {PUBLISH_BUDGET_MS / 1000:g} s of publishing, "
                "ADAPTD_KAFKA_DELIVERY_TIMEOUT_MS, three times ADAPTD_KAFKA_TIMEOUT_MS and twice "
                "ADAPTD_REDIS_TIMEOUT_MS, so that a service that is away does not get the worker "
                "killed"
            )
        return self

    def _require_credentials(self) -> None:
        mechanism, provider = self.kafka_sasl_mechanism, self.kafka_oauth_token_provider
        if not self.kafka_security_protocol.startswith("SASL"):
            return
        needed: tuple[str, ...] = ("KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD")
        given: tuple[object, ...] = (self.kafka_sasl_username, self.kafka_sasl_password)
        if mechanism == "OAUTHBEARER":
            needed, given = ("KAFKA_OAUTH_TOKEN_PROVIDER",), (provider,)
        if None in (mechanism, *given):
            names = ["KAFKA_SASL_MECHANISM", *needed]
            shown = ", ".join(f"{PREFIX}{name}" for name in names[:-1])
            raise ValueError(
                f"ADAPTD_KAFKA_SECURITY_PROTOCOL = {self.kafka_security_protocol!r}: needs "
                f"{shown} and {PREFIX}{names[-1]}"
            )

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        """Kafka takes two names for the same that differ only in dots and underscores."""
        seen: dict[str, str] = {}
        for name in TOPIC_SETTINGS:
            topic = getattr(self, name)
            other = seen.setdefault(topic.replace(".", "_"), name)
            if other != name:
                raise ValueError(
                    f"{PREFIX}{name.upper()} = {topic!r}: must be another topic than "
                    f"{PREFIX}{other.upper()} ({getattr(self, other)!r})"
                )
        return self

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        least_ms = self.kafka_timeout_ms + PRODUCER_LINGER_MS
        if self.kafka_delivery_timeout_ms < least_ms:
            raise ValueError(
                f"ADAPTD_KAFKA_DELIVERY_TIMEOUT_MS = {self.kafka_delivery_timeout_ms}: must be at "
                f"least {least_ms}, which is ADAPTD_KAFKA_TIMEOUT_MS and the {PRODUCER_LINGER_MS} "
                "ms for which a producer gathers records"
            )
        if self.kafka_max_poll_interval_ms < self.kafka_session_timeout_ms:
            raise ValueError(
                f"ADAPTD_KAFKA_MAX_POLL_INTERVAL_MS = {self.kafka_max_poll_interval_ms}: must be "
                f"at least ADAPTD_KAFKA_SESSION_TIMEOUT_MS ({self.kafka_session_timeout_ms})"
            )
        waits_s = (self.publish_interval_ms + self.adapt_latest_ms) / 1000
        if self.window_ttl_s and self.window_ttl_s < waits_s:
            raise ValueError(
                f"ADAPTD_WINDOW_TTL_S = {self.window_ttl_s}: must be at least {waits_s:g}, which "
                "is ADAPTD_PUBLISH_INTERVAL_MS and ADAPTD_ADAPT_LATEST_MS together, or windows "
                "expire before their mappings are published"
            )
        return self

    @model_validator(mode="after")
    def _files_are_used(self) -> Self:
        """Whoever names an authority or a certificate expects a connection by TLS."""
        for name in ("kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile"):
            if getattr(self, name) is not None and "SSL" not in self.kafka_security_protocol:
                raise ValueError(
                    f"{PREFIX}{name.upper()} = '{getattr(self, name)}': is not used with "
                    f"ADAPTD_KAFKA_SECURITY_PROTOCOL = {self.kafka_security_protocol!r}"
                )
        if self.kafka_ssl_keyfile and not self.kafka_ssl_certfile:
            raise ValueError(
                f"ADAPTD_KAFKA_SSL_KEYFILE = '{self.kafka_ssl_keyfile}': needs "
                "ADAPTD_KAFKA_SSL_CERTFILE, the certificate that it belongs to"
            )
        return self


def load_settings(
    config_file: Path | None, environment: Mapping[str, str] = os.environ
) -> Settings:
    """Reads and returns the effective settings. Raises Misconfigured, whose message is one line."""
    named = environment.get(CONFIG_FILE_VARIABLE)
    path = config_file or (Path(named) if named else None)
    _refuse_unknown_variables(environment)
    given = (_read(path) if path else {}) | _from_environment(environment)
    try:
        return Settings.model_validate(given)
    except ValidationError as e:
        raise Misconfigured(_one_line(e, given)) from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the settings that the environment gives; an empty variable counts as unset."""
    upper = {variable.upper(): value for variable, value in environment.items()}
    named = {name: upper.get(PREFIX + name.upper()) for name in Settings.model_fields}
    given = {name: value for name, value in named.items() if value}
    for name, value in given.items():
        if not _is_utf8(value):
            raise Misconfigured(f"{PREFIX}{name.upper()}: its value is not UTF-8")
    return given


def _is_utf8(value: str) -> bool:
    """Whether no byte of it had to be smuggled in as a surrogate."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as e:
        raise Misconfigured(f"config file {path}: {e}") from e
    except Exception as e:  # tomllib also raises RecursionError, and what int and datetime raise
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
    if first["type"] == "string_pattern_mismatch":
        message = IN_WORDS[name]
    value = "(hidden)" if is_secret(name) else _shown(given.get(name))
    return f"{PREFIX}{name.upper()} = {value}: {message}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def is_secret(name: str) -> bool:
    """Returns whether the value of a setting must never be shown."""
    field = Settings.model_fields.get(name)
    return field is not None and "SecretStr" in str(field.annotation)


def shown_settings(settings: Settings) -> dict[str, Any]:
    """Returns the effective settings as plain values, with secrets masked."""
    return settings.model_dump(mode="json")
