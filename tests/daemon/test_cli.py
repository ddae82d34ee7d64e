"""The command line: what it says, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from daemon.__main__ import MISCONFIGURED, app
from daemon.config import Settings
from daemon.errors import Misconfigured


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTD_")}
    return subprocess.run(
        [sys.executable, "-m", "daemon", *arguments],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def names(command: typer.Typer) -> set[str]:
    commands = {c.name or c.callback.__name__ for c in command.registered_commands if c.callback}
    return commands | {group.name for group in command.registered_groups if group.name}


def test_the_help_names_every_command_with_a_sentence() -> None:
    ended = run("--help")
    assert ended.returncode == 0
    assert {"run", "check", "demo", "up", "topics"} <= names(app)
    for name in names(app):
        assert any(name in line.split() for line in ended.stdout.splitlines())


@pytest.mark.parametrize("command", sorted(names(app)))
def test_every_command_has_a_help_text(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.split()) > 8


def test_help_texts_keep_their_brackets() -> None:
    """Rich would take the name of an extra for a style, and leave it out."""
    assert "'.[local]'" in CliRunner().invoke(app, ["up", "--help"]).output


def module(*arguments: str, **environment: str) -> tuple[int, str]:
    """`python -m daemon`: its exit code and stdout."""
    ended = run(*arguments, **environment)
    return ended.returncode, ended.stdout


def script(*arguments: str, **environment: str) -> tuple[int, str]:
    """`adaptd`: its exit code and stdout."""
    result = CliRunner().invoke(app, arguments, env=environment)
    return result.exit_code, result.stdout


@pytest.mark.parametrize("command", [[], ["run"]])
@pytest.mark.parametrize("program", [module, script])
def test_the_effective_settings_are_printed_as_json_without_secrets(
    program: Callable[..., tuple[int, str]], command: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "adaptd.toml"
    file.write_text("max_batch = 7\n")
    options = ["--print-config", "--config", str(file)]
    code, shown = program(*command, *options, ADAPTD_REDIS_URL="redis://:hunter2@h")
    assert code == 0
    printed = json.loads(shown)
    assert printed.keys() == Settings.model_fields.keys()
    assert printed["max_batch"] == 7
    assert "hunter2" not in shown


def test_a_config_file_alone_runs_the_daemon_with_it(tmp_path: Path) -> None:
    file = tmp_path / "adaptd.toml"
    file.write_text("max_batch = 'none'\n")
    ended = run("--config", str(file))
    assert ended.returncode == MISCONFIGURED
    assert ended.stderr.startswith("adaptd: ADAPTD_MAX_BATCH = 'none': ")
    with pytest.raises(Misconfigured, match="ADAPTD_MAX_BATCH"):
        CliRunner().invoke(app, ["--config", str(file)], catch_exceptions=False)


@pytest.mark.parametrize("program", [module, script])
def test_without_a_command_the_help_is_printed_and_nothing_is_run(
    program: Callable[..., tuple[int, str]],
) -> None:
    code, said = program()
    assert code == 0
    assert said.strip() == program("--help")[1].strip() != ""


@pytest.mark.parametrize("program", [module, script])
def test_the_version_is_that_of_the_package(program: Callable[..., tuple[int, str]]) -> None:
    assert program("--version") == (0, f"adaptd {version('adaptd')}\n")


def test_options_of_run_before_another_command_are_refused() -> None:
    assert script("--print-config", "check")[0] == 2


@pytest.mark.parametrize("command", [["run"], ["check"], ["topics", "create"]])
def test_a_bad_setting_stops_every_command_with_one_line_and_exit_2(command: list[str]) -> None:
    ended = run(*command, ADAPTD_MAX_BATCH="none")
    assert ended.returncode == MISCONFIGURED == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("adaptd: ADAPTD_MAX_BATCH = 'none': ")


def test_an_unknown_setting_stops_the_start_with_exit_2() -> None:
    ended = run("run", ADAPTD_MAX_BACTH="3")
    assert ended.returncode == MISCONFIGURED
    assert ended.stderr.startswith("adaptd: unknown setting ADAPTD_MAX_BACTH")


def test_a_theta_that_is_not_there_stops_the_start_with_exit_2(tmp_path: Path) -> None:
    ended = run("run", ADAPTD_META_INIT=str(tmp_path / "none.safetensors"), ADAPTD_HTTP_PORT="0")
    assert ended.returncode == MISCONFIGURED
    assert "none.safetensors" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_unknown_command_is_exit_2() -> None:
    assert run("fly").returncode == 2
