"""The locks agree with pyproject.toml and with each other, and the image's can be split."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.split_lock import entries, split

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = {
    "requirements.lock": list(PROJECT["optional-dependencies"]),
    "deploy/requirements.lock": ["librdkafka", "tracing"],
}
"""Each lock, and the extras that it holds beside what the daemon needs."""


def pins(lock: str) -> list[Requirement]:
    return [Requirement(pin.split(" \\")[0]) for pin in entries((ROOT / lock).read_text())]


def versions(lock: str) -> set[tuple[str, str]]:
    return {(canonicalize_name(pin.name), str(pin.specifier)) for pin in pins(lock)}


def wanted(extras: list[str]) -> list[Requirement]:
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][e] for e in extras)]
    return [Requirement(line) for line in chain(*lists)]


@pytest.mark.parametrize("lock", LOCKED)
def test_every_dependency_is_locked_within_its_bounds(lock: str) -> None:
    for requirement in wanted(LOCKED[lock]):
        name = canonicalize_name(requirement.name)
        locked = [version for pinned, version in versions(lock) if pinned == name]
        assert locked, f"{lock} lacks {name}: make lock"
        for version in locked:
            assert requirement.specifier.contains(version.removeprefix("==")), (
                f"{lock} has {name}{version}, pyproject.toml asks for {requirement}: make lock"
            )


@pytest.mark.parametrize("lock", LOCKED)
def test_a_lock_asks_for_nothing_that_pyproject_does_not(lock: str) -> None:
    text = (ROOT / lock).read_text()
    direct = re.findall(r"^([\w.-]+)==(?:(?!^[\w.-]+==)[\s\S])*?#\s+(?:via )?adaptd ", text, re.M)
    named = {canonicalize_name(requirement.name) for requirement in wanted(LOCKED[lock])}
    assert direct
    assert {canonicalize_name(name) for name in direct} == named, "make lock"


@pytest.mark.parametrize("lock", LOCKED)
def test_every_pin_has_a_hash_and_names_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert all("--hash=sha256:" in pin for pin in entries(text))
    assert "://" not in text
    assert "--index-url" not in text


def test_the_image_has_the_versions_that_are_tested() -> None:
    assert versions("deploy/requirements.lock") <= versions("requirements.lock")


def test_torch_can_come_from_an_index_of_its_own() -> None:
    lock = (ROOT / "deploy" / "requirements.lock").read_text()
    rest, torch = split(lock)
    (pin,) = torch.splitlines()
    assert ("torch", pin.removeprefix("torch")) in versions("deploy/requirements.lock")
    left_out = {entry.split("==")[0] for entry in entries(lock)} - {
        entry.split("==")[0] for entry in entries(rest)
    }
    assert {"torch", "triton"} <= left_out
    assert all(re.match("torch|triton|nvidia-|cuda-", name) for name in left_out)
