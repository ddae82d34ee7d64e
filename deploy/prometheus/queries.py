"""Every PromQL expression that deploy/ holds, and where each stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DEPLOY = Path(__file__).parents[1]
DASHBOARDS = tuple(sorted((DEPLOY / "grafana").glob("*.json")))
RULES = DEPLOY / "prometheus" / "rules.yaml"

VARIABLES = {"namespace": ".*", "pod": ".*", "instance": ".*", "__rate_interval": "1m"}
"""Grafana's variables, as they are when nothing is chosen."""


class Query(NamedTuple):
    """One expression, with Grafana's variables filled in."""

    where: str
    expr: str


def dashboard_queries(variables: Mapping[str, str] = VARIABLES) -> list[Query]:
    """Returns the queries of all dashboards: of every panel, annotation and variable."""
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    found = [query for board in boards for query in _board_queries(board, variables)]
    return list(dict.fromkeys(found))  # all boards have the same annotations and variables


def _board_queries(board: Mapping[str, Any], variables: Mapping[str, str]) -> Iterator[Query]:
    for panel in panels(board):
        for target in panel.get("targets", []):
            where = f"panel {panel['title']!r} {target['refId']}"
            yield Query(where, filled_in(target["expr"], variables))
    for annotation in board["annotations"]["list"]:
        yield Query(f"annotation {annotation['name']!r}", filled_in(annotation["expr"], variables))
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            series = variable["query"]["query"].removeprefix("label_values(").rpartition(",")[0]
            yield Query(f"variable {variable['name']}", filled_in(series, variables))


def rule_queries(rules: Path = RULES) -> list[Query]:
    """Returns the expression of every recording and alerting rule."""
    return [Query(rule_name(rule), str(rule["expr"])) for rule in all_rules(rules)]


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the dashboard's panels without its rows; panels of folded rows are included."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        else:
            yield panel


def all_rules(rules: Path = RULES) -> list[dict[str, Any]]:
    """Returns the rules of all groups, in order."""
    return [
        rule for group in yaml.safe_load(rules.read_text())["groups"] for rule in group["rules"]
    ]


def rule_name(rule: Mapping[str, Any]) -> str:
    """Returns `alert NAME` or `record NAME`."""
    kind = "alert" if "alert" in rule else "record"
    return f"{kind} {rule[kind]}"


def filled_in(expr: str, variables: Mapping[str, str]) -> str:
    """Returns `expr` with each $name and ${name} replaced. Raises KeyError for an unknown name."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda m: variables[m[1] or m[2]], expr)
