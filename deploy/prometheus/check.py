"""Runs every query of deploy/ against a real Prometheus that scrapes a live worker.

    python -m deploy.prometheus.check                            # the demo's worker
    python -m deploy.prometheus.check --target 127.0.0.1:9464    # one that runs already

Needs `prometheus` on PATH (Debian's package of that name). It starts one on a free port of
127.0.0.1 with a data folder of its own, lets it scrape the target every second and evaluate
rules.yaml, and asks it over its HTTP API for every panel, variable, recording rule and alert.

An alert's expression has no data as long as all is well, so its answer alone proves nothing.
Therefore its comparisons are also asked for as truth values (`> bool`), which have data if and only
if the series that they compare exist and their labels match.

Exits with 0 when each query has the data that it should have, 1 when one has not, and 2 when the
queries could not be tried. An alert that fires is reported, but is no fault of its query.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import typer

from daemon.demo.processes import ProcessEnded
from daemon.errors import Unavailable
from daemon.local.errors import ServicesUnavailable
from daemon.local.folders import new_data_folder
from daemon.local.server import Server, free_port
from deploy.prometheus.demo import demo_worker
from deploy.prometheus.queries import RULES, VARIABLES, Query, dashboard_queries, rule_queries

MAY_BE_EMPTY = {
    "panel 'Firing alerts' A": "no alert fires",
    "panel 'Firing alerts' B": "an alert fires",
    "panel 'Dead letters, by reason' A": "no event was malformed lately",
    "panel 'Memory and CPU, of the limit' B": "no limit of CPU",
    "panel 'GPU memory' A": "no GPU",
    "panel 'GPU memory' B": "no GPU",
    "panel 'CPU' B": "no limit of CPU",
    "panel 'CPU' C": "no limit of CPU",
    "panel 'Calls that failed' A": "Kafka answers",
    "panel 'Calls that failed' B": "Redis answers",
    "panel 'Away, by reason' A": "both services answer",
    "panel 'Changes of θ' B": "no θ was refused lately",
    "annotation 'θ changed'": "no θ was changed lately",
    "annotation 'rollout'": "no build was changed lately",
    "annotation 'worker started'": "no worker started lately",
    "annotation 'rebalance'": "no partition was revoked lately",
    "alert AdaptdAbsent, its series": "there is a worker",
    "alert AdaptdCpuThrottled, its series": "no limit of CPU",
    "alert AdaptdPodNotStarted, its series": "the worker is in no container",
}
"""Queries that are right without data, and why. Alerts themselves are, too."""

CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: adaptd
    static_configs: [{{targets: [{target}]}}]
"""

Vector = list[dict[str, Any]]


class CannotCheck(Exception):
    """The queries cannot be tried; the message is one line that says why."""


class Finding(NamedTuple):
    """The result of one query: ok, firing, empty (where that is allowed), no data, or error."""

    query: Query
    status: str
    detail: str

    @property
    def good(self) -> bool:
        return self.status in ("ok", "firing", "empty")


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
def prometheus(target: str, binary: str = "prometheus") -> Iterator[Prometheus]:
    """Runs a Prometheus that scrapes `target` every second until the block ends.

    Raises CannotCheck when it cannot be started.
    """
    require(binary)
    folder, address = new_data_folder("prometheus"), f"127.0.0.1:{free_port()}"
    config = folder.path / "prometheus.yml"
    config.write_text(CONFIG.format(rules=json.dumps(str(RULES)), target=json.dumps(target)))
    api = Prometheus(address)
    server = Server(
        name="Prometheus",
        address=address,
        command=_command(binary, config, folder.path / "data", address),
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
    ]


def check(api: Prometheus, scrapes: int, wait_s: float) -> list[Finding]:
    """Tries every query after `scrapes` scrapes, and returns the findings.

    Raises CannotCheck when there are not as many within `wait_s` seconds.
    """
    _wait_for_scrapes(api, scrapes, wait_s)
    variables = VARIABLES | {"__rate_interval": f"{scrapes}s"}
    findings = [_try(api, query) for query in dashboard_queries(variables=variables)]
    for query in rule_queries():
        if query.where.startswith("alert "):
            findings.append(_try(api, query, has_data="firing", may_be_empty="not firing"))
            query = Query(f"{query.where}, its series", as_truth(query.expr))
        findings.append(_try(api, query))
    for name, error in api.rule_errors().items():
        findings.append(Finding(Query(f"rule {name}", ""), "error", error))
    return findings


def as_truth(expr: str) -> str:
    """Returns an alert's expression with its comparisons as 0 or 1, which never filter series."""
    return re.sub(r"(?<=\s)(==|!=|<=|>=|<|>)(?=\s)", r"\1 bool", expr).replace("unless", "and")


def _wait_for_scrapes(api: Prometheus, scrapes: int, wait_s: float) -> None:
    give_up_at = time.monotonic() + wait_s
    while not _holds(lambda: api.query(f"sum_over_time(up[1h]) >= {scrapes}")):
        if time.monotonic() > give_up_at:
            raise CannotCheck(f"no {scrapes} scrapes within {wait_s:g} s: {api.why_down()}")
        time.sleep(0.5)


def _holds(ask: Callable[[], Vector]) -> bool:
    try:
        return bool(ask())
    except (ValueError, OSError):
        return False


def _try(
    api: Prometheus, query: Query, has_data: str = "ok", may_be_empty: str | None = None
) -> Finding:
    try:
        vector = api.query(query.expr)
    except ValueError as e:
        return Finding(query, "error", str(e))
    if vector:
        return Finding(query, has_data, f"{len(vector)} series, first is {vector[0]['value'][1]}")
    reason = may_be_empty or MAY_BE_EMPTY.get(query.where)
    return Finding(query, "empty", reason) if reason else Finding(query, "no data", query.expr)


@contextmanager
def _worker(target: str | None, binary: str) -> Iterator[str]:
    require(binary)  # before Kafka is started in vain
    if target is not None:
        yield target
    else:
        with demo_worker(typer.echo) as address:
            yield address


def main(
    target: Annotated[
        str | None, typer.Option(help="A live worker's HTTP address, HOST:PORT; else the demo's.")
    ] = None,
    scrapes: Annotated[int, typer.Option(min=3, help="Scrapes to wait for, one a second.")] = 15,
    wait_s: Annotated[float, typer.Option(help="Give up waiting after so many seconds.")] = 60,
    binary: Annotated[str, typer.Option(help="The Prometheus to start.")] = "prometheus",
) -> None:
    """Run every query of deploy/ against a real Prometheus that scrapes a live worker."""
    try:
        with _worker(target, binary) as address, prometheus(address, binary) as api:
            findings = check(api, scrapes, wait_s)
    except (CannotCheck, ServicesUnavailable, Unavailable, ProcessEnded, TimeoutError) as e:
        typer.echo(f"prometheus-check: {e}", err=True)
        raise typer.Exit(2) from None
    width = max(len(finding.query.where) for finding in findings)
    for finding in findings:
        detail = " ".join(finding.detail.split())
        typer.echo(f"{finding.status:8} {finding.query.where:{width}}  {detail}")
    bad = [finding for finding in findings if not finding.good]
    typer.echo(f"{len(findings)} queries, {len(bad)} bad")
    raise typer.Exit(1 if bad else 0)


if __name__ == "__main__":
    typer.run(main)
