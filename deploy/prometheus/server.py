"""A real Prometheus on a free port of 127.0.0.1, and its HTTP API."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from daemon.local.errors import ServicesUnavailable
from daemon.local.folders import new_data_folder
from daemon.local.server import Server, free_port

Vector = list[dict[str, Any]]


class CannotCheck(Exception):
    """The queries cannot be tried; the message is one line that says why."""


class Prometheus:
    """The HTTP API of a Prometheus at `address`, host:port."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}"

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urlopen(f"{self._url}/-/ready", timeout=2):
                return True
        except (URLError, OSError):
            return False

    def query(self, expr: str) -> Vector:
        """Returns the present value of `expr`. Raises ValueError with Prometheus' own message."""
        answer = self._get("query", query=expr)
        return list(answer["result"]) if answer["resultType"] == "vector" else [answer]

    def query_range(self, expr: str, start: float, end: float, step_s: float) -> Vector:
        """Returns the values of `expr` over a time (Unix seconds), each `step_s` seconds. Raises
        ValueError with Prometheus' own message."""
        span = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step_s:g}"}
        return list(self._get("query_range", query=expr, **span)["result"])

    def exemplars(self, expr: str, start: float, end: float) -> Vector:
        """Returns the exemplars of the series that `expr` names, over a time (Unix seconds)."""
        found = self._get("query_exemplars", query=expr, start=f"{start:.3f}", end=f"{end:.3f}")
        return list(found)

    def why_down(self) -> str:
        """Returns the error of the last scrape, in one line."""
        targets = self._get("targets")["activeTargets"]
        return "; ".join(target["lastError"] for target in targets) or "it was not scraped yet"

    def rule_errors(self) -> dict[str, str]:
        """Returns the last error of each rule that has one, by the rule's name."""
        groups = self._get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")}

    def _get(self, what: str, **parameters: str) -> Any:
        url = f"{self._url}/api/v1/{what}?{urlencode(parameters)}"
        try:
            with urlopen(url, timeout=10) as response:
                return json.load(response)["data"]
        except HTTPError as e:
            raise ValueError(json.load(e).get("error", str(e))) from e


@contextmanager
def running_prometheus(
    config: str, files: Mapping[str, str] | None = None, binary: str = "prometheus"
) -> Iterator[Prometheus]:
    """Runs a Prometheus with this configuration until the block ends. `files`, by name, lie beside
    the configuration.

    Raises CannotCheck when it cannot be started.
    """
    require(binary)
    folder, address = new_data_folder("prometheus"), f"127.0.0.1:{free_port()}"
    for name, text in {"prometheus.yml": config, **(files or {})}.items():
        (folder.path / name).write_text(text)
    api = Prometheus(address)
    server = Server(
        name="Prometheus",
        address=address,
        command=_command(binary, folder.path / "prometheus.yml", folder.path / "data", address),
        folder=folder,
        answers=api.ready,
    )
    try:
        with server:
            yield api
    except ServicesUnavailable as e:
        raise CannotCheck(str(e)) from e


def require(binary: str) -> None:
    """Raises CannotCheck when the program is not on PATH."""
    if shutil.which(binary) is None:
        raise CannotCheck(f"no {binary} on PATH: apt-get install prometheus")


def _command(binary: str, config: Path, data: Path, address: str) -> list[str]:
    return [
        binary,
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={address}",
        "--log.level=warn",
        "--enable-feature=exemplar-storage",
    ]
