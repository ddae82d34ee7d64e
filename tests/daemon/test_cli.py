"""The command line: what it says, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from daemon.__main__ import MISCONFIGURED, app
from daemon.config import Settings


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
    assert "'adaptd[" in CliRunner().invoke(app, ["up", "--help"]).output


def test_the_effective_settings_are_printed_as_json_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "adaptd.toml"
    file.write_text("max_batch = 7\n")
    ended = run(
        "run", "--print-config", "--config", str(file), ADAPTD_REDIS_URL="redis://:hunter2@h"
    )
    assert ended.returncode == 0
    printed = json.loads(ended.stdout)
    assert printed.keys() == Settings.model_fields.keys()
    assert printed["max_batch"] == 7
    assert "hunter2" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("command", [["run"], ["check"], ["topics", "create"], []])
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
