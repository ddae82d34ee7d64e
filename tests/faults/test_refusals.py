"""Each wrong credential and each missing right has its own words, and exit code 2 at the start."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from daemon.adapters.kafka_python.aside import KafkaPythonReader
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.adapters.redis.info import describe
from daemon.adapters.redis.windows import least_redis_acl
from daemon.config import Settings
from daemon.errors import Misconfigured, Refused
from daemon.local.server import Server
from daemon.local.valkey import start_valkey
from tests.contracts.conftest import NO_LIBRDKAFKA
from tests.faults.lab import Installation, Raw, Spring, Worker, assert_windows, eventually
from tests.faults.secured import NEEDS_OPENSSL, PASSWORD, USER, SecuredKafka, secured_kafka

pytestmark = [pytest.mark.services, NEEDS_OPENSSL]
CLIENTS = ["kafka-python", pytest.param("librdkafka", marks=NO_LIBRDKAFKA)]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with secured_kafka(tmp_path_factory.mktemp("secured")) as made:
        yield made


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    with start_valkey() as server:
        yield server


def scram(kafka: SecuredKafka, **changes: Any) -> dict[str, Any]:
    return {
        "kafka_bootstrap_servers": kafka.scram,
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "SCRAM-SHA-512",
        "kafka_sasl_username": USER,
        "kafka_sasl_password": PASSWORD,
        "kafka_ssl_cafile": kafka.certificates.ca,
        "kafka_timeout_ms": 2_000,
    } | changes


def tls(kafka: SecuredKafka, **changes: Any) -> dict[str, Any]:
    return {
        "kafka_bootstrap_servers": kafka.tls,
        "kafka_security_protocol": "SSL",
        "kafka_ssl_cafile": kafka.certificates.ca,
        "kafka_timeout_ms": 2_000,
    } | changes


TOKENS = "tests.faults.secured"


def settings_of(case: str, kafka: SecuredKafka) -> dict[str, Any]:
    """The settings of a worker that is configured wrongly in one way."""
    pem, quick = kafka.certificates, {"kafka_timeout_ms": 2_000}
    bearer = {"kafka_sasl_mechanism": "OAUTHBEARER"}
    by_name = kafka.scram.replace("127.0.0.1", "localhost")
    made: dict[str, dict[str, Any]] = {
        "wrong password": scram(kafka, kafka_sasl_password="wrong"),
        "unknown user": scram(kafka, kafka_sasl_username="nobody"),
        "unknown mechanism": scram(kafka, kafka_sasl_mechanism="PLAIN"),
        "wrong CA": scram(kafka, kafka_ssl_cafile=pem.other_ca),
        "system's CAs": scram(kafka, kafka_ssl_cafile=None),
        "CA that is none": scram(kafka, kafka_ssl_cafile=Path(__file__)),
        "other host": scram(kafka, kafka_bootstrap_servers=by_name),
        "no client certificate": tls(kafka),
        "client certificate of another CA": tls(kafka, kafka_ssl_certfile=pem.foreign_client),
        "plaintext to TLS": quick | {"kafka_bootstrap_servers": kafka.scram},
        "TLS to plaintext": tls(kafka, kafka_bootstrap_servers=kafka.plain),
        "plaintext to SASL": quick | {"kafka_bootstrap_servers": kafka.sasl},
        "SASL to plaintext": scram(
            kafka,
            kafka_bootstrap_servers=kafka.plain,
            kafka_security_protocol="SASL_PLAINTEXT",
            kafka_ssl_cafile=None,
        ),
        "TLS to SASL": tls(kafka, kafka_bootstrap_servers=kafka.scram),
        "expired token": scram(
            kafka, **bearer, kafka_oauth_token_provider=f"{TOKENS}:expired_token"
        ),
        "no token provider": scram(
            kafka, **bearer, kafka_oauth_token_provider=f"{TOKENS}:missing_provider"
        ),
    }
    return made[case]


WORDS = {
    "wrong password": "ADAPTD_KAFKA_SASL_PASSWORD",
    "unknown user": "ADAPTD_KAFKA_SASL_USERNAME",
    "unknown mechanism": "ADAPTD_KAFKA_SASL_MECHANISM = 'PLAIN'",
    "wrong CA": "signed by no authority in ADAPTD_KAFKA_SSL_CAFILE",
    "system's CAs": "signed by no authority in ADAPTD_KAFKA_SSL_CAFILE",
    "CA that is none": "ADAPTD_KAFKA_SSL_CAFILE = ",
    "other host": "for other hosts than those in ADAPTD_KAFKA_BOOTSTRAP_SERVERS",
    "no client certificate": "ask for a client certificate",
    "client certificate of another CA": "refuse the client certificate, ADAPTD_KAFKA_SSL_CERTFILE",
    "plaintext to TLS": "speaks TLS: ADAPTD_KAFKA_SECURITY_PROTOCOL",
    "TLS to plaintext": "does not speak TLS: ADAPTD_KAFKA_SECURITY_PROTOCOL",
    "plaintext to SASL": "asks for credentials: ADAPTD_KAFKA_SECURITY_PROTOCOL",
    "SASL to plaintext": "asks for no credentials: ADAPTD_KAFKA_SECURITY_PROTOCOL",
    "TLS to SASL": "asks for credentials: ADAPTD_KAFKA_SECURITY_PROTOCOL",
    "expired token": "ADAPTD_KAFKA_OAUTH_TOKEN_PROVIDER",
    "no token provider": "ADAPTD_KAFKA_OAUTH_TOKEN_PROVIDER = ",
}


@pytest.mark.parametrize("case", WORDS)
def test_what_keeps_a_worker_from_kafka_is_said(kafka: SecuredKafka, case: str) -> None:
    """The start asks for the topics first, with kafka-python, whatever client reads then."""
    with pytest.raises(Misconfigured) as refused:
        KafkaTopics(Settings(**settings_of(case, kafka)))
    assert WORDS[case] in str(refused.value)
    assert "\n" not in str(refused.value)


TOLD_BY_LIBRDKAFKA = {
    "wrong password": "ADAPTD_KAFKA_SASL_PASSWORD",
    "unknown mechanism": "ADAPTD_KAFKA_SASL_MECHANISM",
    "wrong CA": "ADAPTD_KAFKA_SSL_CAFILE",
    "other host": "ADAPTD_KAFKA_BOOTSTRAP_SERVERS",
    "no client certificate": "ask for a client certificate",
    "client certificate of another CA": "ask for a client certificate that they trust",
    "TLS to plaintext": "does not speak TLS",
    "SASL to plaintext": "asks for no credentials",
    "expired token": "ADAPTD_KAFKA_OAUTH_TOKEN_PROVIDER",
}


@NO_LIBRDKAFKA
@pytest.mark.parametrize("case", TOLD_BY_LIBRDKAFKA)
def test_librdkafka_says_it_too_while_a_worker_runs(kafka: SecuredKafka, case: str) -> None:
    from daemon.adapters.librdkafka.source import LibrdkafkaEventSource

    source = LibrdkafkaEventSource(
        Settings(**settings_of(case, kafka)), "client", KafkaPythonReader
    )

    def poll_for_10_s() -> None:
        for _ in range(100):
            source.poll(0.1, 10)

    try:
        with pytest.raises(Refused) as refused:
            poll_for_10_s()
    finally:
        source.close()
    assert TOLD_BY_LIBRDKAFKA[case] in str(refused.value)


@pytest.fixture
def lab(kafka: SecuredKafka, valkey: Server, theta: Path, tmp_path: Path) -> Iterator[Installation]:
    """Topics made by an administrator; `overrides` are what the worker is told."""
    url = f"redis://{valkey.address}/0"
    made = Installation(kafka.plain, url, theta, tmp_path, {}, partitions=2)
    names = made.settings
    made.make_topic_of_one(names.kafka_meta_inits_topic)
    yield made
    kafka.deny_all()
    made.close()


def grant(kafka: SecuredKafka, lab: Installation, without: str = "") -> None:
    """Gives the worker the least rights that the documentation names, but for one."""
    names = lab.settings
    for kind, name, right in (
        ("topic", names.kafka_events_topic, "READ"),
        ("topic", names.kafka_mappings_topic, "WRITE"),
        ("topic", names.kafka_mappings_topic, "DESCRIBE_CONFIGS"),
        ("topic", names.kafka_dead_letters_topic, "WRITE"),
        ("topic", names.kafka_meta_inits_topic, "READ"),
        ("topic", names.kafka_meta_inits_topic, "DESCRIBE_CONFIGS"),
        ("group", names.kafka_group_id, "READ"),
    ):
        if f"{right} {name.removeprefix(lab.name)}" != without:
            kafka.allow(kind, name, right)


def adaptd(command: str, lab: Installation, told: dict[str, Any]) -> tuple[int, str]:
    """Runs a command that is to end by itself. Returns its exit code and all it said."""
    more = {f"ADAPTD_{name.upper()}": str(value) for name, value in told.items()}
    ended = subprocess.run(
        [sys.executable, "-m", "daemon", *command.split()],
        env=lab.environment | more,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_a_refused_worker_ends_with_exit_code_2_and_one_line(
    kafka: SecuredKafka, lab: Installation
) -> None:
    code, said = adaptd("run", lab, settings_of("wrong password", kafka))
    assert code == 2
    assert "ADAPTD_KAFKA_SASL_PASSWORD" in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("without", "words"),
    [
        ("READ -events", "is hidden from this user, who needs the right READ"),
        ("READ ", "lacks the right READ"),
        (
            "READ -meta-inits",
            "hidden from this user, who needs the right DESCRIBE_CONFIGS and READ",
        ),
        (
            "WRITE -mappings",
            "hidden from this user, who needs the right DESCRIBE_CONFIGS and WRITE",
        ),
        ("WRITE -dlq", "is hidden from this user, who needs the right WRITE"),
        ("DESCRIBE_CONFIGS -mappings", "lacks the right DESCRIBE_CONFIGS"),
        ("DESCRIBE_CONFIGS -meta-inits", "lacks the right DESCRIBE_CONFIGS"),
    ],
)
def test_each_missing_right_is_named(
    kafka: SecuredKafka, lab: Installation, without: str, words: str
) -> None:
    from daemon.worker.wiring import load_engine, require_topics

    grant(kafka, lab, without)
    told = lab.settings.model_copy(update=Settings(**scram(kafka)).model_dump(exclude_unset=True))
    with pytest.raises(Misconfigured) as refused:
        require_topics(told, load_engine(told))
    assert words in str(refused.value)
    assert f"'{lab.name}{without.partition(' ')[2]}'" in str(refused.value)


def test_check_names_every_missing_right_and_prints_the_least(
    kafka: SecuredKafka, lab: Installation
) -> None:
    code, said = adaptd("check", lab, scram(kafka))
    assert code == 2
    for name in ("events", "mappings", "dlq", "meta-inits"):
        assert f"topic '{lab.name}-{name}' is hidden from this user" in said
    assert f"group '{lab.name}': this user lacks the right READ" in said
    assert f"topic {lab.name}-mappings: DESCRIBE_CONFIGS, WRITE" in said
    assert f"~{lab.name}:* +evalsha" in said


@pytest.mark.parametrize(
    "command",
    [
        "record {out}",
        "offsets show",
        "offsets move --to earliest --yes",
        "meta-init list",
        "meta-init publish {theta}",
    ],
)
def test_a_topic_that_a_command_may_not_see_is_not_called_missing_or_empty(
    kafka: SecuredKafka, lab: Installation, tmp_path: Path, theta: Path, command: str
) -> None:
    """Kafka hides a topic from those who have no right on it. The group alone may be read."""
    kafka.allow("group", lab.settings.kafka_group_id, "READ")
    words = command.format(out=tmp_path / "out.jsonl", theta=theta)
    code, said = adaptd(words, lab, scram(kafka))
    assert code == 2, said
    assert "lacks a right" in said
    assert "moved" not in said


def test_who_may_not_create_topics_may_publish_to_one_that_is_there(
    kafka: SecuredKafka, lab: Installation, theta: Path
) -> None:
    kafka.allow("topic", lab.settings.kafka_meta_inits_topic, "READ", "WRITE")
    code, said = adaptd(f"meta-init publish {theta}", lab, scram(kafka))
    assert code == 0, said


@pytest.mark.parametrize("client", CLIENTS)
def test_the_least_rights_suffice_and_their_loss_is_waited_out(
    kafka: SecuredKafka, valkey: Server, lab: Installation, client: str
) -> None:
    """Exactly what `adaptd check` prints, in Kafka and in Redis, for a worker that adapts, writes
    a dead letter and restores a window; then rights are taken away in both, and given back."""
    spring = Spring()
    grant(kafka, lab)
    with redis.Redis.from_url(lab.redis_url) as admin:
        rules = least_redis_acl(lab.name).split()
        admin.execute_command("ACL", "SETUSER", lab.name, "reset", "on", ">pw", *rules)
    told = scram(kafka) | {
        "redis_url": f"redis://{lab.name}:pw@{valkey.address}/0",
        "kafka_client": client,
    }
    code, said = adaptd("check", lab, told)
    assert code == 0, said
    with lab.worker(**told) as worker:
        worker.wait_until_ready(2)
        lab.send([spring.event(f"s{i}") for _ in range(6) for i in range(4)])
        lab.wait_until_done()
        with redis.Redis.from_url(lab.redis_url) as admin:
            for key in admin.scan_iter(match=f"{lab.name}:*:w:s1"):
                admin.delete(key)
        lab.send([*(spring.event(f"s{i}") for i in range(4)), Raw(b"s0", b"no event")])
        lab.wait_until_done()
        assert len(lab.records(lab.settings.kafka_dead_letters_topic)) == 1
        kafka.deny_all()
        eventually(lambda: _says(worker, "lacks a right"), 40, worker.tail)
        assert worker.get("/livez")[0] == 200
        assert worker.process.poll() is None
        grant(kafka, lab)
        worker.wait_until_ready(2)
        with redis.Redis.from_url(lab.redis_url) as admin:
            admin.execute_command("ACL", "SETUSER", lab.name, "-set")
            eventually(lambda: _says(worker, "lacks a right"), 20, worker.tail)
            admin.execute_command("ACL", "SETUSER", lab.name, "+set")
        worker.wait_until_ready(2)
        lab.send([spring.event(f"s{i}") for i in range(4)])
        lab.wait_until_done()
        assert worker.process.poll() is None
    assert_windows(lab.windows(), lab.truth)


def _says(worker: Worker, words: str) -> bool:
    code, why = worker.get("/readyz")
    return code == 503 and words in why


@pytest.mark.parametrize("client", CLIENTS)
def test_tokens_take_the_place_of_a_password(
    kafka: SecuredKafka, lab: Installation, client: str
) -> None:
    spring = Spring()
    grant(kafka, lab)
    told = scram(kafka, kafka_sasl_mechanism="OAUTHBEARER", kafka_client=client)
    del told["kafka_sasl_username"], told["kafka_sasl_password"]
    told["kafka_oauth_token_provider"] = f"{TOKENS}:unsigned_token"
    with lab.worker(**told) as worker:
        worker.wait_until_ready(2)
        lab.send([spring.event("s") for _ in range(6)])
        lab.wait_until_done()
    assert_windows(lab.windows(), lab.truth)


# ---- Redis


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://nobody:wrong@{}/0", "user or password in ADAPTD_REDIS_URL"),
        ("redis://{}/99", "database that the server does not have"),
        ("rediss://{}/0", "does not speak TLS"),
    ],
)
def test_what_keeps_a_worker_from_redis_is_said(valkey: Server, url: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        describe(url.format(valkey.address), 2.0)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "command",
    ["evalsha", "get", "set", "del", "expire", "xadd", "xlen", "xtrim", "xrevrange", "scan"],
)
def test_each_command_that_redis_forbids_is_named_by_check(
    valkey: Server, theta: Path, command: str
) -> None:
    from daemon.worker.check import _windows
    from daemon.worker.wiring import load_engine

    with redis.Redis.from_url(f"redis://{valkey.address}/0") as admin:
        rules = [rule for rule in least_redis_acl("adaptd").split() if rule != f"+{command}"]
        admin.execute_command("ACL", "SETUSER", "weak", "reset", "on", ">pw", *rules)
        admin.script_flush()
    settings = Settings(redis_url=f"redis://weak:pw@{valkey.address}/0", meta_init=theta)
    started = time.monotonic()
    with pytest.raises(Refused) as refused:
        list(_windows(settings, load_engine(settings)))
    assert "lacks a right" in str(refused.value)
    assert f"'{command}'" in str(refused.value)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("url", ["redis://h:1/0?max_connections=X", "redis://h:1/0?protocol=9"])
def test_a_url_that_cannot_be_read_is_said(url: str) -> None:
    with pytest.raises(Misconfigured, match="ADAPTD_REDIS_URL"):
        describe(url, 1.0)


def test_a_port_that_speaks_tls_is_said(kafka: SecuredKafka) -> None:
    """Any TLS server will do."""
    with pytest.raises(Refused, match="must be rediss://"):
        describe(f"redis://{kafka.scram}/0", 2.0)


def test_a_password_that_is_missing_is_said(valkey: Server) -> None:
    with redis.Redis.from_url(f"redis://{valkey.address}/0") as admin:
        admin.config_set("requirepass", "secret")
        try:
            with pytest.raises(Refused, match="user or password in ADAPTD_REDIS_URL"):
                describe(f"redis://{valkey.address}/0", 2.0)
        finally:
            admin.config_set("requirepass", "")
