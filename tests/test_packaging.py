"""The packages are literally named `daemon` and `model`: nobody else's may be found instead."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from importlib.metadata import distribution, entry_points, packages_distributions
from pathlib import Path

import pytest

import daemon
import model

ROOT = Path(__file__).parent.parent
COPIED = ("benchmarks", "daemon", "deploy", "docs", "examples", "model")


@pytest.mark.parametrize("package", ["daemon", "model"])
def test_our_packages_are_ours_alone(package: str) -> None:
    assert set(packages_distributions()[package]) == {"adaptd"}


def test_what_is_imported_is_this_checkout() -> None:
    assert Path(daemon.__path__[0]) == ROOT / "daemon"
    assert Path(model.__path__[0]) == ROOT / "model"


def test_the_command_is_installed() -> None:
    (script,) = [s for s in entry_points(group="console_scripts") if s.name == "adaptd"]
    assert script.value == "daemon.__main__:main"
    assert callable(script.load())


def test_it_cannot_be_uploaded_by_accident() -> None:
    classifiers = distribution("adaptd").metadata.get_all("Classifier") or []
    assert "Private :: Do Not Upload" in classifiers


def test_no_package_re_exports_anything() -> None:
    for package in (daemon, model):
        for path in Path(package.__path__[0]).rglob("__init__.py"):
            body = ast.parse(path.read_text()).body
            assert all(isinstance(node, ast.Expr) for node in body), path


def test_tests_are_no_package_that_could_shadow_ours() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_the_wheel_holds_the_product_and_nothing_else(tmp_path: Path) -> None:
    """A copy is built, so that the build leaves nothing in the checkout."""
    tracked = ["pyproject.toml", "README.md", "LICENSE", "NOTICE", *COPIED]
    subprocess.run(["cp", "-r", *tracked, str(tmp_path)], cwd=ROOT, check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(tmp_path / "out"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=120)
    (wheel,) = (tmp_path / "out").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"adaptd", "daemon", "model"}
    for needed in ("daemon/py.typed", "model/emoji/data/emoji.json", "model/theta/shipped/"):
        assert any(name.startswith(needed) for name in names), needed
