"""Metrics: each with help and unit, none per stream, none spoilt by a NaN."""

from __future__ import annotations

import ast
import math
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

import daemon
import model
from daemon.errors import MalformedReason, RefusalReason
from daemon.turn.report import Holdings, Publication, TurnReport, Verdict, latency_s
from daemon.turn.streams import StreamId
from daemon.worker.build import build_facts
from daemon.worker.metric_specs import COUNTERS, GAUGES, HISTOGRAMS, KNOWN_LABELS, MetricSpec
from daemon.worker.metrics import Metrics
from model.theta.info import ThetaInfo
from model.values.episode import Adaptation
from model.values.gate import Outcome
from tests.daemon.lab import LinearEngine

SHAPES: dict[str, MetricSpec] = {
    str(name): shape for group in (HISTOGRAMS, COUNTERS, GAUGES) for name, shape in group.items()
}
NOW_MS = 1_800_000_000_000
UNITS = ("seconds", "bytes", "records", "streams", "partitions", "loss")
COUNTED = {"events", "pairs", "dead_letters", "adaptations", "unavailable", "ready"}
COUNTED |= {"recovery_stalled", "meta_init_refused"}
COUNTED |= {"canary", "canary_difference", "canary_log_e"}  # states, and numbers without a unit


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"adaptd_{name}", labels)


def verdict(loss: float, finite: bool = True) -> Verdict:
    return Verdict(
        stream=StreamId(0, "a-stream"),
        version=5,
        support_pairs=3,
        query_pairs=1,
        adaptation=Adaptation({}, 1.0, loss, 2.0, loss, finite),
        outcome=Outcome.ADAPTED if finite else Outcome.NOT_FINITE,
    )


def report() -> TurnReport:
    made = TurnReport("w-1")
    made.stages = {"poll": 5.0, "adapt": 0.25, "publish": 0.5}
    made.events, made.pairs, made.replayed_pairs = 3, 4, 1
    made.dead_letters = Counter({"schema": 2})
    made.verdicts = [verdict(0.5), verdict(math.nan, finite=False), verdict(math.inf, False)]
    made.published = [Publication(StreamId(0, "a-stream"), 5, Outcome.ADAPTED, 0.75)]
    made.holdings = Holdings(assigned=2, streams=7, changed=1, deferred=2, lag={0: 3, 1: 0})
    return made


def test_every_metric_says_what_it_is_and_in_which_unit() -> None:
    for family in Metrics().registry.collect():
        assert family.documentation
    for name, shape in SHAPES.items():
        assert shape.help.endswith(".")
        assert name.endswith(UNITS) or name in COUNTED or name in COUNTERS, name


def test_every_metric_of_ours_begins_with_our_name() -> None:
    theirs = ("process_", "python_")
    names = [family.name for family in Metrics().registry.collect()]
    assert all(name.startswith(("adaptd_", *theirs)) for name in names)


def test_no_label_grows_with_the_streams() -> None:
    metrics = Metrics()
    metrics.record(report(), ended_at=1.0)
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    assert not any("a-stream" in sample.labels.values() for sample in samples)
    labels = {shape.label for shape in SHAPES.values()}
    assert labels <= {
        *(None, "stage", "when", "outcome", "reason", "service", "partition", "state", "mapping"),
        *("action", "bet", "side"),
    }


def test_a_turn_is_counted() -> None:
    metrics = Metrics()
    metrics.record(report(), ended_at=99.0)
    assert value(metrics, "events_total", outcome="accepted") == 3
    assert value(metrics, "events_total", outcome="dead_letter") == 2
    assert value(metrics, "dead_letters_total", reason="schema") == 2
    assert value(metrics, "pairs_total", outcome="new") == 4
    assert value(metrics, "pairs_total", outcome="replayed") == 1
    assert value(metrics, "adaptations_total", outcome="not_finite") == 2
    assert value(metrics, "mappings_published_total", outcome="adapted") == 1
    assert value(metrics, "event_to_publish_seconds_sum") == 0.75
    assert value(metrics, "inner_loop_seconds_sum") == 0.25
    assert value(metrics, "turn_seconds_sum") == 0.75  # without waiting for records
    assert value(metrics, "turn_stage_seconds_count", stage="publish") == 1
    assert value(metrics, "consumer_lag_records", partition="0") == 3
    assert value(metrics, "streams", state="resident") == 7
    assert value(metrics, "last_turn_timestamp_seconds") == 99.0


def served(version: str) -> ThetaInfo:
    dims = replace(LinearEngine.theta, source_dim=4, hidden_dim=8, target_dim=2)
    return replace(dims, version=version, encoder_version="e")


def test_the_theta_that_is_served_is_the_only_one_told() -> None:
    metrics = Metrics()
    labels = {"encoder": "e", "mapping": "4x8x2", "device": "cpu"}
    for version in ("v1", "v2"):
        metrics.serves(served(version), "cpu")
        assert value(metrics, "meta_init_info", version=version, **labels) == 1
    assert value(metrics, "meta_init_info", version="v1", **labels) is None


def test_changes_and_refusals_of_theta_are_counted_and_a_refusal_stands_until_settled() -> None:
    metrics = Metrics()
    for reason in get_args(RefusalReason):
        assert value(metrics, "meta_init_refusals_total", reason=reason) == 0
    metrics.refused("missing")
    assert value(metrics, "meta_init_refusals_total", reason="missing") == 1
    assert value(metrics, "meta_init_refused") == 1
    metrics.settled()
    assert value(metrics, "meta_init_refused") == 0
    metrics.refused("unusable")
    metrics.serves(served("v2"), "cpu")
    metrics.swapped()
    assert value(metrics, "meta_init_refused") == 0
    assert value(metrics, "meta_init_swaps_total") == 1


def test_a_renewal_has_no_latency() -> None:
    metrics, renewed = Metrics(), report()
    renewed.published = [Publication(StreamId(0, "s"), 5, Outcome.ADAPTED, 0.0, renewal=True)]
    renewed.holdings = Holdings(renewals=4)
    metrics.record(renewed, ended_at=1.0)
    assert value(metrics, "event_to_publish_seconds_count") == 0
    assert value(metrics, "mappings_published_total", outcome="adapted") == 1
    assert value(metrics, "streams", state="renewal") == 4


def test_losses_that_are_not_finite_do_not_spoil_the_sums() -> None:
    metrics = Metrics()
    metrics.record(report(), ended_at=1.0)
    assert value(metrics, "query_loss_sum", when="after") == 0.5
    assert value(metrics, "query_loss_sum", when="before") == 2.0
    assert value(metrics, "support_loss_count", when="before") == 1


def test_one_huge_loss_does_not_deafen_the_sums() -> None:
    """In float64, 1e37 and 0.5 make 1e37: the mean would stand still until the next restart."""
    metrics, huge = Metrics(), report()
    huge.verdicts = [verdict(1e37)]
    metrics.record(huge, ended_at=1.0)
    before = value(metrics, "query_loss_sum", when="after")
    metrics.record(report(), ended_at=2.0)
    after = value(metrics, "query_loss_sum", when="after")
    assert before is not None
    assert after is not None
    assert after - before == 0.5


@pytest.mark.parametrize(
    ("recorded_ms", "latency"),
    [
        (NOW_MS - 250, 0.25),
        (NOW_MS + 59_000, 0.0),  # the producer's clock is a little fast
        (NOW_MS - 365 * 86_400_000, 365 * 86_400.0),  # a topic read anew
        (1, None),
        (0, None),
        (-1, None),
        (NOW_MS // 1000, None),  # seconds for milliseconds
        (300_000 * 31_556_952_000, None),
        (NOW_MS + 61_000, None),
    ],
)
def test_times_that_cannot_be_right_do_not_enter_the_histogram(
    recorded_ms: int, latency: float | None
) -> None:
    metrics, odd = Metrics(), report()
    assert latency_s(recorded_ms, NOW_MS) == latency
    odd.published = [
        Publication(StreamId(0, "s"), 5, Outcome.ADAPTED, latency_s(recorded_ms, NOW_MS))
    ]
    metrics.record(odd, ended_at=1.0)
    assert value(metrics, "event_to_publish_seconds_count") == (latency is not None)
    assert value(metrics, "event_to_publish_seconds_sum") == (latency or 0.0)
    assert value(metrics, "publications_without_latency_total") == (latency is None)


def test_what_is_not_known_is_not_shown() -> None:
    metrics = Metrics()
    known = {"meta_init_refused", "recovery_stalled"}
    shown = {family.name.removeprefix("adaptd_") for family in metrics.registry.collect()}
    assert shown & set(GAUGES) == known
    metrics.gave_up("kafka")
    assert value(metrics, "streams", state="resident") is None
    metrics.record(report(), ended_at=1.0)
    assert value(metrics, "assigned_partitions") == 2


def test_lag_is_unknown_while_a_service_is_away() -> None:
    metrics = Metrics()
    metrics.record(report(), ended_at=1.0)
    metrics.gave_up("kafka")
    assert value(metrics, "consumer_lag_records", partition="0") is None
    metrics.record(report(), ended_at=2.0)
    assert value(metrics, "consumer_lag_records", partition="0") == 3


def test_the_build_names_its_parts() -> None:
    facts = build_facts("librdkafka", {"SOURCE_REVISION": "abc"})
    assert facts.keys() == {"version", "revision", "torch", "client"}
    assert facts["revision"] == "abc"
    assert facts["client"].startswith("librdkafka ")
    assert value(Metrics(facts), "build_info", **facts) == 1
    assert build_facts("kafka-python", {})["client"].startswith("kafka-python 3")


def test_a_checkout_tells_its_commit() -> None:
    checkout = Path(daemon.__path__[0]).parent
    if not (checkout / ".git").exists():
        pytest.skip("not a git checkout")
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert build_facts("kafka-python", {})["revision"] == asked.stdout.strip()


def test_lost_log_lines_are_counted() -> None:
    metrics, lost = Metrics(), [3]
    metrics.watch_log(lambda: lost[0])
    for seen in (3, 3, 7):
        lost[0] = seen
        metrics.record(report(), ended_at=1.0)
        assert value(metrics, "log_lines_lost_total") == seen


def test_a_partition_that_is_gone_has_no_lag() -> None:
    metrics = Metrics()
    metrics.record(report(), ended_at=1.0)
    later = TurnReport("w-2", lost={1}, holdings=Holdings(assigned=1, lag={0: 3}))
    metrics.record(later, ended_at=2.0)
    assert value(metrics, "consumer_lag_records", partition="1") is None
    assert value(metrics, "consumer_lag_records", partition="0") == 3


def test_a_partition_whose_end_is_not_known_has_no_lag() -> None:
    metrics = Metrics()
    metrics.record(report(), ended_at=1.0)
    metrics.record(TurnReport("w-2", holdings=Holdings(assigned=2, lag={1: 7})), ended_at=2.0)
    assert value(metrics, "consumer_lag_records", partition="0") is None
    assert value(metrics, "consumer_lag_records", partition="1") == 7


def test_known_labels_are_shown_as_zero_from_the_start() -> None:
    metrics = Metrics()
    for reason in get_args(MalformedReason):
        assert value(metrics, "dead_letters_total", reason=reason) == 0
    assert value(metrics, "unavailable_total", service="kafka") == 0
    metrics.gave_up("kafka")
    assert value(metrics, "unavailable_total", service="kafka") == 1
    assert set(KNOWN_LABELS) <= set(SHAPES)


def test_readiness_is_as_readyz_says() -> None:
    metrics, ready = Metrics(), [False]
    metrics.watch_ready(lambda: ready[0])
    assert value(metrics, "ready") == 0
    ready[0] = True
    assert value(metrics, "ready") == 1


def test_every_reason_of_a_dead_letter_is_given_somewhere() -> None:
    """That no other reason is given, mypy checks: MalformedReason is a Literal."""
    given = set[object]()
    for package in (daemon, model):
        for path in Path(package.__path__[0]).rglob("*.py"):
            if path.name != "errors.py":
                nodes = ast.walk(ast.parse(path.read_text()))
                given |= {node.value for node in nodes if isinstance(node, ast.Constant)}
    assert set(get_args(MalformedReason)) <= given
