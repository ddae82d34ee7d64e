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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, NamedTuple

import typer

from daemon.demo.processes import ProcessEnded
from daemon.errors import Unavailable
from daemon.local.errors import ServicesUnavailable
from deploy.prometheus.demo import demo_worker
from deploy.prometheus.queries import RULES, VARIABLES, Query, dashboard_queries, rule_queries
from deploy.prometheus.server import (
    CannotCheck,
    Prometheus,
    Vector,
    require,
    running_prometheus,
)

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
    "panel 'Candidate θ' A": "no candidate is judged",
    "panel 'Candidate θ against the served one' A": "no candidate is judged",
    "panel 'Candidate θ against the served one' B": "no candidate is judged",
    "panel 'Work of judging candidates' A": "no candidate is judged",
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


class Finding(NamedTuple):
    """The result of one query: ok, firing, empty (where that is allowed), no data, or error."""

    query: Query
    status: str
    detail: str

    @property
    def good(self) -> bool:
        return self.status in ("ok", "firing", "empty")


@contextmanager
def prometheus(target: str, binary: str = "prometheus") -> Iterator[Prometheus]:
    """Runs a Prometheus that scrapes `target` every second until the block ends.

    Raises CannotCheck when it cannot be started.
    """
    config = CONFIG.format(rules=json.dumps(str(RULES)), target=json.dumps(target))
    with running_prometheus(config, binary=binary) as api:
        yield api


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
