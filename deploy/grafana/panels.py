"""Panels of Grafana's dashboards as values: what each kind has in common, written once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN = 'namespace=~"$namespace", pod=~"$pod", instance=~"$instance"'
"""Matches the series of what the variables at the top of a board choose."""
UNKNOWN = {
    "type": "special",
    "options": {
        "match": "null+nan",
        "result": {"text": "unknown", "color": "orange", "index": 99},
    },
}
"""Grafana would show nothing in the colour of the lowest threshold, which often is green."""

Steps = Sequence[tuple[float | None, str]]
"""From which value on (None: from the lowest) which colour holds."""
NO_LIMIT: Steps = ((None, "green"),)
Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """PromQL, in which CHOSEN stands for the variables' matchers, and the legend of its series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """What every kind has. `width` is of 24 columns, `height` of Grafana's units of 30 pixels."""

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    steps: Steps = NO_LIMIT
    width: int = 8
    height: int = 8

    kind: Literal["timeseries"] | str = field(default="timeseries", init=False)
    instant: bool = field(default=False, init=False)

    def json(self) -> Json:
        """Returns the panel without its place and number."""
        return {
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "targets": [self._target(i, query) for i, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self.defaults(), "overrides": self.overrides()},
            "options": self.options(),
        }

    def _target(self, number: int, query: Query) -> Json:
        return {
            "refId": "ABCDEFGH"[number],
            "datasource": DATASOURCE,
            "expr": query.expr.replace("CHOSEN", CHOSEN),
            "legendFormat": query.legend,
            "range": not self.instant,
            "instant": self.instant,
        }

    def defaults(self) -> Json:
        """Returns how values are shown: unit, thresholds, and what is shown without any."""
        steps = [{"value": value, "color": color} for value, color in self.steps]
        return {
            "unit": self.unit,
            "thresholds": {"mode": "absolute", "steps": steps},
            "noValue": "unknown",
        }

    def overrides(self) -> list[Json]:
        """Returns what differs for single series."""
        return []

    def options(self) -> Json:
        """Returns what only panels of this kind have."""
        return {}


@dataclass(frozen=True)
class Stat(Panel):
    """Numbers as they are now; one that is unknown now is shown as unknown. Those whose legend is
    in `bad` are red from 1 on."""

    bad: Sequence[str] = ()

    kind: str = field(default="stat", init=False)
    instant: bool = field(default=True, init=False)

    def defaults(self) -> Json:
        """See Panel."""
        return super().defaults() | {"mappings": [UNKNOWN]}

    def overrides(self) -> list[Json]:
        """See Panel."""
        steps = [{"value": None, "color": "green"}, {"value": 1, "color": "red"}]
        red = {"id": "thresholds", "value": {"mode": "absolute", "steps": steps}}
        return [
            {"matcher": {"id": "byName", "options": name}, "properties": [red]} for name in self.bad
        ]

    def options(self) -> Json:
        """See Panel."""
        return {
            "colorMode": "background",
            "graphMode": "none",
            "justifyMode": "center",
            "orientation": "auto",
            "textMode": "value_and_name" if len(self.queries) > 1 else "auto",
            "reduceOptions": {"calcs": ["last"], "fields": "", "values": False},
        }


@dataclass(frozen=True)
class Series(Panel):
    """Values over time. `colors` fixes those of single series by the legend's name."""

    log: bool = False
    stacked: bool = False
    least: float | None = 0
    most: float | None = None
    colors: Mapping[str, str] = field(default_factory=dict)
    limits_shown: bool = True
    """Whether thresholds are drawn as lines."""

    def defaults(self) -> Json:
        """See Panel."""
        shown = self.limits_shown and len(self.steps) > 1
        bounds = {} if self.log or self.least is None else {"min": self.least}
        bounds |= {} if self.most is None else {"max": self.most}
        return (
            super().defaults()
            | bounds
            | {
                "color": {"mode": "palette-classic"},
                "custom": {
                    "drawStyle": "line",
                    "lineWidth": 1,
                    "fillOpacity": 60 if self.stacked else 0,
                    "showPoints": "never",
                    "spanNulls": False,
                    "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                    "scaleDistribution": {"type": "log", "log": 10}
                    if self.log
                    else {"type": "linear"},
                    "thresholdsStyle": {"mode": "line" if shown else "off"},
                },
            }
        )

    def overrides(self) -> list[Json]:
        """See Panel."""
        return [
            {
                "matcher": {"id": "byName", "options": name},
                "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
            }
            for name, color in self.colors.items()
        ]

    def options(self) -> Json:
        """See Panel."""
        return {
            "legend": {
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": True,
                "calcs": [],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }


@dataclass(frozen=True)
class Heatmap(Panel):
    """How many values fell into each bucket of a histogram, over time."""

    kind: str = field(default="heatmap", init=False)

    def json(self) -> Json:
        """See Panel."""
        made = super().json()
        for target in made["targets"]:
            target["format"] = "heatmap"
        return made

    def options(self) -> Json:
        """See Panel."""
        return {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Blues", "steps": 64, "exponent": 0.5},
            "yAxis": {"unit": self.unit, "axisPlacement": "left"},
            "tooltip": {"show": True, "yHistogram": True},
            "legend": {"show": False},
        }


@dataclass(frozen=True)
class Timeline(Panel):
    """States over time, which show since when each holds. `states` names them by value; `links`
    lead from a series, by its legend's name, to an address."""

    states: Mapping[float, tuple[str, str]] = field(default_factory=dict)
    """Text and colour."""
    links: Mapping[str, str] = field(default_factory=dict)

    kind: str = field(default="state-timeline", init=False)

    def defaults(self) -> Json:
        """See Panel."""
        named = {
            f"{value:g}": {"text": text, "color": color, "index": i}
            for i, (value, (text, color)) in enumerate(self.states.items())
        }
        return super().defaults() | {
            "mappings": [{"type": "value", "options": named}, UNKNOWN],
            "color": {"mode": "thresholds"},
            "custom": {"lineWidth": 0, "fillOpacity": 80, "spanNulls": False},
        }

    def overrides(self) -> list[Json]:
        """See Panel."""
        return [
            {
                "matcher": {"id": "byRegexp", "options": f"^{name}\\b.*"},
                "properties": [
                    {
                        "id": "links",
                        "value": [
                            {"title": f"What to do: {name}", "url": url, "targetBlank": True}
                        ],
                    }
                ],
            }
            for name, url in self.links.items()
        ]

    def options(self) -> Json:
        """See Panel."""
        return {
            "mergeValues": True,
            "showValue": "auto",
            "alignValue": "left",
            "rowHeight": 0.85,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
            "tooltip": {"mode": "single"},
        }
