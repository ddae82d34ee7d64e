"""Metrics are told from labels in PromQL, and what a scrape lacks is found."""

from __future__ import annotations

import pytest

from deploy.prometheus.promql import Matcher, missing, uses
from deploy.prometheus.queries import Query

SCRAPE = """\
# TYPE a counter
a_total{kind="x"} 1
a_total{kind="y"} 2
# TYPE h histogram
h_bucket{le="0.5"} 1
h_bucket{le="+Inf"} 1
h_count 1
h_sum 0.1
"""


def lacks(expr: str, where: str = "panel") -> list[str]:
    return missing([Query(where, expr)], SCRAPE)


def test_metrics_matched_labels_and_grouped_labels_are_told_apart() -> None:
    found = uses('sum by (le) (rate(adaptd_x_bucket{instance=~"a{b}", le="5.0"}[5m])) > 0.5')
    assert found.metrics == {
        "adaptd_x_bucket": {Matcher("instance", None), Matcher("le", "5.0")},
    }
    assert found.grouped == {"le"}


@pytest.mark.parametrize(
    ("expr", "metrics", "grouped"),
    [
        ("a", {"a"}, set()),
        ("sum(rate(a[5m])) by (x, y)", {"a"}, {"x", "y"}),
        ("a * on (x) group_left (y) b", {"a", "b"}, {"x", "y"}),
        ("a / on () group_left () b", {"a", "b"}, set()),
        ("a / ignoring (x) group_left b", {"a", "b"}, {"x"}),
        ("a offset 5m and b unless c or d", {"a", "b", "c", "d"}, set()),
        ("max_over_time(rate(a[5m])[1h:1m]) > bool 1e3", {"a"}, set()),
        ("time() - a # since b", {"a"}, set()),
        ("histogram_quantile(0.99, sum without (x) (a))", {"a"}, {"x"}),
        ("count(a) > Inf", {"a"}, set()),
        ("level:a:ratio_rate5m", {"level:a:ratio_rate5m"}, set()),
        ("-topk(scalar(b), a @ end())", {"a", "b"}, set()),
    ],
)
def test_every_form_that_metrics_take(expr: str, metrics: set[str], grouped: set[str]) -> None:
    found = uses(expr)
    assert (set(found.metrics), found.grouped) == (metrics, grouped)


def test_each_alternative_of_a_selector_counts() -> None:
    assert uses('a{x="1" or y!="2"}').metrics == {"a": {Matcher("x", "1"), Matcher("y", None)}}


@pytest.mark.parametrize("expr", ["a ~ b", 'a{b="c', "sum by (x (a)", "no_such_function(a)"])
def test_what_is_not_promql_is_an_error(expr: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are the parser's
        uses(expr)


@pytest.mark.parametrize("expr", ['{job="a"}', '{__name__="a"}'])
def test_a_selector_must_name_its_metric(expr: str) -> None:
    with pytest.raises(ValueError, match="without a metric's name"):
        uses(expr)


@pytest.mark.parametrize(
    "expr",
    [
        'sum by (kind) (rate(a_total{kind="x", job=~".*"}[5m]))',
        'histogram_quantile(0.9, sum by (le) (h_bucket{le!="7"}))',
        "h_sum / h_count and on (job, instance) up == 1",
        "adaptd_gpu_memory_bytes",
        "vector(1)",
    ],
)
def test_what_the_scrape_has_is_not_missing(expr: str) -> None:
    assert lacks(expr) == []


@pytest.mark.parametrize(
    ("expr", "line"),
    [
        ("rate(a[5m])", "panel: no metric a"),
        ("sum(a_total) / b_total", "panel: no metric b_total"),
        ('a_total{sort="x"}', "panel: no label sort on a_total"),
        ('a_total{kind="z"}', "panel: no kind='z' on a_total"),
        ('h_bucket{le="5.0"}', "panel: no le='5.0' on h_bucket"),
        ("sum by (le) (a_total)", "panel: no label le to group by"),
        ("time() > bool 1", "panel: no metric in it"),
    ],
)
def test_what_the_scrape_lacks_is_named(expr: str, line: str) -> None:
    assert lacks(expr) == [line]


def test_a_recorded_series_counts_as_there() -> None:
    rules = [Query("record a:rate5m", "rate(a_total[5m])"), Query("alert Late", "a:rate5m > 1")]
    assert missing(rules, SCRAPE) == []
    assert missing(rules[1:], SCRAPE) == ["alert Late: no metric a:rate5m"]
