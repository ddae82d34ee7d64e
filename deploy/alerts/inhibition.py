"""Which of the alerts that fire are sent, by the inhibit rules: what Alertmanager does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from deploy.prometheus.queries import DEPLOY

MATCHER = re.compile(r'(\w+) (=~?) "(.*)"')
Labels = Mapping[str, str]


class InhibitRule(NamedTuple):
    """While an alert of `source` fires, those of `target` with the same `equal` are not sent."""

    source: Sequence[str]
    target: Sequence[str]
    equal: Sequence[str]


def inhibit_rules() -> list[InhibitRule]:
    """Returns the rules that are shipped."""
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "inhibit.yaml").read_text())
    return [
        InhibitRule(rule["source_matchers"], rule["target_matchers"], rule["equal"])
        for rule in loaded["inhibit_rules"]
    ]


def sent(firing: Sequence[Labels], rules: Sequence[InhibitRule]) -> list[Labels]:
    """Returns the alerts that are sent while all of these fire. A label that an alert lacks equals
    one that is empty, as for Alertmanager."""
    return [alert for alert in firing if not any(_silences(rule, firing, alert) for rule in rules)]


def _silences(rule: InhibitRule, firing: Sequence[Labels], alert: Labels) -> bool:
    return _matches(rule.target, alert) and any(
        _matches(rule.source, other)
        and all(other.get(name, "") == alert.get(name, "") for name in rule.equal)
        for other in firing
        if other is not alert
    )


def _matches(matchers: Sequence[str], alert: Labels) -> bool:
    for matcher in matchers:
        name, operator, pattern = MATCHER.fullmatch(matcher).groups()  # type: ignore[union-attr]
        value = alert.get(name, "")
        if not (value == pattern if operator == "=" else re.fullmatch(pattern, value)):
            return False
    return True
