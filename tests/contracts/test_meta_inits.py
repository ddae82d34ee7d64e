"""What every MetaInits does: a catalogue that follows the topic, files as they were written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from kafka import KafkaAdminClient

from daemon.adapters.kafka_python.meta_inits import KafkaPythonMetaInits
from daemon.adapters.memory import MemoryMetaInits, MemoryRecord
from daemon.config import Settings
from daemon.errors import Misconfigured, Unavailable
from daemon.thetas.port import MetaInits
from daemon.wire.catalogue import Active, Catalogue
from daemon.wire.meta_init import ACTIVE_KEY, encode_active, theta_headers
from model.theta.meta_init import fresh_meta_init
from model.theta.meta_init_file import meta_init_to_bytes
from tests.contracts.conftest import MEMORY_AND_REAL
from tests.faults.lab import eventually

MAX_BYTES = 65_536
THETA = fresh_meta_init(3, 2, 4)
ACTIVE = Active("θ 1", "ab" * 32, 1_700_000_000_000, "me@here", ("v0",))

Open = Callable[[], MetaInits]


@pytest.fixture(params=MEMORY_AND_REAL)
def opened(
    request: pytest.FixtureRequest, kafka_settings: Callable[[], Settings]
) -> Iterator[Open]:
    """Opens the same topic, which does not exist at first."""
    made: list[MetaInits] = []
    log: list[MemoryRecord] = []
    settings = None if request.param == "memory" else kafka_settings()

    def open_topic() -> MetaInits:
        if settings is None:
            made.append(MemoryMetaInits(log, MAX_BYTES, exists=False))
        else:
            topic = settings.kafka_events_topic + "-meta-inits"
            update = {"kafka_meta_inits_topic": topic, "meta_init_max_bytes": MAX_BYTES}
            made.append(KafkaPythonMetaInits(settings.model_copy(update=update), "test"))
        return made[-1]

    yield open_topic
    for topic in made:
        topic.close()
        topic.close()


def test_where_there_is_no_topic_nothing_is_published(opened: Open) -> None:
    topic = opened()
    for _ in range(2):
        assert topic.catalogue() == Catalogue(exists=False)
    topic.write("v1", b"1")
    assert topic.catalogue().exists


def test_what_was_written_is_listed_and_comes_back_as_it_was(opened: Open) -> None:
    writer, reader = opened(), opened()
    assert reader.catalogue().published == {}
    data = meta_init_to_bytes(THETA)
    writer.write(THETA.version, data, theta_headers(THETA))
    writer.write("ü 2", b"")
    catalogue = reader.catalogue()
    assert list(catalogue.published) == [THETA.version, "ü 2"]
    one = catalogue.published[THETA.version]
    assert (one.content_hash, one.parent, one.nbytes) == (THETA.content_hash, None, len(data))
    assert one.maps == "vector (3) -> vector (2)"
    assert (one.hidden_dim, one.encoder, one.learner) == (4, "identity", "maml")
    assert one.facts == THETA.facts
    assert reader.fetch(one) == data
    assert reader.fetch(catalogue.published["ü 2"]) == b""
    assert reader.catalogue() == catalogue


def test_the_last_word_on_a_version_counts_and_a_tombstone_deletes_it(opened: Open) -> None:
    writer, reader = opened(), opened()
    for value in (b"1", b"2", b"3"):
        writer.write("v1", value)
        writer.write("v2", value)
        catalogue = reader.catalogue()
        assert [reader.fetch(one) for one in catalogue.published.values()] == [value, value]
    before = reader.catalogue().published["v1"]
    writer.write("v1", None)
    assert list(reader.catalogue().published) == ["v2"]
    assert list(opened().catalogue().published) == ["v2"]
    writer.write("v1", b"4")
    catalogue = reader.catalogue()
    assert list(catalogue.published) == ["v2", "v1"]
    assert catalogue.published["v1"] != before
    assert reader.fetch(catalogue.published["v1"]) == b"4"


def test_which_is_active_is_told_and_taken_back(opened: Open) -> None:
    writer, reader = opened(), opened()
    assert reader.catalogue().active is None
    writer.write(ACTIVE_KEY, encode_active(ACTIVE))
    assert reader.catalogue().active == ACTIVE
    assert reader.catalogue().published == {}
    writer.write(ACTIVE_KEY, None)
    assert reader.catalogue().active is None


@pytest.mark.parametrize("junk", [b"", b"\xff", b"[]", b'{"version": 3}', b'{"version": "v"}'])
def test_a_word_on_the_active_one_that_cannot_be_read_is_a_fault(opened: Open, junk: bytes) -> None:
    topic = opened()
    topic.write("v1", b"1")
    topic.write(ACTIVE_KEY, encode_active(ACTIVE))
    topic.write(ACTIVE_KEY, junk)
    catalogue = topic.catalogue()
    assert catalogue.active is None
    assert ACTIVE_KEY in str(catalogue.fault)
    assert list(catalogue.published) == ["v1"]
    topic.write(ACTIVE_KEY, encode_active(ACTIVE))
    assert topic.catalogue().fault is None


def test_headers_that_are_not_ours_leave_their_facts_empty(opened: Open) -> None:
    topic = opened()
    bad = [("adaptd-source-dim", b"many"), ("adaptd-target-dim", b"9" * 5_000)]
    topic.write("v1", b"1", [*bad, ("adaptd-parent", b"\xff"), ("other", b"x"), ("a", b"")])
    one = topic.catalogue().published["v1"]
    assert (one.source_dim, one.target_dim, one.parent, one.facts) == (0, 0, "�", {})


def test_a_record_larger_than_allowed_is_neither_written_nor_fetched(opened: Open) -> None:
    topic = opened()
    with pytest.raises(Misconfigured):
        topic.write("v1", bytes(MAX_BYTES + 20_000))
    topic.write("v1", bytes(MAX_BYTES))
    (one,) = topic.catalogue().published.values()
    assert topic.fetch(one) == bytes(MAX_BYTES)


def test_a_larger_one_that_another_wrote_is_not_fetched(
    kafka_settings: Callable[[], Settings],
) -> None:
    settings = kafka_settings()
    name = settings.kafka_events_topic + "-meta-inits"
    large = settings.model_copy(update={"kafka_meta_inits_topic": name})
    small = large.model_copy(update={"meta_init_max_bytes": MAX_BYTES})
    writer, reader = KafkaPythonMetaInits(large, "large"), KafkaPythonMetaInits(small, "small")
    writer.write("v1", bytes(MAX_BYTES + 1))
    (one,) = reader.catalogue().published.values()
    assert reader.fetch(one) is None
    assert writer.fetch(one) is not None
    writer.close()
    reader.close()


def test_a_topic_made_anew_is_read_anew(kafka_settings: Callable[[], Settings]) -> None:
    settings = kafka_settings()
    name = settings.kafka_events_topic + "-meta-inits"
    topic = KafkaPythonMetaInits(
        settings.model_copy(update={"kafka_meta_inits_topic": name}), "test"
    )
    topic.write("v1", b"1")
    topic.write("v2", b"2")
    assert len(topic.catalogue().published) == 2
    with KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers) as admin:
        admin.delete_topics([name])
    for _ in range(20):
        try:
            if not topic.catalogue().exists:
                break
        except Unavailable:
            continue
    assert topic.catalogue() == Catalogue(exists=False)
    topic.write("v3", b"3")
    catalogue = topic.catalogue()
    assert list(catalogue.published) == ["v3"]
    assert topic.fetch(catalogue.published["v3"]) == b"3"
    topic.close()


def test_a_topic_made_anew_and_written_to_at_once_is_read_anew(
    kafka_settings: Callable[[], Settings],
) -> None:
    """It has more records than the one before when it is looked at again."""
    settings = kafka_settings()
    name = settings.kafka_events_topic + "-meta-inits"
    made = settings.model_copy(update={"kafka_meta_inits_topic": name})
    with (
        closing(KafkaPythonMetaInits(made, "reader")) as reader,
        closing(KafkaPythonMetaInits(made, "writer")) as writer,
    ):
        writer.write("v1", b"1")
        writer.write("v2", b"2")
        assert list(reader.catalogue().published) == ["v1", "v2"]
        with KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers) as admin:
            admin.delete_topics([name])
            eventually(lambda: name not in admin.list_topics())
        for version in ("v3", "v4", "v5"):
            writer.write(version, version.encode())
        found = reader.catalogue().published
        assert list(found) == ["v3", "v4", "v5"]
        assert reader.fetch(found["v3"]) == b"v3"


def test_the_shortest_timeout_is_one_that_the_client_takes(
    kafka_settings: Callable[[], Settings],
) -> None:
    """It insists that requests may last longer than a fetch waits."""
    settings = kafka_settings()
    name = settings.kafka_events_topic + "-meta-inits"
    update = {"kafka_meta_inits_topic": name, "kafka_timeout_ms": 500}
    topic = KafkaPythonMetaInits(settings.model_copy(update=update), "test")
    topic.write("v1", b"1")
    assert list(topic.catalogue().published) == ["v1"]
    topic.close()
