"""Settings: one line for whoever got one wrong, and no secret in any line."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from daemon.config import PREFIX, TOPIC_SETTINGS, Settings, is_secret, load_settings, shown_settings
from daemon.errors import Misconfigured

SECRET = "hunter2"


def refused(environment: dict[str, str], file: Path | None = None) -> str:
    with pytest.raises(Misconfigured) as refusal:
        load_settings(file, environment)
    line = str(refusal.value)
    assert "\n" not in line
    return line


def toml(folder: Path, text: str) -> Path:
    path = folder / "adaptd.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_is_for_and_has_a_default(name: str) -> None:
    field = Settings.model_fields[name]
    assert field.description, f"{name} has no docstring"
    assert field.description.strip().endswith(".")
    assert field.default is not PydanticUndefined


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_number_has_a_range(name: str) -> None:
    schema = Settings.model_json_schema()["properties"][name]
    for kind in schema.get("anyOf", [schema]):
        if kind.get("type") in ("integer", "number"):
            assert {"minimum", "maximum"} <= kind.keys()


def test_without_anything_set_the_defaults_hold() -> None:
    settings = load_settings(None, {})
    assert settings.kafka_bootstrap_servers == "127.0.0.1:9092"
    assert settings.min_support <= settings.support_size
    assert settings == Settings()


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    path = toml(tmp_path, "max_batch = 7\nmax_wait_ms = 8\n")
    settings = load_settings(path, {"ADAPTD_MAX_BATCH": "9", "UNRELATED": "x"})
    assert (settings.max_batch, settings.max_wait_ms, settings.support_size) == (9, 8, 32)


def test_the_file_can_be_named_by_a_variable_and_an_option_wins(tmp_path: Path) -> None:
    named, given = tmp_path / "named.toml", tmp_path / "given.toml"
    named.write_text("max_batch = 7\n")
    given.write_text("max_batch = 8\n")
    environment = {"ADAPTD_CONFIG_FILE": str(named)}
    assert load_settings(None, environment).max_batch == 7
    assert load_settings(given, environment).max_batch == 8


def test_names_of_variables_may_be_small_and_an_empty_one_is_unset() -> None:
    assert load_settings(None, {"adaptd_max_batch": "5"}).max_batch == 5
    assert load_settings(None, {"ADAPTD_MAX_BATCH": ""}).max_batch == Settings().max_batch


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("MAX_BATCH", "0", "greater than or equal to 1"),
        ("MAX_BATCH", "65537", "less than or equal to 65536"),
        ("MAX_BATCH", "many", "valid integer"),
        ("MAX_BATCH", "1.5", "valid integer"),
        ("KAFKA_SESSION_TIMEOUT_MS", "5999", "6000"),
        ("LIVENESS_MAX_AGE_S", "nan", "less than or equal to 3600"),
        ("REBUILD_WINDOWS", "perhaps", "boolean"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("SOURCE_MODALITY", "smell", "'vector', 'image', 'text', 'audio' or 'video'"),
        ("KAFKA_EVENTS_TOPIC", "a b", "1 to 249 letters"),
        ("DEVICE", "tpu", "auto, cpu, cuda"),
        ("KAFKA_OFFSET_RESET", "middle", "'earliest' or 'latest'"),
    ],
)
def test_a_bad_value_is_one_line_with_name_value_and_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    line = refused({PREFIX + name: value})
    assert line.startswith(f"{PREFIX}{name} = {value!r}: ")
    assert allowed in line


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        (
            {"ADAPTD_MIN_SUPPORT": "9", "ADAPTD_SUPPORT_SIZE": "8"},
            "ADAPTD_MIN_SUPPORT = 9: must be at most ADAPTD_SUPPORT_SIZE (8)",
        ),
        (
            {"ADAPTD_KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "ADAPTD_KAFKA_SASL_USERNAME": "u"},
            "ADAPTD_KAFKA_SECURITY_PROTOCOL = 'SASL_SSL': needs ADAPTD_KAFKA_SASL_MECHANISM",
        ),
        (
            {"ADAPTD_KAFKA_TIMEOUT_MS": "30000"},
            "ADAPTD_LIVENESS_MAX_AGE_S = 60: must be at least 115, which is",
        ),
        (
            {"ADAPTD_KAFKA_DELIVERY_TIMEOUT_MS": "5004"},
            "ADAPTD_KAFKA_DELIVERY_TIMEOUT_MS = 5004: must be at least 5005, which is "
            "ADAPTD_KAFKA_TIMEOUT_MS and",
        ),
        (
            {
                "ADAPTD_KAFKA_MAX_POLL_INTERVAL_MS": "10000",
                "ADAPTD_KAFKA_SESSION_TIMEOUT_MS": "10001",
            },
            "ADAPTD_KAFKA_MAX_POLL_INTERVAL_MS = 10000: must be at least "
            "ADAPTD_KAFKA_SESSION_TIMEOUT_MS (10001)",
        ),
        (
            {"ADAPTD_WINDOW_TTL_S": "60", "ADAPTD_PUBLISH_INTERVAL_MS": "60000"},
            "ADAPTD_WINDOW_TTL_S = 60: must be at least 61, which is ADAPTD_PUBLISH_INTERVAL_MS",
        ),
        (
            {"ADAPTD_KAFKA_SSL_CAFILE": __file__},
            f"ADAPTD_KAFKA_SSL_CAFILE = '{__file__}': is not used with "
            "ADAPTD_KAFKA_SECURITY_PROTOCOL = 'PLAINTEXT'",
        ),
        (
            {"ADAPTD_KAFKA_SSL_KEYFILE": __file__, "ADAPTD_KAFKA_SECURITY_PROTOCOL": "SSL"},
            f"ADAPTD_KAFKA_SSL_KEYFILE = '{__file__}': needs ADAPTD_KAFKA_SSL_CERTFILE",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_named(environment: dict[str, str], line: str) -> None:
    assert refused(environment).startswith(line)


@pytest.mark.parametrize(("one", "other"), list(combinations(TOPIC_SETTINGS, 2)))
@pytest.mark.parametrize("names", [("x.y", "x.y"), ("x.y", "x_y")])
def test_no_two_topics_are_the_same(one: str, other: str, names: tuple[str, str]) -> None:
    """Kafka makes one name of dots and underscores in its metrics, and refuses the second topic."""
    line = refused(
        {PREFIX + name.upper(): topic for name, topic in zip((one, other), names, strict=True)}
    )
    assert line == (
        f"{PREFIX}{other.upper()} = {names[1]!r}: must be another topic than "
        f"{PREFIX}{one.upper()} ({names[0]!r})"
    )


def test_a_topic_may_not_have_the_default_name_of_another() -> None:
    assert "another topic" in refused({"ADAPTD_KAFKA_EVENTS_TOPIC": "paired-events-dlq"})


@pytest.mark.parametrize("name", [".", "..", "__consumer_offsets", "__transaction_state"])
def test_kafkas_own_names_are_no_topics(name: str) -> None:
    assert "Kafka keeps for itself" in refused({"ADAPTD_KAFKA_EVENTS_TOPIC": name})


def test_a_value_that_is_not_utf8_is_refused_by_name() -> None:
    smuggled = b"caf\xe9".decode(errors="surrogateescape")
    line = refused({"ADAPTD_INSTANCE": smuggled})
    assert line == "ADAPTD_INSTANCE: its value is not UTF-8"


@pytest.mark.parametrize(
    "text",
    ["max_batch = " + "[" * 5_000 + "]" * 5_000, f"max_batch = {'9' * 5_000}", "x = 1979-99-99"],
)
def test_whatever_a_file_holds_it_is_one_line(text: str, tmp_path: Path) -> None:
    assert len(refused({}, toml(tmp_path, text))) < 500


def test_a_folder_is_no_config_file(tmp_path: Path) -> None:
    assert str(tmp_path) in refused({}, tmp_path)


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    assert len(refused({"ADAPTD_DEVICE": "x" * 100_000})) < 400


def test_an_unknown_variable_is_an_error_and_its_value_is_not_shown() -> None:
    line = refused({"ADAPTD_REDIS_ULR": f"redis://:{SECRET}@h"})
    assert "ADAPTD_REDIS_ULR" in line
    assert SECRET not in line


def test_an_unknown_name_in_the_file_is_an_error_and_its_value_is_not_shown(
    tmp_path: Path,
) -> None:
    line = refused({}, toml(tmp_path, f'redis_ulr = "redis://:{SECRET}@h"\n'))
    assert "redis_ulr" in line
    assert SECRET not in line


@pytest.mark.parametrize(
    ("text", "says"),
    [("max_batch = ", "is not TOML"), ("[kafka]\ngroup_id = 'x'\n", "unknown setting 'kafka'")],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, says: str) -> None:
    assert says in refused({}, toml(tmp_path, text))


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    assert "nowhere.toml" in refused({}, tmp_path / "nowhere.toml")
    assert str(tmp_path) in refused({}, tmp_path)
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    assert "x.toml" in refused({}, tmp_path / "x.toml")


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{SECRET}@host",
        f":{SECRET}@host",
        f"redis://:{SECRET}/more@host:6379",
        f"redis://:x#{SECRET}@host:port",
        f"redis://host:{SECRET}",
    ],
)
def test_a_bad_redis_url_is_named_and_its_password_is_not(url: str) -> None:
    line = refused({"ADAPTD_REDIS_URL": url})
    assert line.startswith("ADAPTD_REDIS_URL = (hidden): ")
    assert SECRET not in line
    assert "host" in line or "redis://" in line


def test_effective_settings_are_shown_with_secrets_masked() -> None:
    settings = load_settings(
        None,
        {
            "ADAPTD_REDIS_URL": f"rediss://:{SECRET}@h:6379/0",
            "ADAPTD_KAFKA_SASL_PASSWORD": SECRET,
            "ADAPTD_MAX_BATCH": "5",
        },
    )
    text = json.dumps(shown_settings(settings))
    assert SECRET not in text + repr(settings)
    assert json.loads(text)["max_batch"] == 5
    assert json.loads(text)["redis_url"] == json.loads(text)["kafka_sasl_password"] == "*" * 10
    assert json.loads(text).keys() == Settings.model_fields.keys()
    assert settings.redis_url.get_secret_value().endswith(f":{SECRET}@h:6379/0")


def test_which_settings_are_secret() -> None:
    secret = {name for name in Settings.model_fields if is_secret(name)}
    assert secret == {"redis_url", "kafka_sasl_password"}


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().max_batch = 3  # type: ignore[misc]
