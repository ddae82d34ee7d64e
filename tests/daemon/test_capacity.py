"""`adaptd plan`: its sums, held against what the engine reserves and against sums by hand."""

from __future__ import annotations

import json
import math

import pytest
from typer.testing import CliRunner

from daemon.__main__ import app
from daemon.commands.capacity import Load, ServerSizes, capacity, memory_of_stream, published_bytes
from daemon.config import Settings
from daemon.errors import Misconfigured
from model.serving.engine import Engine
from model.theta.meta_init import fresh_meta_init

ROOM = ServerSizes(worker_gib=8, redis_gib=64, retention_hours=24)
LOAD = Load(100_000, 1_000, 512, 128, 512)


def settings(**given: object) -> Settings:
    return Settings.model_validate({"support_size": 28, "query_size": 4, **given})


@pytest.mark.parametrize("dims", [(512, 128, 512), (64, 32, 16), (300, 64, 70)])
def test_a_streams_memory_is_what_the_engine_reserves(dims: tuple[int, int, int]) -> None:
    source, hidden, target = dims
    theta = fresh_meta_init(source, target, hidden)
    windows = Engine(theta, "cpu", support_capacity=28, query_capacity=4).windows(1)
    found, spilled = memory_of_stream(Load(1, 1, *dims), settings())
    assert spilled == 0
    assert found == pytest.approx(windows.bytes_per_stream, rel=0.03)


def test_a_mapping_is_no_larger_than_its_numbers() -> None:
    assert published_bytes(LOAD, settings()) == 4 * (512 * 128 * 2 + 128 + 512) + 2_000
    small = settings(mapping_encoding="lowrank", mapping_dtype="float16")
    assert 76_000 < published_bytes(LOAD, small) < 130_000


def test_mappings_are_bounded_by_events_and_by_the_publish_interval() -> None:
    assert capacity(LOAD, ROOM, settings(publish_interval_ms=0)).mappings_per_s == 1_000
    slow = settings(publish_interval_ms=1_000_000)
    assert capacity(LOAD, ROOM, slow).mappings_per_s == 100
    assert capacity(LOAD, ROOM, settings(adapt_every=4)).mappings_per_s == 250


def test_workers_hold_their_streams_and_their_load() -> None:
    found = capacity(Load(1_000_000, 100, 512, 128, 512), ROOM, settings())
    assert "memory asks" in found.reason or "memory for" in found.reason
    assert found.workers * 8 * 2**30 > 1_000_000 * 172_000
    assert found.worker_bytes < 8 * 2**30
    assert found.resident_streams * (found.workers - 1) >= 1_000_000
    busy = capacity(Load(100, 100_000, 512, 128, 512), ROOM, settings())
    assert busy.workers >= 100_000 * 119e-6 / 0.5
    assert busy.partitions >= 2 * busy.workers
    assert math.log2(busy.partitions).is_integer()


def test_redis_and_topics_grow_with_streams_and_events() -> None:
    found = capacity(LOAD, ROOM, settings(topic_replication=3))
    assert found.redis_bytes == pytest.approx(100_000 * 135_300, rel=0.01)  # as measured
    assert found.redis_servers == 1
    events_in = 1_000 * (4 * 1_024 + 150)
    assert found.events_topic_bytes == pytest.approx(3 * 24 * 3_600 * events_in)
    assert found.kafka_out_bytes_per_s < found.kafka_in_bytes_per_s


def test_a_worker_without_room_for_streams_is_refused() -> None:
    with pytest.raises(Misconfigured, match="--worker-memory-gib"):
        capacity(LOAD, ServerSizes(0.5, 64, 24), settings())


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["plan", *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_a_million_streams_name_a_redis_cluster_and_what_was_measured() -> None:
    said = run("--streams", "1000000", "--events-per-second", "10000")
    assert "Redis Cluster of 3 primaries" in said
    assert "at 100,000 streams was measured" in said
    for line in ("workers ", "partitions ", "Redis ", "Kafka ", "python -m benchmarks stream"):
        assert line in said


def test_json_has_the_same_numbers() -> None:
    words = ("--streams", "500", "--events-per-second", "7.5", "--dims", "16,8")
    found = json.loads(run(*words, "--json"))
    assert f"workers     {found['workers']}:" in run(*words)


@pytest.mark.parametrize("dims", ["", "512", "a,b", "1,2,3,4", "0,8", "512,,512", "1,99999999"])
def test_dimensions_that_are_none_are_refused(dims: str) -> None:
    with pytest.raises(Misconfigured, match="--dims"):
        CliRunner().invoke(
            app,
            ["plan", "--streams", "1", "--events-per-second", "1", "--dims", dims],
            catch_exceptions=False,
        )
