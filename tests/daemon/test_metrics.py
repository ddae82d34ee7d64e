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
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

import daemon
import model
from daemon.errors import MalformedReason, RefusalReason, Unavailable
from daemon.turn.report import (
    Holdings,
    PairScore,
    Publication,
    ScoredMapping,
    TurnReport,
    Verdict,
    latency_s,
)
from daemon.turn.streams import StreamId
from daemon.worker.build import build_facts
from daemon.worker.collectors import KNOWN_FOR_S, LastTurn
from daemon.worker.metric_specs import COUNTERS, GAUGES, HISTOGRAMS, KNOWN_LABELS, MetricSpec
from daemon.worker.metrics import LARGEST_LOSS, Metrics
from model.theta.info import ThetaInfo
from model.values.episode import Adaptation
from model.values.gate import Outcome
from tests.daemon.lab import LinearEngine

SHAPES: dict[str, MetricSpec] = {
    str(name): shape for group in (HISTOGRAMS, COUNTERS, GAUGES) for name, shape in group.items()
}
DOWN = Unavailable("kafka", "down")
NOW_MS = 1_800_000_000_000
UNITS = ("seconds", "bytes", "records", "streams", "partitions", "loss", "cores")
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
        *(None, "stage", "when", "outcome", "reason", "service", "partition", "state"),
        *("mapping", "call", "action", "bet", "side"),
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
    known = {"meta_init_refused", "recovery_stalled", "memory_limit_bytes"}
    shown = {family.name.removeprefix("adaptd_") for family in metrics.registry.collect()}
    assert (shown & set(GAUGES)) - {"cpu_limit_cores"} == known
    metrics.gave_up(DOWN)
    assert value(metrics, "streams", state="resident") is None
    metrics.record(report(), ended_at=1.0)
    assert value(metrics, "assigned_partitions") == 2
    assert not {name for name in GAUGES if name.startswith("gpu")} & shown


OF_A_TURN = (
    *("consumer_lag_records", "oldest_owed_seconds", "assigned_partitions", "streams"),
    "window_bytes",
)


def shown(metrics: Metrics) -> set[str]:
    return {family.name.removeprefix("adaptd_") for family in metrics.registry.collect()}


def test_what_a_turn_found_is_unknown_while_a_service_is_away() -> None:
    metrics = Metrics()
    metrics.record(report(), ended_at=1.0)
    assert shown(metrics) >= set(OF_A_TURN)
    metrics.gave_up(DOWN)
    assert not shown(metrics) & set(OF_A_TURN)
    metrics.record(report(), ended_at=2.0)
    assert shown(metrics) >= set(OF_A_TURN)


def test_what_a_turn_found_is_unknown_once_the_next_one_takes_long() -> None:
    """A turn that waits for a frozen service may not give up for minutes."""
    now = [100.0]
    found = LastTurn(CollectorRegistry(), lambda: now[0], lambda: 1_000.0)
    assert list(found.collect()) == []
    found.ended(report().holdings)
    for passed, known in ((0.0, True), (KNOWN_FOR_S, True), (KNOWN_FOR_S + 1, False)):
        now[0] = 100.0 + passed
        assert bool(list(found.collect())) == known


def test_the_age_of_what_is_owed_grows_between_turns() -> None:
    wall = [1_000.0]
    registry = CollectorRegistry()
    found = LastTurn(registry, lambda: 0.0, lambda: wall[0])
    found.ended(Holdings(owed_since_ms={0: 990_000, 1: None, 2: 2_000_000}))

    def age(partition: int) -> float | None:
        labels = {"partition": str(partition)}
        return registry.get_sample_value("adaptd_oldest_owed_seconds", labels)

    assert [age(p) for p in range(4)] == [10.0, 0.0, 0.0, None]
    wall[0] += 5
    assert [age(p) for p in range(4)] == [15.0, 0.0, 0.0, None]


def test_time_away_is_counted_while_it_passes() -> None:
    metrics = Metrics()
    away = {"service": "kafka", "reason": "no_answer"}
    assert value(metrics, "away_seconds_total", **away) == 0
    metrics.gave_up(DOWN)
    first = value(metrics, "away_seconds_total", **away)
    later = value(metrics, "away_seconds_total", **away)
    metrics.record(report(), ended_at=1.0)
    after = value(metrics, "away_seconds_total", **away)
    assert 0 < (first or 0) < (later or 0) < (after or 0)
    assert value(metrics, "away_seconds_total", **away) == after
    assert value(metrics, "away_seconds_total", service="redis", reason="refused") == 0


def test_the_slowest_mapping_of_a_turn_shows_its_record() -> None:
    metrics, made = Metrics(), report()
    made.published = [
        Publication(StreamId(partition, "s"), offset, Outcome.ADAPTED, latency)
        for partition, offset, latency in ((0, 1, 0.2), (3, 77, 4.0), (1, 2, None), (1, 5, 0.3))
    ]
    metrics.record(made, ended_at=1.0)
    encode = openmetrics.generate_latest
    lines = encode(metrics.registry).decode().splitlines()  # type: ignore[no-untyped-call]
    (line,) = [line for line in lines if "event_to_publish" in line and " # {" in line]
    assert 'le="5.0"' in line
    assert '# {offset="77",partition="3"} 4.0' in line
    assert " # {" not in generate_latest(metrics.registry).decode()


def test_the_linear_maps_loss_is_beside_the_others() -> None:
    metrics, made = Metrics(), report()
    made.verdicts = [
        replace(v, adaptation=replace(v.adaptation, query_loss_ridge=loss))
        for v, loss in zip([verdict(0.5)] * 3, (0.25, math.nan, 1e37), strict=True)
    ]
    metrics.record(made, ended_at=1.0)
    assert value(metrics, "query_loss_count", when="ridge") == 2
    assert value(metrics, "query_loss_sum", when="ridge") == 0.25 + LARGEST_LOSS


def test_a_huge_prequential_loss_counts_as_the_largest() -> None:
    metrics, made = Metrics(), report()
    made.scores = [PairScore("published", 1e37, None), PairScore("published", math.inf, None)]
    metrics.record(made, ended_at=1.0)
    assert value(metrics, "prequential_loss_sum", mapping="published") == LARGEST_LOSS


def test_a_gpu_shows_its_memory() -> None:
    metrics = Metrics()
    metrics.watch_gpu(lambda: 3.0, 8)
    assert value(metrics, "gpu_memory_bytes") == 3
    assert value(metrics, "gpu_memory_limit_bytes") == 8


def test_losses_of_any_size_leave_the_next_ones_audible() -> None:
    """Every histogram whose values come from outside: its sum must still move by 0.5."""
    metrics, huge = Metrics(), report()
    huge.scores = [PairScore(mapping, 1e300, None) for mapping in get_args(ScoredMapping)]
    huge.verdicts = [
        replace(v, adaptation=Adaptation({}, 1e300, 1e300, 1e300, 1e300, True, 1e300))
        for v in [verdict(0.5)]
    ]
    small = report()
    small.scores = [PairScore(mapping, 0.5, None) for mapping in get_args(ScoredMapping)]
    small.verdicts = [
        replace(v, adaptation=Adaptation({}, 0.5, 0.5, 0.5, 0.5, True, 0.5)) for v in [verdict(0.5)]
    ]
    metrics.record(huge, ended_at=1.0)
    before = sums(metrics)
    metrics.record(small, ended_at=2.0)
    moved = {name: after - before[name] for name, after in sums(metrics).items()}
    assert set(moved.values()) == {0.5}
    assert len(moved) == 8


def sums(metrics: Metrics) -> dict[str, float]:
    return {
        f"{sample.name} {sample.labels}": sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name.endswith("loss_sum")
    }


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
    metrics.gave_up(DOWN)
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
