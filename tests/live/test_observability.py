"""What operators look at, against a live daemon."""

from __future__ import annotations

import json
from typing import Any

from kafka import KafkaConsumer

from daemon.wire import adapted_mapping
from deploy.prometheus.promql import missing
from deploy.prometheus.queries import dashboard_queries, rule_queries


def test_every_dashboard_and_alert_query_finds_its_metrics_and_labels(daemon_at_work: Any) -> None:
    scrape = daemon_at_work.get("/metrics")
    assert missing(dashboard_queries() + rule_queries(), scrape) == []


def test_a_working_daemon_is_live_and_ready(daemon_at_work: Any) -> None:
    assert "last turn ended" in daemon_at_work.get("/livez")
    assert "partitions" in daemon_at_work.get("/readyz")
    status = json.loads(daemon_at_work.get("/status"))
    assert status["ready"] is True
    assert status["totals"]["dead_letters"] == 3
    assert status["totals"]["events"] == 240


def test_each_mapping_is_traced_to_its_turn_and_the_turn_to_its_offsets(
    daemon_at_work: Any,
) -> None:
    lines = [json.loads(line) for line in daemon_at_work.log.read_text().splitlines()]
    turns = {line["turn"]: line for line in lines if line["event"] == "turn"}
    read: dict[int, int] = {}
    read_by: dict[str, dict[int, int]] = {}
    for turn, line in turns.items():
        read |= {int(p): end for p, (_, end) in line["offsets"].items()}
        read_by[turn] = dict(read)
    for mapping in _mappings(daemon_at_work):
        facts = mapping.facts
        low, high = turns[facts.turn]["versions"][str(facts.partition)]
        assert low <= facts.version <= high
        assert facts.version < read_by[facts.turn][facts.partition]


def _mappings(daemon_at_work: Any) -> list[adapted_mapping.AdaptedMapping]:
    consumer = KafkaConsumer(
        daemon_at_work.mappings_topic,
        bootstrap_servers=daemon_at_work.kafka_bootstrap_servers,
        auto_offset_reset="earliest",
        consumer_timeout_ms=2_000,
    )
    mappings = [adapted_mapping.decode_mapping(record.value) for record in consumer]
    consumer.close()
    assert mappings
    return mappings
