"""The rules use what exists, are explained, and do what rules_test.yaml says."""

from __future__ import annotations

import re
import subprocess
from typing import Any, get_args

import pytest
import yaml

from daemon.errors import MalformedReason
from daemon.worker.metric_specs import LATENCY_S
from deploy.helm.render import KUBERNETES, documents
from deploy.prometheus.promql import missing
from deploy.prometheus.queries import DEPLOY, RULES, all_rules, rule_queries

ALERTS = [rule for rule in all_rules() if "alert" in rule]
RUNBOOK = (DEPLOY / "RUNBOOK.md").read_text()
RULES_TEST = DEPLOY / "prometheus" / "rules_test.yaml"


def test_every_metric_and_label_is_in_a_scrape(exposition: str) -> None:
    assert missing(rule_queries(), exposition) == []


def test_the_objective_is_a_bucket() -> None:
    assert 5.0 in LATENCY_S


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_says_what_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"]
    file, anchor = alert["annotations"]["runbook_url"].split("#")
    assert file == "deploy/RUNBOOK.md"
    assert anchor in {heading.lower() for heading in headings()}


def headings() -> list[str]:
    return re.findall(r"^## (\w+)$", RUNBOOK, re.M)


def test_the_runbook_has_no_section_without_an_alert() -> None:
    assert headings() == [alert["alert"] for alert in ALERTS]


def test_the_runbooks_links_lead_somewhere() -> None:
    linked = set(re.findall(r"\(#(\w+)\)", RUNBOOK))
    assert linked <= {heading.lower() for heading in headings()}


def test_the_runbook_explains_every_dead_letter_reason() -> None:
    assert [reason for reason in get_args(MalformedReason) if f"`{reason}`" not in RUNBOOK] == []


def test_the_rendered_manifest_holds_the_same_groups() -> None:
    rendered = (KUBERNETES / "monitoring.yaml").read_text()
    (rule,) = (m for m in documents(rendered) if m["kind"] == "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(RULES.read_text()), "make chart"


def test_each_alert_is_seen_firing_by_promtool() -> None:
    firing = set(re.findall(r'alertname="(\w+)"', RULES_TEST.read_text()))
    assert firing == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize(
    "words", [["check", "rules", str(RULES)], ["test", "rules", str(RULES_TEST)]]
)
def test_promtool_agrees(promtool: str, words: list[str]) -> None:
    done = subprocess.run([promtool, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
