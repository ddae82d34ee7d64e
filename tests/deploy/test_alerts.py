"""What `make alerts-check` rests on: shortened rules, inhibition, and a cause for each alert."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.alerts.causes import CAUSES, CONTROL, ELSEWHERE, LATER, PLANS, WITH_CGROUPS
from deploy.alerts.inhibition import InhibitRule, Labels, inhibit_rules, sent
from deploy.alerts.shortened import shortened_expr, shortened_rules, shortened_s
from deploy.prometheus.queries import all_rules

ALERTS = {rule["alert"] for rule in all_rules() if "alert" in rule}


def alert(name: str, **labels: str) -> Labels:
    return {"alertname": f"Adaptd{name}", "namespace": "ns", "job": "adaptd"} | labels


def names(alerts: list[Labels]) -> set[str]:
    return {each["alertname"].removeprefix("Adaptd") for each in alerts}


def test_the_shortened_rules_are_prometheus_own(tmp_path: Path, promtool: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(shortened_rules())
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ranges_and_thresholds_of_seconds_are_shortened_and_nothing_else() -> None:
    assert shortened_expr('rate(a{le="5.0"}[10m]) > 120 and b > 0.01 and c > 5 and d < 60') == (
        'rate(a{le="5.0"}[30000ms]) > 6 and b > 0.01 and c > 5 and d < 3'
    )
    assert shortened_expr("min_over_time((a - b)[5m:30s]) > 0") == (
        "min_over_time((a - b)[15000ms:1500ms]) > 0"
    )
    assert shortened_expr("x > 60 * y") == "x > 3 * y"


def test_longer_times_stay_longer() -> None:
    times = [1, 60, 300, 899, 900, 901, 3600, 86_400, 259_200]
    short = [shortened_s(time) for time in times]
    assert short == sorted(short)
    assert short[4] == 45
    assert short[-1] < 200


def test_each_cause_is_done_to_an_installation_and_names_alerts_that_exist() -> None:
    plans = {plan.name for plan in PLANS}
    causes = (*CAUSES, *LATER, *WITH_CGROUPS)
    assert {cause.installation for cause in causes} == plans - {CONTROL}
    for cause in causes:
        assert {f"Adaptd{name}" for name in cause.alerts} <= ALERTS


def test_each_alert_is_caused_or_it_is_said_why_not() -> None:
    caused = {alert for cause in (*CAUSES, *LATER, *WITH_CGROUPS) for alert in cause.alerts}
    assert {f"Adaptd{name}" for name in (*caused, *ELSEWHERE, "PodNotStarted")} == ALERTS
    assert not caused & ELSEWHERE.keys()


@pytest.mark.parametrize(
    ("firing", "expected"),
    [
        (
            ["ServiceUnavailable", "NotReady", "FallingBehind", "FreshnessBurnFast"],
            {"ServiceUnavailable"},
        ),
        (["FreshnessBurnFast", "FreshnessBurn", "FreshnessBurnSlow"], {"FreshnessBurnFast"}),
        (["Absent", "Down", "PodNotStarted"], {"Absent"}),
        (["PartitionStuck", "FallingBehind"], {"PartitionStuck"}),
        (["NotConsuming", "FallingBehind"], {"NotConsuming"}),
        (["LoopStalled", "ServiceUnavailable"], {"ServiceUnavailable"}),
        (["NotReady", "DeadLetters"], {"NotReady", "DeadLetters"}),
    ],
)
def test_one_outage_is_one_page(firing: list[str], expected: set[str]) -> None:
    alerts = [alert(name, instance="a:1") for name in firing]
    assert names(sent(alerts, inhibit_rules())) == expected


def test_an_outage_of_one_installation_silences_nothing_of_another() -> None:
    there = alert("ServiceUnavailable", job="one")
    here = alert("NotReady", job="two")
    assert sent([there, here], inhibit_rules()) == [there, here]


def test_a_label_that_both_lack_is_equal_and_an_alert_does_not_silence_itself() -> None:
    rule = InhibitRule(['alertname =~ "A|B"'], ['alertname = "B"'], ["namespace"])
    assert sent([{"alertname": "A"}, {"alertname": "B"}], [rule]) == [{"alertname": "A"}]
    assert sent([{"alertname": "B"}], [rule]) == [{"alertname": "B"}]
    both: list[Labels] = [{"alertname": "A", "namespace": "x"}, {"alertname": "B"}]
    assert sent(both, [rule]) == both
