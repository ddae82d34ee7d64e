"""Each import contract is proven by breaking it once, on a copy."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"][
    "importlinter"
]["contracts"]
PACKAGES = ("benchmarks", "daemon", "model")
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code alone, without data."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for path in (each for room in PACKAGES for each in ROOT.glob(f"{room}/**/*.py")):
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def lint(folder: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ended.stdout + ended.stderr


def file_of(folder: Path, module: str) -> Path:
    path = folder.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_every_contract_holds(copy: Path) -> None:
    output = lint(copy)
    for contract in CONTRACTS:
        assert f"{contract['name']} KEPT" in output, output


def breaches(contract: dict[str, Any]) -> list[tuple[str, str]]:
    """(importer, imported) of imports that the contract forbids: one for each of its rooms."""
    if contract["type"] == "forbidden":
        return [(source, contract["forbidden_modules"][0]) for source in contract["source_modules"]]
    layers = [layer.split(" | ") for layer in contract["layers"]]
    return [(lower[0], upper[-1]) for upper, lower in itertools.pairwise(layers)]


BREACHES = [(c["name"], *breach) for c in CONTRACTS for breach in breaches(c)]


@pytest.mark.parametrize(("contract", "importer", "imported"), BREACHES)
def test_a_broken_contract_is_noticed(
    copy: Path, contract: str, importer: str, imported: str
) -> None:
    path = file_of(copy, importer)
    text = path.read_text()
    try:
        path.write_text(f"{text}\nimport {imported}\n")
        output = lint(copy)
    finally:
        path.write_text(text)
    assert f"{contract} BROKEN" in output, output


def test_every_module_named_in_a_contract_exists() -> None:
    for contract in CONTRACTS:
        layers = [name for layer in contract.get("layers", []) for name in layer.split(" | ")]
        for module in [*contract.get("source_modules", []), *layers]:
            assert file_of(ROOT, module).exists(), module
