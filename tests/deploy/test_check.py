"""What the check makes of Prometheus' answers; `make prometheus-check` asks a real one."""

from __future__ import annotations

from typing import cast

import pytest

from deploy.prometheus.check import (
    MAY_BE_EMPTY,
    as_truth,
    check,
    prometheus,
)
from deploy.prometheus.queries import dashboard_queries, rule_queries
from deploy.prometheus.server import CannotCheck, Prometheus, Vector

ONE: Vector = [{"metric": {}, "value": [0, "1"]}]


class Answers:
    """A Prometheus that answers `empty` queries with nothing and `broken` ones with an error."""

    def __init__(self, empty: str = "\0", broken: str = "\0", up: bool = True) -> None:
        self._empty, self._broken, self._up = empty, broken, up

    def query(self, expr: str) -> Vector:
        if expr.startswith("sum_over_time(up"):
            return ONE if self._up else []
        if self._broken in expr:
            raise ValueError("parse error")
        return [] if self._empty in expr else ONE

    def why_down(self) -> str:
        return "connection refused"

    def rule_errors(self) -> dict[str, str]:
        return {}


def findings(answers: Answers) -> dict[str, str]:
    found = check(cast(Prometheus, answers), scrapes=3, wait_s=0.1)
    return {finding.query.where: finding.status for finding in found}


def test_all_queries_are_asked() -> None:
    asked = findings(Answers())
    assert asked.keys() >= {query.where for query in dashboard_queries() + rule_queries()}
    assert asked.keys() >= MAY_BE_EMPTY.keys()
    assert set(asked.values()) == {"ok", "firing"}


def test_a_query_without_data_is_told_apart_from_one_that_may_have_none() -> None:
    found = findings(Answers(empty="adaptd_ready"))
    assert found["panel 'Workers' A"] == "no data"
    assert found["alert AdaptdNotReady"] == "empty"
    assert found["alert AdaptdNotReady, its series"] == "no data"
    assert findings(Answers(empty="gpu"))["panel 'GPU memory' A"] == "empty"


def test_an_error_is_an_error_also_where_data_may_be_absent() -> None:
    assert findings(Answers(broken="gpu"))["panel 'GPU memory' A"] == "error"


def test_a_target_that_is_not_there_is_named() -> None:
    with pytest.raises(CannotCheck, match="connection refused"):
        findings(Answers(up=False))


def test_without_prometheus_it_says_what_to_install() -> None:
    with (
        pytest.raises(CannotCheck, match="apt-get install prometheus"),
        prometheus("127.0.0.1:1", binary="no-such-prometheus"),
    ):
        pass


def test_comparisons_become_truth_values() -> None:
    assert as_truth("a\n> 1\nand\nb{x!='y'} == 0 unless c < 2") == (
        "a\n> bool 1\nand\nb{x!='y'} == bool 0 and c < bool 2"
    )
