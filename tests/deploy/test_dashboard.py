"""The dashboards ask for nothing that a worker does not export, and explain every panel."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest

from deploy.grafana.files import board_files
from deploy.prometheus.promql import ONLY_ON_A_GPU, missing, uses
from deploy.prometheus.queries import DASHBOARDS, VARIABLES, Query, all_rules, filled_in, panels
from tests.deploy.scrapes import metrics_after

BOARDS: dict[str, dict[str, Any]] = {p.stem: json.loads(p.read_text()) for p in DASHBOARDS}
PANELS = [panel for board in BOARDS.values() for panel in panels(board)]
NOT_OF_A_WORKER = {"ALERTS", "up"}
each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())


def test_the_files_are_what_the_source_says() -> None:
    made = dict(board_files())
    assert set(made) == set(DASHBOARDS)
    for path, text in made.items():
        assert path.read_text() == text, "make boards"


def test_every_metric_and_label_is_in_a_scrape(queries: list[Query], exposition: str) -> None:
    assert len(queries) > 100
    assert missing(queries, exposition) == []


def test_what_only_a_gpu_exports_is_exported_there() -> None:
    metrics = metrics_after(0)
    metrics.watch_gpu(lambda: 1.0, 2)
    names = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    assert names >= ONLY_ON_A_GPU


def test_every_metric_of_ours_is_on_a_dashboard_or_in_a_rule(queries: list[Query]) -> None:
    used = {name for query in queries for name in uses(query.expr).metrics}
    for family in metrics_after(1).registry.collect():
        if family.name.startswith("adaptd_"):
            assert used & {sample.name for sample in family.samples}, family.name


def test_the_first_board_is_eight_panels_under_the_firing_alerts() -> None:
    first, *others = panels(BOARDS["adaptd"])
    assert (first["type"], first["title"]) == ("state-timeline", "Firing alerts")
    assert len(others) == 8


def test_each_alert_on_the_first_board_leads_to_its_section_of_the_runbook() -> None:
    first = next(panels(BOARDS["adaptd"]))
    links = {
        override["matcher"]["options"]: override["properties"][0]["value"][0]["url"]
        for override in first["fieldConfig"]["overrides"]
    }
    alerts = [rule["alert"] for rule in all_rules() if "alert" in rule]
    assert links == {f"^{name}\\b.*": f"${{runbook}}#{name.lower()}" for name in alerts}


@each_board
def test_each_board_leads_to_the_others_and_to_the_runbook(board: dict[str, Any]) -> None:
    urls = {link["url"] for link in board["links"]}
    assert urls == {f"/d/{uid}" for uid in BOARDS if uid != board["uid"]} | {"${runbook}"}


@each_board
def test_each_board_shows_what_was_changed(board: dict[str, Any]) -> None:
    names = [annotation["name"] for annotation in board["annotations"]["list"]]
    assert names == ["θ changed", "rollout", "worker started", "rebalance"]


@each_panel
def test_each_panel_has_a_unit_a_description_and_a_threshold(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"]
    assert len(panel["description"]) > 20
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"


@each_panel
def test_each_selector_heeds_the_variables(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        for metric, matchers in uses(filled_in(target["expr"], VARIABLES)).metrics.items():
            if metric not in NOT_OF_A_WORKER:
                assert {m.label for m in matchers} >= {"namespace", "pod", "instance"}, metric


@pytest.mark.parametrize(
    "panel",
    [p for p in PANELS if p["type"] in ("stat", "state-timeline")],
    ids=lambda panel: panel["title"],
)
def test_a_value_that_is_unknown_now_is_shown_as_unknown(panel: dict[str, Any]) -> None:
    """Grafana would show the last number known, or nothing in the colour of the lowest threshold,
    which often is green."""
    if panel["type"] == "stat":
        assert panel["options"]["reduceOptions"]["calcs"] == ["last"]
        assert all(target["instant"] and not target["range"] for target in panel["targets"])
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["noValue"] == "unknown"
    mapping = defaults["mappings"][-1]
    assert mapping["options"]["match"] == "null+nan"
    assert mapping["options"]["result"]["color"] != "green"


@pytest.mark.parametrize(
    "panel", [p for p in PANELS if p["type"] == "timeseries"], ids=lambda panel: panel["title"]
)
def test_a_line_has_a_gap_where_nothing_is_known(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False


@pytest.mark.parametrize(
    "panel",
    [p for p in PANELS if "loss" in p["title"].lower()],
    ids=lambda panel: panel["title"],
)
def test_losses_are_quantiles_that_one_huge_loss_does_not_move(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert "histogram_quantile" in target["expr"]


@each_board
def test_variables_match_also_where_no_such_label_is(board: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "pod", "instance", "runbook"]
    for name in ("namespace", "pod", "instance"):
        assert variables[name]["includeAll"]
        assert variables[name]["allValue"] == ".*"
        assert variables[name]["current"]["value"] == ["$__all"]


@each_board
def test_panels_lie_side_by_side(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above
