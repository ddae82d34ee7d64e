"""Which metrics and labels do PromQL expressions use, and does a scrape have them?

`missing(queries, exposition)` compares the two; a label's value is looked for as well where it is
matched with `=`.

Not a parser: a walk over tokens that knows enough of PromQL's grammar to tell metrics, matched
labels and grouped labels apart. It errs on the loud side: a name that it cannot place counts as a
metric, and is then found missing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from deploy.prometheus.queries import Query

GIVEN_BY_PROMETHEUS = frozenset({"up"})
"""Series that Prometheus itself makes for a target."""

TARGET_LABELS = frozenset({"job", "instance", "namespace", "pod"})
"""Labels that the scrape's configuration adds (the PodMonitor), wherever it does."""

ONLY_ON_A_GPU = frozenset({"adaptd_gpu_memory_bytes"})
"""Metrics that a worker on a CPU does not export."""

Labels = dict[str, set[str]]

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
      | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
      | (?P<range>\[[^\]]*\])
      | (?P<duration>(?:\d+(?:ms|[smhdwy]))+(?![\w.]))
      | (?P<number>0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
      | (?P<operator>=~|!~|==|!=|<=|>=|[-+*/%^=<>(){},@])
    """,
    re.VERBOSE,
)
_LABEL_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS = frozenset({"and", "or", "unless", "atan2", "bool", "offset", "inf", "nan"})


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
    """Raises ValueError for what is not PromQL at all."""
    found, tokens = Uses(), list(_tokens(expr))
    i = 0
    while i < len(tokens):
        kind, text = tokens[i]
        after = tokens[i + 1][1] if i + 1 < len(tokens) else ""
        if kind == "name" and text.lower() in _LABEL_LISTS:
            labels, i = _label_list(tokens, i + 1)
            found.grouped |= labels
        elif kind == "name" and text.lower() not in _WORDS and after == "{":
            matchers, i = _matchers(tokens, i + 1)
            found.metrics[text] |= matchers
        elif kind == "name" and text.lower() not in _WORDS and not _calls(tokens, i + 1):
            found.metrics[text] |= set()
            i += 1
        elif text == "{":
            raise ValueError(f"a selector without a metric's name: {expr!r}")
        else:
            i += 1
    return found


def missing(queries: Iterable[Query], exposition: str) -> list[str]:
    """A line for each metric and label that a query uses and the scrape's text does not have."""
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
        if metric not in scraped and metric not in GIVEN_BY_PROMETHEUS | ONLY_ON_A_GPU | recorded:
            yield f"no metric {metric}"
            continue
        labels = scraped.get(metric, {})
        at_hand |= labels.keys()
        for label, value in sorted(matchers, key=str):
            if label in TARGET_LABELS:
                continue
            if label not in labels:
                yield f"no label {label} on {metric}"
            elif value is not None and value not in labels[label]:
                yield f"no {label}={value!r} on {metric}"
    yield from (f"no label {label} to group by" for label in sorted(used.grouped - at_hand))


def _labels_by_series(exposition: str) -> dict[str, Labels]:
    """Labels and their values of each series' name, as Prometheus stores them."""
    found: dict[str, Labels] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def _tokens(expr: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(expr):
        match = _TOKEN.match(expr, at)
        if match is None:
            raise ValueError(f"not PromQL at {expr[at : at + 20]!r}: {expr!r}")
        at = match.end()
        if match.lastgroup != "space":
            yield str(match.lastgroup), match.group()


def _calls(tokens: list[tuple[str, str]], i: int) -> bool:
    """Whether a function's or an aggregation's name stands before token `i`."""
    text = tokens[i][1].lower() if i < len(tokens) else ""
    return text in ("(", "by", "without")


def _label_list(tokens: list[tuple[str, str]], i: int) -> tuple[set[str], int]:
    """Labels of the parentheses at `i`, which may be absent, and the place after them."""
    if i >= len(tokens) or tokens[i][1] != "(":
        return set(), i
    end = next(j for j in range(i, len(tokens)) if tokens[j][1] == ")")
    return {text for kind, text in tokens[i:end] if kind == "name"}, end + 1


def _matchers(tokens: list[tuple[str, str]], i: int) -> tuple[set[Matcher], int]:
    """What the braces at `i` match, and the place after them."""
    end = next(j for j in range(i, len(tokens)) if tokens[j][1] == "}")
    found = set()
    for j in range(i, end):
        if tokens[j][0] == "name":
            equals = tokens[j + 1][1] == "="
            found.add(Matcher(tokens[j][1], tokens[j + 2][1][1:-1] if equals else None))
    return found, end + 1
