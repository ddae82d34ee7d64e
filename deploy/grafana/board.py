"""A whole dashboard: rows of panels, variables, annotations, and links to the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deploy.grafana.panels import CHOSEN, DATASOURCE, Json, Panel

COLUMNS = 24
RUNBOOK = "deploy/RUNBOOK.md"
"""Where links to the runbook lead until somebody says where it is served: the chart by its value
`prometheusRule.runbookUrl`, or the variable at the top of each board."""


@dataclass(frozen=True)
class Row:
    """Panels under a heading, laid out from left to right and then downwards."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Annotation:
    """Something that happened, shown as a line in every panel. `expr` has a sample when it did."""

    name: str
    expr: str
    text: str
    color: str


@dataclass(frozen=True)
class Board:
    """A dashboard, and the file that it is written to, NAME.json."""

    name: str
    title: str
    description: str
    rows: Sequence[Row]
    range: str = "now-3h"


ANNOTATIONS = (
    Annotation(
        "θ changed",
        "count by (version) (adaptd_meta_init_info{CHOSEN}) unless on (version) "
        "count by (version) (adaptd_meta_init_info{CHOSEN} offset 2m)",
        "θ {{version}}",
        "purple",
    ),
    Annotation(
        "rollout",
        "count by (revision) (adaptd_build_info{CHOSEN}) unless on (revision) "
        "count by (revision) (adaptd_build_info{CHOSEN} offset 2m)",
        "adaptd {{revision}}",
        "blue",
    ),
    Annotation(
        "worker started",
        "count(changes(process_start_time_seconds{CHOSEN}[1m]) > 0 and on (job, instance) "
        "adaptd_build_info{CHOSEN})",
        "workers started anew",
        "yellow",
    ),
    Annotation(
        "rebalance",
        "sum(increase(adaptd_partitions_lost_total{CHOSEN}[1m])) > 0",
        "partitions were revoked",
        "orange",
    ),
)


def board_json(board: Board, others: Sequence[Board]) -> Json:
    """Returns the dashboard as Grafana reads it."""
    return {
        "uid": board.name,
        "title": board.title,
        "description": board.description,
        "tags": ["adaptd"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "",
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "refresh": "30s",
        "time": {"from": board.range, "to": "now"},
        "timepicker": {},
        "links": [_link(other) for other in others] + [_runbook()],
        "annotations": {"list": [_annotation(annotation) for annotation in ANNOTATIONS]},
        "templating": {"list": _variables()},
        "panels": list(_panels(board)),
    }


def _panels(board: Board) -> Iterator[Json]:
    number, y = 0, 0
    for row in board.rows:
        number += 1
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        yield {"id": number, "type": "row", "title": row.title, "gridPos": place, "panels": []} | {
            "collapsed": False
        }
        y, x, height = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                y, x, height = y + height, 0, 0
            number += 1
            place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            yield {"id": number} | panel.json() | {"gridPos": place}
            x, height = x + panel.width, max(height, panel.height)
        y += height


def _annotation(annotation: Annotation) -> Json:
    return {
        "name": annotation.name,
        "datasource": DATASOURCE,
        "enable": True,
        "expr": annotation.expr.replace("CHOSEN", CHOSEN),
        "iconColor": annotation.color,
        "step": "60s",
        "titleFormat": annotation.name,
        "textFormat": annotation.text,
    }


def _link(other: Board) -> Json:
    return {
        "type": "link",
        "title": other.title,
        "url": f"/d/{other.name}",
        "keepTime": True,
        "includeVars": True,
        "icon": "dashboard",
        "targetBlank": False,
        "asDropdown": False,
        "tags": [],
        "tooltip": other.description,
    }


def _runbook() -> Json:
    return {
        "type": "link",
        "title": "Runbook",
        "url": "${runbook}",
        "icon": "doc",
        "targetBlank": True,
        "asDropdown": False,
        "keepTime": False,
        "includeVars": False,
        "tags": [],
        "tooltip": "What to do about each alert",
    }


def _variables() -> list[Json]:
    datasource = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }
    chosen = {
        "namespace": "adaptd_build_info",
        "pod": 'adaptd_build_info{namespace=~"$namespace"}',
        "instance": 'adaptd_build_info{namespace=~"$namespace", pod=~"$pod"}',
    }
    runbook = {
        "name": "runbook",
        "label": "Runbook",
        "type": "textbox",
        "query": RUNBOOK,
        "current": {"text": RUNBOOK, "value": RUNBOOK},
        "options": [{"text": RUNBOOK, "value": RUNBOOK, "selected": True}],
        "hide": 0,
        "skipUrlSync": False,
    }
    return [datasource, *(_label_variable(name, of) for name, of in chosen.items()), runbook]


def _label_variable(name: str, series: str) -> Json:
    values = f"label_values({series}, {name})"
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "definition": values,
        "query": {"query": values, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
        "regex": "",
        "hide": 0,
        "skipUrlSync": False,
    }
