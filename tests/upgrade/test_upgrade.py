"""This version goes on from what earlier versions left in Kafka and Redis.

Each `state-VERSION.msgpack` is what that version wrote, see record.py. The right windows were noted
from the events, and the right mappings are computed here stream by stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from daemon.local.services import Services
from daemon.wire import adapted_mapping
from model.theta.meta_init_file import load_meta_init
from tests.faults.lab import (
    WINDOW,
    Installation,
    Raw,
    assert_newest,
    assert_windows,
    kept_by_reader,
)
from tests.upgrade.record import FOLDER, MALFORMED, STREAMS, rounds, spring
from tests.upgrade.state import State, read_state, restore

STATES = sorted(FOLDER.glob("state-*.msgpack"))


@pytest.fixture(params=STATES, ids=lambda path: path.stem)
def state(request: pytest.FixtureRequest) -> State:
    return read_state(request.param)


@pytest.fixture
def theta(state: State, tmp_path: Path) -> Path:
    """The θ that was published, as a file."""
    path = tmp_path / "theta.safetensors"
    path.write_bytes(state.theta)
    return path


@pytest.fixture
def lab(state: State, theta: Path, services: Services, tmp_path: Path) -> Iterator[Installation]:
    """What the earlier version left, in topics and keys of the same names."""
    made = Installation(
        *(services.kafka_bootstrap_servers, services.redis_url, theta, tmp_path),
        partitions=state.partitions,
        name=state.name,
    )
    with closing(made):
        made.make_topic_of_one(made.settings.kafka_meta_inits_topic)
        restore(state, made)
        yield made


def values(state: State, topic: str) -> list[Any]:
    return [record.value for record in state.records if record.topic == topic]


def test_the_recorded_version_did_all_that_leaves_something_behind(state: State) -> None:
    ends = [sum(r.topic == "events" and r.partition == p for r in state.records) for p in (0, 1)]
    committed = [state.offsets[p][0] for p in (0, 1)]
    assert all(0 < at <= end for at, end in zip(committed, ends, strict=True))
    assert committed != ends, "nothing was owed"
    assert len(values(state, "dead_letters")) == len(MALFORMED)
    facts = [adapted_mapping.decode_mapping(value).facts for value in values(state, "mappings")]
    assert {each.encoding for each in facts} == {"full", "lowrank"}
    assert {command[0] for command in state.commands} >= {b"SET", b"XADD"}


def test_a_worker_goes_on_where_the_earlier_version_stopped(
    lab: Installation, state: State, theta: Path
) -> None:
    with lab.worker() as worker:
        lab.wait_until_done()  # what the earlier version owed
        assert_windows(lab.windows(), lab.truth)
        served = worker.status()["meta_init_hash"]
        letters = [record for record in state.records if record.topic == "dead_letters"]
        lab.send(Raw(r.key, r.value, tuple(r.headers)) for r in letters)  # they may be sent again
        lab.send(rounds(spring(18), 2))
        lab.wait_until_done()
        worker.stop()
    assert served == load_meta_init(theta).content_hash
    assert_windows(lab.windows(), lab.truth)
    assert_newest(kept_by_reader(lab.mappings()), lab.truth.mappings(theta))
    assert attempts(lab) == {1: len(letters), 2: len(letters)}
    lines = worker.lines()
    assert not {"log_replaced", "records_gone"} & {line["event"] for line in lines}
    read = [line["offsets"] for line in lines if line["event"] == "turn" and line["offsets"]]
    assert read
    for partition, (committed, _) in state.offsets.items():
        assert first_read(read, partition) == committed, "events were read again, or skipped"


def attempts(lab: Installation) -> Counter[int]:
    """How many dead letters were put aside how often."""
    letters = lab.records(lab.settings.kafka_dead_letters_topic)
    return Counter(int(dict(r.headers).get("adaptd-attempts", b"1")) for r in letters)


def first_read(read: list[dict[str, Any]], partition: int) -> int:
    """The first offset that any turn read of a partition."""
    return min(int(turn[str(partition)][0]) for turn in read if str(partition) in turn)


def test_readers_of_today_apply_the_earlier_versions_mappings(
    state: State, theta: Path, reader: ModuleType
) -> None:
    thetas = reader.Thetas([theta])
    for value in values(state, "mappings"):
        mapping = reader.parse(value, thetas)
        assert mapping.facts["stream"] in STREAMS
        assert int(mapping.facts["support_pairs"]) <= WINDOW
