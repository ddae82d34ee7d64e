"""What a command must name that exists: options, targets, files, settings. Nothing is run."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import typer
import yaml

import benchmarks.__main__
from daemon.__main__ import app
from daemon.config import CONFIG_FILE_VARIABLE, PREFIX, Settings
from tests.documentation.blocks import ROOT

SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields} | {CONFIG_FILE_VARIABLE}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CPU_TORCH = ("torch", "--index-url", "https://download.pytorch.org/whl/cpu")
ASSIGNMENT = re.compile(r"[A-Z_]+=")
HARMLESS = {"cat", "grep", "curl", "."}
"""Commands whose words name nothing of ours."""


def check(words: list[str]) -> None:
    """Raises AssertionError or the parser's own error for a command that cannot work."""
    words = without_assignments(words)
    for prefix, checked in CHECKS.items():
        if words[: len(prefix)] == list(prefix):
            checked(words[len(prefix) :])
            return
    assert not words or words[0] in HARMLESS, f"no check knows the command {shlex.join(words)}"


def without_assignments(words: list[str]) -> list[str]:
    """Returns the command behind `export` and `NAME=value`; names of ours must be settings."""
    if words[:1] == ["export"]:
        words = words[1:]
    count = next((i for i, word in enumerate(words) if not ASSIGNMENT.match(word)), len(words))
    names = {word.split("=")[0] for word in words[:count]}
    assert {name for name in names if name.startswith(PREFIX)} <= SETTINGS, names
    return words[count:]


def of(application: typer.Typer) -> Callable[[list[str]], None]:
    """A check that the application's own parser takes the arguments."""

    def parse(words: list[str]) -> None:
        command, arguments = found(application, words)
        command.make_context(command.name, arguments)

    return parse


def found(application: typer.Typer, words: list[str]) -> tuple[Any, list[str]]:
    """Returns the innermost command that the words name, and the words behind it."""
    command: Any = typer.main.get_command(application)
    while hasattr(command, "commands"):
        assert words, f"{command.name} lacks a command"
        assert words[0] in command.commands, f"no command {words[0]} in {command.name}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets), words


def docker_compose(words: list[str]) -> None:
    option, file, what = words
    assert (option, what) == ("-f", "up"), words
    assert (ROOT / file).is_file(), f"no file {file}"


def apt_install(words: list[str]) -> None:
    assert words, "install what?"


def module(words: list[str]) -> None:
    assert find_spec(words[0]), f"no module {words[0]}"


def script(words: list[str]) -> None:
    assert (ROOT / words[0]).is_file(), f"no file {words[0]}"


def pip_install(words: list[str]) -> None:
    extras = set(PROJECT["optional-dependencies"])
    for word in words:
        if match := re.fullmatch(r"\.(?:\[([\w,]+)\])?", word):
            assert set((match[1] or "").split(",")) - {""} <= extras, word
        else:
            assert word in ("-e", *CPU_TORCH), word


def docker_build(words: list[str]) -> None:
    options = list(pairwise(words))
    files = [value for option, value in options if option == "-f"]
    declared = set(re.findall(r"^ARG (\w+)", (ROOT / files[0]).read_text(), re.MULTILINE))
    given = {value.split("=")[0] for option, value in options if option == "--build-arg"}
    assert given <= declared, given - declared


def kubectl(words: list[str]) -> None:
    if "--" in words:  # exec
        check(words[words.index("--") + 1 :])
    for option, value in pairwise(words):
        if option == "-k":
            assert (ROOT / value / "kustomization.yaml").is_file(), value
        elif option == "-f":
            assert (ROOT / value).is_file(), value
    base = (ROOT / "deploy" / "kubernetes" / "base.yaml").read_text()
    names = {(m["kind"], m["metadata"]["name"]) for m in yaml.safe_load_all(base) if m}
    for word in words:
        if word.startswith("deploy/") and "/" not in word.removeprefix("deploy/"):
            if not (ROOT / word).exists():
                assert ("Deployment", word.removeprefix("deploy/")) in names, word
        elif variable := re.match(r"--from-literal=(\w+)=", word):
            assert variable[1] in SETTINGS, word


def helm(words: list[str]) -> None:
    if words[0] in ("install", "upgrade"):
        assert (ROOT / words[2] / "Chart.yaml").is_file(), words[2]
    values = yaml.safe_load((ROOT / "deploy" / "chart" / "values.yaml").read_text())
    for option, value in pairwise(words):
        if option == "--set":
            place: Any = values
            for name in value.split("=")[0].split("."):
                known = SETTINGS if place is values["settings"] else place
                variable = PREFIX + name.upper() if place is values["settings"] else name
                assert variable in known, value
                place = place.get(name)


def torchrun(words: list[str]) -> None:
    at = words.index("--module")
    check(["python", "-m", *words[at + 1 :]])


CHECKS: dict[tuple[str, ...], Callable[[list[str]], None]] = {
    ("adaptd",): of(app),
    ("python", "-m", "daemon"): of(app),
    ("python", "-m", "benchmarks"): of(benchmarks.__main__.app),
    ("python", "-m"): module,
    ("python3", "-m"): module,
    ("python",): script,
    ("make",): make,
    ("pip", "install"): pip_install,
    ("docker", "build"): docker_build,
    ("docker", "compose"): docker_compose,
    ("apt-get", "install"): apt_install,
    ("kubectl",): kubectl,
    ("helm",): helm,
    ("torchrun",): torchrun,
}
"""By the first words of a command; the first that fits is used."""
