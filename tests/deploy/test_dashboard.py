"""The dashboard asks for nothing that a worker does not export, and explains every panel."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest

from deploy.prometheus.promql import ONLY_ON_A_GPU, missing, uses
from deploy.prometheus.queries import DASHBOARD, VARIABLES, Query, filled_in, panels
from tests.deploy.scrapes import metrics_after

BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text())
PANELS = list(panels(BOARD))


def test_every_metric_and_label_is_in_a_scrape(queries: list[Query], exposition: str) -> None:
    assert len(queries) > 50
    assert missing(queries, exposition) == []


def test_what_only_a_gpu_exports_is_exported_there() -> None:
    metrics = metrics_after(0)
    metrics.watch_gpu(lambda: 1.0)
    names = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    assert names >= ONLY_ON_A_GPU


def test_every_metric_of_ours_is_on_the_dashboard_or_in_a_rule(queries: list[Query]) -> None:
    used = {name for query in queries for name in uses(query.expr).metrics}
    for family in metrics_after(1).registry.collect():
        if family.name.startswith("adaptd_"):
            assert used & {sample.name for sample in family.samples}, family.name


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_panel_has_a_unit_a_description_and_a_threshold(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"]
    assert len(panel["description"]) > 20
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_selector_heeds_the_variables(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        for metric, matchers in uses(filled_in(target["expr"], VARIABLES)).metrics.items():
            assert {m.label for m in matchers} >= {"namespace", "pod", "instance"}, metric


@pytest.mark.parametrize(
    "panel", [p for p in PANELS if p["type"] == "stat"], ids=lambda panel: panel["title"]
)
def test_a_number_that_is_unknown_now_is_shown_as_unknown(panel: dict[str, Any]) -> None:
    """Grafana would show the last number known, or nothing in the colour of the lowest threshold,
    which often is green."""
    assert panel["options"]["reduceOptions"]["calcs"] == ["last"]
    assert all(target["instant"] and not target["range"] for target in panel["targets"])
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["noValue"] == "unknown"
    (mapping,) = defaults["mappings"]
    assert mapping["options"]["match"] == "null+nan"
    assert mapping["options"]["result"]["color"] != "green"


def test_variables_match_also_where_no_such_label_is() -> None:
    variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "pod", "instance"]
    for name in ("namespace", "pod", "instance"):
        assert variables[name]["includeAll"]
        assert variables[name]["allValue"] == ".*"
        assert variables[name]["current"]["value"] == ["$__all"]


def test_panels_lie_side_by_side() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above
