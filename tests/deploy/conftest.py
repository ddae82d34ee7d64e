"""The queries of deploy/, and a scrape to look for their metrics in."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # deploy/ is not installed with the packages

if TYPE_CHECKING:
    from deploy.prometheus.queries import Query


@pytest.fixture(scope="session")
def exposition() -> str:
    """The text that a scrape of a worker gives after a few turns."""
    from tests.deploy.scrapes import metrics_after

    return generate_latest(metrics_after(3).registry).decode()


@pytest.fixture(scope="session")
def queries() -> list[Query]:
    """Every query in deploy/."""
    from deploy.prometheus.queries import dashboard_queries, rule_queries

    return dashboard_queries() + rule_queries()


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of promtool."""
    return needed(shutil.which("promtool"), "no promtool on PATH: apt-get install prometheus")


@pytest.fixture(scope="session")
def helm() -> str:
    """The path of helm."""
    from deploy.helm.tools import NoTool, tool

    try:
        return tool("helm")
    except NoTool as e:
        return needed(None, str(e))


@pytest.fixture(scope="session")
def compose_parser() -> str:
    """The path of a program that reads compose files with docker compose's own parser."""
    from deploy.check.base import CannotTry
    from deploy.check.go import go_program

    try:
        return str(go_program(ROOT / "deploy" / "check" / "compose"))
    except CannotTry as e:
        return needed(None, str(e))


def needed(path: str | None, why_not: str) -> str:
    """A program's path; without it the test is skipped, but fails in CI."""
    if path is None and os.environ.get("CI"):
        pytest.fail(why_not)
    if path is None:
        pytest.skip(why_not)
    return path
