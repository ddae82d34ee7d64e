"""Which metrics and labels do PromQL expressions use, and does a scrape have them?

`missing(queries, exposition)` compares the two. A label's value is looked for as well where a
selector asks for it with `=`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import promql_parser as promql
from prometheus_client.parser import text_string_to_metric_families

from deploy.prometheus.queries import Query

GIVEN_BY_PROMETHEUS = frozenset({"ALERTS", "up", "kube_pod_container_status_waiting"})
"""Series that Prometheus itself makes of targets and alerts, or kube-state-metrics of pods."""

ALERT_LABELS = frozenset({"alertname", "alertstate", "severity"})
"""Labels that Prometheus adds to the series of alerts, and that every rule sets."""

TARGET_LABELS = frozenset({"job", "instance", "namespace", "pod", "container"})
"""Labels that the scrape's configuration adds (the PodMonitor), wherever it does."""

ONLY_ON_A_GPU = frozenset({"adaptd_gpu_memory_bytes", "adaptd_gpu_memory_limit_bytes"})
"""Metrics that a worker on a CPU does not export."""

ONLY_IN_A_CONTAINER = frozenset({"adaptd_cpu_limit_cores", "adaptd_cpu_throttled_seconds_total"})
"""Metrics that a worker exports where the kernel limits its CPU."""

ONLY_WITH_A_CANARY = frozenset(
    {"adaptd_canary", "adaptd_canary_difference", "adaptd_canary_log_e", "adaptd_canary_streams"}
)
"""Metrics that a worker exports while a candidate θ is judged."""

NOT_EVERYWHERE = GIVEN_BY_PROMETHEUS | ONLY_ON_A_GPU | ONLY_IN_A_CONTAINER | ONLY_WITH_A_CANARY

Labels = dict[str, set[str]]


class Matcher(NamedTuple):
    """A label that a selector asks for; `value` only if it asks for equality."""

    label: str
    value: str | None


@dataclass
class Uses:
    """What one expression uses: metrics with the matchers on each, and grouped labels."""

    metrics: dict[str, set[Matcher]] = field(default_factory=lambda: defaultdict(set))
    grouped: set[str] = field(default_factory=set)


def uses(expr: str) -> Uses:
    """Returns what the expression uses.

    Raises ValueError for what is not PromQL, and for a selector that names no metric.
    """
    found = Uses()

    def visit(node: promql.Expr) -> None:
        match node:
            case promql.VectorSelector():
                found.metrics[_name(node)] |= _matchers(node)
            case promql.AggregateExpr(modifier=promql.AggModifier() as by):
                found.grouped.update(by.labels)
            case promql.BinaryExpr(modifier=promql.BinModifier() as on):
                found.grouped.update(on.matching.labels if on.matching else ())
                found.grouped.update(on.group_labels or ())

    promql.walk(promql.parse(expr), visit)
    return found


def _name(selector: promql.VectorSelector) -> str:
    if selector.name is None:
        raise ValueError(f"a selector without a metric's name: {selector.prettify()}")
    return selector.name


def _matchers(selector: promql.VectorSelector) -> set[Matcher]:
    alternatives = [selector.matchers.matchers, *selector.matchers.or_matchers]
    return {
        Matcher(m.name, m.value if m.op == promql.MatchOp.Equal else None)
        for matchers in alternatives
        for m in matchers
    }


def missing(queries: Iterable[Query], exposition: str) -> list[str]:
    """Returns a line for each metric and label that a query uses and the scrape's text lacks."""
    scraped = _labels_by_series(exposition)
    queries = list(queries)
    recorded = {q.where.removeprefix("record ") for q in queries if q.where.startswith("record ")}
    return [
        f"{query.where}: {line}" for query in queries for line in _lacks(query, scraped, recorded)
    ]


def _lacks(query: Query, scraped: Mapping[str, Labels], recorded: set[str]) -> Iterator[str]:
    used = uses(query.expr)
    if not used.metrics and not query.expr.startswith("vector("):
        yield "no metric in it"
    at_hand = set(TARGET_LABELS)
    for metric, matchers in used.metrics.items():
        if metric not in scraped and metric not in NOT_EVERYWHERE | recorded:
            yield f"no metric {metric}"
            continue
        if metric in ONLY_WITH_A_CANARY and metric not in scraped:
            at_hand |= used.grouped | {matcher.label for matcher in matchers}
            continue
        labels = scraped.get(metric, {})
        given = TARGET_LABELS | (ALERT_LABELS if metric == "ALERTS" else frozenset())
        at_hand |= labels.keys() | given
        for label, value in sorted(matchers, key=str):
            if label in given:
                continue
            if label not in labels:
                yield f"no label {label} on {metric}"
            elif value is not None and value not in labels[label]:
                yield f"no {label}={value!r} on {metric}"
    yield from (f"no label {label} to group by" for label in sorted(used.grouped - at_hand))


def _labels_by_series(exposition: str) -> dict[str, Labels]:
    """Returns the labels of each series and their values, as Prometheus stores them."""
    found: dict[str, Labels] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found
