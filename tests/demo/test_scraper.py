from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.samples import Sample

from daemon.demo.scraper import parse_figures, quantile, scrape
from daemon.turn.report import Holdings, Publication, TurnReport
from daemon.turn.streams import StreamId
from daemon.worker.metrics import Metrics
from model.values.gate import Outcome


def buckets(*observed: float) -> list[Sample]:
    histogram = Histogram("h", "", buckets=(1.0, 2.0, 4.0), registry=CollectorRegistry())
    for value in observed:
        histogram.observe(value)
    (family,) = histogram.collect()
    return [sample for sample in family.samples if sample.name.endswith("_bucket")]


@pytest.mark.parametrize(
    ("observed", "q", "expected"),
    [
        ((), 0.5, 0.0),
        ((1.5, 1.5), 0.5, 1.5),
        ((1.5, 1.5), 1.0, 2.0),
        ((0.5, 3.0, 3.0, 3.0), 0.25, 1.0),
        ((9.0,), 0.5, 4.0),  # of the last bucket only its lower end is known
    ],
)
def test_a_quantile_is_interpolated_in_its_bucket(
    observed: tuple[float, ...], q: float, expected: float
) -> None:
    assert quantile(q, buckets(*observed)) == pytest.approx(expected)


def test_the_figures_are_those_of_the_daemons_own_metrics() -> None:
    metrics = Metrics()
    report = TurnReport("t-1", events=5, pairs=4, replayed_pairs=1)
    report.dead_letters["schema"] += 2
    report.published = [Publication(StreamId(0, "s"), 7, Outcome.ADAPTED, 0.07)]
    report.holdings = Holdings(lag={0: 3, 1: 4})
    metrics.record(report, ended_at=1.0)
    found = parse_figures(generate_latest(metrics.registry).decode())
    counts = {"accepted": 5, "dead_letters": 2, "pairs_new": 4, "pairs_replayed": 1}
    assert found.items() >= (counts | {"turns": 1, "lag": 7, "published": 1}).items()
    assert 0.05 < found["p50_s"] <= found["p99_s"] <= 0.1


def test_a_worker_that_does_not_answer_is_not_ready() -> None:
    scraped = scrape("names", "http://127.0.0.1:9")  # the discard service, which nobody runs
    assert not scraped.ready
    assert "no answer" in scraped.why
