"""Whatever a command is given, it ends with a code and one line, never with a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from daemon.__main__ import FAILED, MISCONFIGURED, main
from daemon.adapters.redis.info import describe
from daemon.commands.outputs import require_writable
from daemon.config import load_settings
from daemon.errors import Misconfigured
from daemon.local.server import is_free
from daemon.worker.wiring import load_engine

README = str(Path(__file__).parents[2] / "README.md")
NOWHERE = {
    "ADAPTD_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "ADAPTD_KAFKA_TIMEOUT_MS": "500",
    "ADAPTD_REDIS_URL": "redis://127.0.0.1:1/0",
    "ADAPTD_REDIS_TIMEOUT_MS": "300",
    "ADAPTD_HTTP_PORT": "0",
}
DIMS = ("--source-dim", "2", "--target-dim", "2")
TRAINED = ("meta-train", "x.jsonl", "--out", "o")

BAD_ARGUMENTS: list[Sequence[str]] = [
    ("check", "--config", "."),
    ("check", "--config", "/nope"),
    ("check", "--config", "bytes.toml"),
    ("new-theta", "/nope/x", *DIMS),
    ("new-theta", ".", *DIMS),
    ("new-theta", "/dev/full", *DIMS),
    ("new-theta", "/proc/x", *DIMS),
    ("new-theta", "n" * 300, *DIMS),
    ("new-theta", "o", "--source-dim", "99999999", "--target-dim", "2"),
    ("new-theta", "o", *DIMS, "--seed", "-1"),
    ("new-theta", "o", *DIMS, "--generator", "x"),
    ("new-theta", "o", *DIMS, "--loss", "x"),
    ("record", "/nope/x.jsonl"),
    ("record", "."),
    ("record", "x.txt"),
    ("record", "x.jsonl", "--since", "yesterday"),
    ("meta-init", "publish", "/nope"),
    ("meta-init", "publish", "."),
    ("meta-init", "publish", README),
    ("meta-train", README, "--out", "o"),
    (*TRAINED, "--minutes", "inf"),
    ("plan", "--streams", "1", "--events-per-second", "inf"),
    ("plan", "--streams", "1", "--events-per-second", "1e308"),
    ("meta-train", "/nope.jsonl", "--out", "o"),
    ("meta-train", "x.jsonl", "--out", "/nope/o"),
    ("meta-train", "x.jsonl", "--out", "/"),
    (*TRAINED, "--report", "/nope/page.html"),
    (*TRAINED, "--recipe", README),
    (*TRAINED, "--recipe", "nested.toml"),
    (*TRAINED, "--recipe", "odd.toml"),
    (*TRAINED, "--source-encoder", README),
    ("evaluate", "/nope.jsonl"),
    ("evaluate", "x.jsonl", "--meta-init", README),
    ("evaluate", "--meta-init", "."),
    ("evaluate", "--quick", "--report", "/nope/page.html"),
    ("send",),
    ("send", "/nope.jsonl"),
    ("send", "odd.toml", "--dry-run"),
    ("send", ".", "--dry-run"),
    ("send", "empty.csv", "--dry-run"),
    ("send", "x.csv", "--dry-run"),
    ("send", "n" * 300, "--dry-run"),
    ("up", "--ports", "9092"),
    ("up", "--ports", "9092,9092"),
    ("up", "--ports", "9092,70000"),
    ("up", "--ports", "a,b"),
    ("up", "--data", "odd.toml"),
    ("up", "--data", "/proc/x"),
    ("up", "--data", "n" * 300),
    ("demo", "--kafka", "x"),
    ("demo", "--meta-init", "/nope"),
]
BAD_REDIS_URLS = [
    "redis://h/0?max_connections=X",
    "redis://h/0?foo=1",
    "redis://h/0?protocol=9",
    "redis://h/0?db=x",
    "redis://h/x",
    "redis://h/0?health_check_interval=x",
    "redis://h/0?socket_timeout=5",
    "redis://h/0?retry_on_error=x",
    "redis://h/0?decode_responses=yes",
    "redis://h/0?encoding=klingon",
    "redis://h/0?single_connection_client=yes",
    "rediss://h/0?ssl_cert_reqs=perhaps",
    "rediss://h/0?ssl_ca_certs=/nope",
    "rediss://h/0?ssl_min_version=x",
    "redis://[::1",
    "redis://h:x/0",
    "redis://h:99999/0",
    "redis://a..b:1",
    f"redis://{'a' * 300}:1",
    "unix://",
    "http://h",
]
BAD_SETTINGS = [
    {"ADAPTD_KAFKA_DEAD_LETTERS_TOPIC": "paired-events"},
    {"ADAPTD_KAFKA_DELIVERY_TIMEOUT_MS": "1000", "ADAPTD_KAFKA_TIMEOUT_MS": "5000"},
    {"ADAPTD_META_INIT": "."},
    {"ADAPTD_META_INIT": README},
    {"ADAPTD_META_INIT": "/nope"},
    {"ADAPTD_DEVICE": "cuda:7"},
    {"ADAPTD_WINDOW_SPILL_DIR": "/proc"},
    {"ADAPTD_WINDOW_SPILL_DIR": README},
    {"ADAPTD_CONFIG_FILE": "."},
    {"ADAPTD_CONFIG_FILE": "nested.toml"},
    {"ADAPTD_KAFKA_SSL_CAFILE": README},
    {"ADAPTD_INSTANCE": b"caf\xe9".decode(errors="surrogateescape")},
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of odd files to work in, and services that are not there."""
    (tmp_path / "x.jsonl").write_text('{"stream": "s"}\n')
    (tmp_path / "empty.csv").touch()
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\x00")
    (tmp_path / "nested.toml").write_text("x = " + "[" * 5_000 + "]" * 5_000)
    (tmp_path / "odd.toml").write_text("inner_loss = 5\nterms = 5\n")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ADAPTD_")]:
        monkeypatch.delenv(name)
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)


def ended(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS, ids=" ".join)
def test_bad_arguments_are_one_line_and_exit_2(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = ended(arguments, capsys)
    assert code == MISCONFIGURED
    if "Usage:" not in err:  # typer's own, over several lines
        *progress, line = err.splitlines()
        assert line.startswith("adaptd: ")
        assert len(line) < 1_000
        assert "Traceback" not in "".join(progress)


@pytest.mark.parametrize("url", BAD_REDIS_URLS, ids=lambda url: url[:40])
def test_a_url_that_redis_cannot_use_is_refused_before_it_connects(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"^ADAPTD_REDIS_URL = \(hidden\)") as refusal:
        describe(load_settings(None, {"ADAPTD_REDIS_URL": url}).redis_url.get_secret_value(), 0.1)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("settings", BAD_SETTINGS, ids=str)
def test_a_bad_setting_is_refused_by_the_check_of_settings_or_of_theta(
    settings: dict[str, str],
) -> None:
    with pytest.raises(Misconfigured, match=r"ADAPTD_|config file") as refusal:
        load_engine(load_settings(None, settings))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "address",
    [
        "kafka",
        "kafka:",
        ":9092",
        "kafka:99999",
        "kafka:0",
        "kafka:x",
        "http://k:9092",
        "a:1,,b:2",
        "a:1, b:2",
        "a:1,",
        "a:1\n",
    ],
)
@pytest.mark.parametrize("command", ["run", "check", "send"])
def test_a_malformed_broker_is_named_with_an_example(
    address: str, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTD_KAFKA_BOOTSTRAP_SERVERS", address)
    code, out, err = ended([command, "."] if command == "send" else [command], capsys)
    assert (code, out, err.count("\n")) == (MISCONFIGURED, "", 1)
    assert "is not host:port; expected brokers" in err
    assert "for example kafka-1:9092" in err


@pytest.mark.parametrize("setting", ["DEVICE=gpu", "REDIS_PREFIX=a b", "KAFKA_EVENTS_TOPIC=a/b"])
def test_a_pattern_is_told_in_words(
    setting: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _, value = setting.partition("=")
    monkeypatch.setenv(f"ADAPTD_{name}", value)
    code, _, err = ended(["run"], capsys)
    assert code == MISCONFIGURED
    assert err.startswith(f"adaptd: ADAPTD_{name} = {value!r}: expected ")


def test_an_address_that_nobody_gave_is_named_when_nothing_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ADAPTD_KAFKA_BOOTSTRAP_SERVERS", "ADAPTD_REDIS_URL"):
        monkeypatch.delenv(name)
    if not (is_free(9092) and is_free(6379)):
        pytest.skip("somebody listens on the default ports")
    with (tmp_path / "out").open("w") as file:
        code, _ = adaptd("check", stdout=file.fileno())
    out = (tmp_path / "out").read_text()
    assert code == MISCONFIGURED
    assert "set ADAPTD_KAFKA_BOOTSTRAP_SERVERS, or start a local Kafka" in out
    assert "this is the default address: set ADAPTD_REDIS_URL" in out


def test_a_secret_in_a_bad_url_is_not_shown() -> None:
    for url in (
        "redis://u:hunter2@h/0?foo=1",
        "redis://u:hunter2@h/0?db=x",
        "redis://:hunter2@a..b",
    ):
        with pytest.raises(Misconfigured) as refusal:
            describe(load_settings(None, {"ADAPTD_REDIS_URL": url}).redis_url.get_secret_value(), 1)
        assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("name", ["", "folder", "/nope/x", "file/x", "n" * 300, "zero\x00byte"])
def test_what_cannot_be_written_is_refused_before_the_work(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="cannot be written"):
        require_writable(None, tmp_path / name)
    require_writable(tmp_path / "file", tmp_path / "new")


def adaptd(*arguments: str, stdout: int | None, **environment: str) -> tuple[int, str]:
    """Runs the command line as a process; returns its code and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "daemon", *arguments],
        env=os.environ | environment | {"PYTHONPATH": str(Path(README).parent)},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_check_goes_on_after_each_fault_and_ends_with_2(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        code, err = adaptd(
            "check",
            stdout=out.fileno(),
            ADAPTD_META_INIT="/nope",
            ADAPTD_REDIS_URL="redis://127.0.0.1:1/0?max_connections=X",
            ADAPTD_KAFKA_BOOTSTRAP_SERVERS="a..b:9999",
        )
    told = (tmp_path / "out").read_text().splitlines()
    found = {line.split(":")[0].removeprefix("WRONG  ") for line in told if line[:5] == "WRONG"}
    assert (code, err) == (MISCONFIGURED, "")
    assert {"θ", "Kafka", "published θs", "Redis"} <= found


def test_a_full_stdout_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        code, err = adaptd("run", "--print-config", stdout=full.fileno())
    assert (code, err) == (FAILED, "adaptd: [Errno 28] No space left on device\n")


def test_a_stdout_that_is_gone_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code, err = adaptd("run", "--print-config", stdout=writing)
    os.close(writing)
    assert (code, err) == (FAILED, "")


def test_a_locale_without_theta_is_no_traceback() -> None:
    locale = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "ADAPTD_META_INIT": "/nope"}
    code, err = adaptd("check", stdout=subprocess.DEVNULL, **locale)
    assert (code, err) == (MISCONFIGURED, "")
