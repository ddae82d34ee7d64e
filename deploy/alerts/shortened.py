"""The shipped rules with shortened times, so that what they wait for comes within minutes.

Times up to a quarter of an hour are divided by FACTOR. Longer ones grow with the fourth root from
there: three days become three minutes, and longer times stay longer than shorter ones. A worker's
start takes as long as ever, so the time within which restarts count is not shortened.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from deploy.prometheus.queries import RULES

FACTOR = 20
KNEE_S = 900.0
AS_SHIPPED = ("AdaptdCrashLoop",)
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DURATION = re.compile(r"(\d+)([smhd])")
SECONDS = re.compile(r"(?<=[<>] )(60|120|300)\b")
"""Thresholds that are seconds: ages, and times away."""


def shortened_s(seconds: float) -> float:
    """Returns what a time becomes."""
    knee = KNEE_S / FACTOR
    return seconds / FACTOR if seconds <= KNEE_S else knee * (seconds / KNEE_S) ** 0.25


def shortened_rules() -> str:
    """Returns the text of rules.yaml with shortened times."""
    rules: dict[str, Any] = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            if rule.get("alert") not in AS_SHIPPED:
                rule["expr"] = shortened_expr(rule["expr"])
            if "for" in rule:
                rule["for"] = _shortened(rule["for"])
    return yaml.safe_dump(rules, allow_unicode=True, sort_keys=False)


def shortened_expr(expr: str) -> str:
    """Returns an expression with its ranges and its thresholds of seconds shortened."""
    expr = re.sub(r"\[[\dsmhd:]+\]", lambda m: DURATION.sub(_part, m[0]), expr)
    return SECONDS.sub(lambda m: f"{shortened_s(float(m[0])):g}", expr)


def _part(found: re.Match[str]) -> str:
    return _shortened(found[0])


def _shortened(duration: str) -> str:
    number, unit = DURATION.fullmatch(duration).groups()  # type: ignore[union-attr]
    return f"{max(1000, round(1000 * shortened_s(int(number) * UNITS[unit])))}ms"


def waits_s(rule: dict[str, Any]) -> float:
    """Returns how long an alert's expression must hold, as shipped."""
    number, unit = DURATION.fullmatch(rule.get("for", "0s")).groups()  # type: ignore[union-attr]
    return float(int(number) * UNITS[unit])
