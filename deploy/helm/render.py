"""Renders the chart, and from it the plain manifests of kubernetes/."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from deploy.helm.tools import ROOT, tool

CHART = ROOT / "deploy" / "chart"
KUBERNETES = ROOT / "deploy" / "kubernetes"

PLAIN: dict[str, list[str]] = {
    "base.yaml": ["--no-hooks"],
    "cuda.yaml": ["--no-hooks", "--set", "profile=cuda"],
    "topics.yaml": ["--show-only", "templates/topics.yaml"],
    "monitoring.yaml": [
        *("--set", "podMonitor.enabled=true", "--show-only", "templates/podmonitor.yaml"),
        *(
            "--set",
            "prometheusRule.enabled=true,prometheusRule.scoped=false",
            "--show-only",
            "templates/prometheusrule.yaml",
        ),
    ],
}
"""Each plain manifest, and the words for helm that render it."""

HEAD = "# Rendered from deploy/chart by `make chart`: change that.\n"
HELMS_OWN = re.compile(
    r"^# Source:.*\n|^ +(app.kubernetes.io/managed-by|helm.sh/[\w-]+): .*\n", re.M
)
HOOKS = re.compile(r"^  annotations:(?: #.*)?\n(?=  \w|\w)", re.M)


class Refused(Exception):
    """Helm refused values; the message is what it said."""


def render(*words: str, release: str = "adaptd", namespace: str = "default") -> str:
    """Returns what `helm template` makes of the chart. Raises Refused, NoTool."""
    command = [tool("helm"), "template", release, str(CHART), "--namespace", namespace, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def documents(text: str) -> list[dict[str, Any]]:
    """Returns the manifests in a YAML text."""
    return [document for document in yaml.safe_load_all(text) if document]


def plain(words: Sequence[str]) -> str:
    """Returns a rendered manifest without what only helm reads: its labels and its hooks."""
    return HEAD + HOOKS.sub("", HELMS_OWN.sub("", render(*words)))


def plain_manifests() -> Iterator[tuple[Path, str]]:
    """Yields each plain manifest's path, and its text as the chart renders it now."""
    for name, words in PLAIN.items():
        yield KUBERNETES / name, plain(words)
