"""The inhibit rules name alerts that exist, never each other's, and labels that those carry."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from deploy.prometheus.queries import DEPLOY, all_rules

RULES: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "inhibit.yaml").read_text())[
    "inhibit_rules"
]
ALERTS = {rule["alert"]: rule for rule in all_rules() if "alert" in rule}


def matched(matchers: list[str]) -> set[str]:
    """The alerts that these matchers choose."""
    found = set(ALERTS)
    for matcher in matchers:
        name, operator, pattern = re.fullmatch(r'(\w+) (=~?) "(.*)"', matcher).groups()  # type: ignore[union-attr]
        assert name == "alertname"
        exact = re.escape(pattern) if operator == "=" else pattern
        found &= {alert for alert in ALERTS if re.fullmatch(exact, alert)}
    return found


@pytest.mark.parametrize(
    "rule", RULES, ids=lambda rule: str(sorted(matched(rule["source_matchers"])))
)
def test_a_rule_silences_other_alerts_that_exist(rule: dict[str, Any]) -> None:
    source, target = matched(rule["source_matchers"]), matched(rule["target_matchers"])
    assert len(source) == 1
    assert target
    assert not source & target
    named = set(re.findall(r"Adaptd\w+", " ".join(rule["target_matchers"])))
    assert named <= ALERTS.keys()


def test_no_alert_is_silenced_by_one_that_it_silences() -> None:
    pairs = {
        (source, target)
        for rule in RULES
        for source in matched(rule["source_matchers"])
        for target in matched(rule["target_matchers"])
    }
    assert not {(b, a) for a, b in pairs} & pairs


def test_a_critical_alert_is_silenced_by_critical_ones_only() -> None:
    for rule in RULES:
        (source,) = matched(rule["source_matchers"])
        for target in matched(rule["target_matchers"]):
            if ALERTS[target]["labels"]["severity"] == "critical":
                assert ALERTS[source]["labels"]["severity"] == "critical", (source, target)
