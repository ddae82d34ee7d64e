"""What topics must be like: what would lose data or stop the daemon later is told in one line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.config import Settings
from daemon.wire.topics import ENVELOPE_BYTES, TopicInfo, TopicSpec, faults, meta_inits_spec, specs

WANTED = specs(Settings(), mapping_size=1_000)


def made(spec: TopicSpec) -> TopicInfo:
    return TopicInfo(spec.name, "id", spec.partitions, spec.config)


FOUND = {spec.name: made(spec) for spec in WANTED}


def test_topics_as_we_make_them_have_no_fault() -> None:
    assert list(FOUND) == ["paired-events", "adapted-mappings", "paired-events-dlq", "meta-inits"]
    assert list(faults(WANTED, FOUND)) == []


def test_the_thetas_topic_takes_the_largest_theta_and_keeps_all_in_order() -> None:
    spec = meta_inits_spec(Settings(meta_init_max_bytes=100_000_000, topic_replication=3))
    assert spec.config["cleanup.policy"] == "compact"
    assert int(spec.config["max.message.bytes"]) == 100_000_000 + ENVELOPE_BYTES
    assert (spec.partitions, spec.replication) == (1, 3)


def test_a_daemon_that_does_not_follow_it_needs_none() -> None:
    assert "meta-inits" not in [spec.name for spec in specs(Settings(follow_meta_inits=False), 0)]


@pytest.mark.parametrize("missing", [spec.name for spec in WANTED])
def test_a_missing_topic_is_told_unless_the_daemon_works_without_it(missing: str) -> None:
    found = {name: info for name, info in FOUND.items() if name != missing}
    told = list(faults(WANTED, found))
    assert len(told) == (missing != "meta-inits")
    assert all(missing in line and "adaptd topics create" in line for line in told)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("meta-inits", {"partitions": 3}, "has 3 partitions; it must have one"),
        ("meta-inits", {"config": {"cleanup.policy": "delete"}}, "must be 'compact'"),
        ("adapted-mappings", {"config": {"cleanup.policy": "delete"}}, "must be 'compact'"),
        ("paired-events", {"config": {"cleanup.policy": "compact"}}, "would lose events"),
        (
            "adapted-mappings",
            {"config": {"cleanup.policy": "compact", "max.message.bytes": "999"}},
            "takes records of 999 bytes",
        ),
    ],
)
def test_a_topic_made_wrongly_is_told(name: str, change: dict[str, object], says: str) -> None:
    wrong = replace(FOUND[name], **change)  # type: ignore[arg-type]
    (line,) = faults(WANTED, FOUND | {name: wrong})
    assert name in line
    assert says in line
