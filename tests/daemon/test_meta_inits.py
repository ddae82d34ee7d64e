"""What operators do with θs, and which θ may be served."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from daemon.adapters.memory import MemoryMetaInits, MemoryRecord
from daemon.commands import meta_init as command
from daemon.errors import Misconfigured, RefusedMetaInit
from daemon.thetas import operate
from daemon.thetas.active import ThetaSignature, active_theta, signature_of
from daemon.wire import meta_init as wire
from daemon.wire.catalogue import Active, Catalogue
from model.theta.meta_init import MetaInit, fresh_meta_init
from model.theta.meta_init_file import meta_init_to_bytes


def theta(version: str, seed: int = 0, dims: tuple[int, int] = (3, 2)) -> MetaInit:
    return replace(fresh_meta_init(*dims, 4, seed=seed), version=version)


@pytest.fixture
def topic() -> MemoryMetaInits:
    made = MemoryMetaInits()
    for number in (1, 2, 3):
        one = theta(f"v{number}", seed=number)
        assert operate.publish_theta(made, one, meta_init_to_bytes(one))
    return made


def activate(topic: MemoryMetaInits, version: str, **more: bool) -> tuple[Active, bool]:
    return operate.activate_theta(topic, version, by="me", now_ms=len(topic.log), **more)


def rollback(topic: MemoryMetaInits) -> Active:
    return operate.rollback_theta(topic, by="me", now_ms=len(topic.log))


def active(topic: MemoryMetaInits) -> str | None:
    found = topic.catalogue().active
    return found.version if found else None


def test_publishing_again_changes_nothing(topic: MemoryMetaInits) -> None:
    one = theta("v1", seed=1)
    count = len(topic.log)
    assert not operate.publish_theta(topic, one, meta_init_to_bytes(one))
    assert len(topic.log) == count


def test_another_theta_under_the_same_version_is_refused(topic: MemoryMetaInits) -> None:
    other = theta("v1", seed=9)
    with pytest.raises(Misconfigured, match="another θ is published as 'v1'"):
        operate.publish_theta(topic, other, meta_init_to_bytes(other))


@pytest.mark.parametrize("version", ["@active", "@x", "v" * 201, "θ" * 101])
def test_a_version_that_could_be_taken_for_something_else_is_refused(version: str) -> None:
    with pytest.raises(Misconfigured, match="must not begin with @"):
        operate.publish_theta(MemoryMetaInits(), theta(version), b"")


def test_what_is_activated_is_what_is_to_be_served(topic: MemoryMetaInits) -> None:
    assert active_theta(topic, topic.catalogue()) is None
    pointer, new = activate(topic, "v2")
    assert new
    assert (pointer.version, pointer.previous, pointer.by) == ("v2", (), "me")
    served = active_theta(topic, topic.catalogue())
    assert served is not None
    assert served.content_hash == theta("v2", seed=2).content_hash == pointer.content_hash


def test_activating_the_active_one_changes_nothing(topic: MemoryMetaInits) -> None:
    first, _ = activate(topic, "v2")
    assert activate(topic, "v2") == (first, False)


def test_rolling_back_goes_back_step_by_step(topic: MemoryMetaInits) -> None:
    for version in ("v1", "v2", "v3"):
        activate(topic, version)
    assert [rollback(topic).version, active(topic)] == ["v2", "v2"]
    assert rollback(topic).version == "v1"
    with pytest.raises(Misconfigured, match="nothing to roll back to"):
        rollback(topic)
    assert active(topic) == "v1"


def test_a_rollback_passes_over_what_was_deleted(topic: MemoryMetaInits) -> None:
    for version in ("v1", "v2", "v3"):
        activate(topic, version)
    operate.delete_theta(topic, "v2")
    assert rollback(topic).version == "v1"


def test_a_version_stands_once_among_the_previous_and_there_are_not_too_many(
    topic: MemoryMetaInits,
) -> None:
    for _ in range(20):
        for version in ("v1", "v2", "v3"):
            activate(topic, version)
    pointer = topic.catalogue().active
    assert pointer is not None
    assert pointer.previous == ("v2", "v1")
    for number in range(30):
        one = theta(f"w{number}", seed=number)
        operate.publish_theta(topic, one, meta_init_to_bytes(one))
        pointer, _ = activate(topic, one.version)
    assert pointer.previous == tuple(f"w{n}" for n in range(28, 28 - wire.MAX_PREVIOUS, -1))


def test_the_active_one_cannot_be_deleted_and_others_can(topic: MemoryMetaInits) -> None:
    activate(topic, "v1")
    with pytest.raises(Misconfigured, match="'v1' is active"):
        operate.delete_theta(topic, "v1")
    operate.delete_theta(topic, "v2")
    assert list(topic.catalogue().published) == ["v1", "v3"]
    with pytest.raises(Misconfigured, match="no θ 'v2' is published"):
        operate.delete_theta(topic, "v2")


def test_what_is_not_there_or_not_intact_cannot_be_activated(topic: MemoryMetaInits) -> None:
    with pytest.raises(Misconfigured, match="no θ 'v9' is published"):
        activate(topic, "v9")
    damaged = bytearray(meta_init_to_bytes(theta("v4")))
    damaged[-1] ^= 1
    topic.write("v4", bytes(damaged), wire.theta_headers(theta("v4")))
    with pytest.raises(Misconfigured, match="damaged"):
        activate(topic, "v4")
    topic.write("v5", meta_init_to_bytes(theta("v1", seed=1)))
    with pytest.raises(Misconfigured, match="behind 'v5' lies θ 'v1'"):
        activate(topic, "v5")
    assert active(topic) is None


def test_other_dimensions_must_be_asked_for(topic: MemoryMetaInits) -> None:
    activate(topic, "v1")
    other = theta("wide", dims=(5, 2))
    operate.publish_theta(topic, other, meta_init_to_bytes(other))
    with pytest.raises(Misconfigured, match=r"source_dim 5.*--change-dimensions"):
        activate(topic, "wide")
    assert activate(topic, "wide", change_dimensions=True)[0].version == "wide"
    assert rollback(topic).version == "v1"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"not JSON", "unreadable"),
        (wire.encode_active(Active("v9", "0" * 64, 0, "me")), "missing"),
        (wire.encode_active(Active("v1", "0" * 64, 0, "me")), "wrong_hash"),
    ],
)
def test_a_pointer_that_leads_nowhere_is_refused(
    topic: MemoryMetaInits, value: bytes, reason: str
) -> None:
    topic.write(wire.ACTIVE_KEY, value)
    with pytest.raises(RefusedMetaInit) as refusal:
        active_theta(topic, topic.catalogue())
    assert refusal.value.reason == reason


def test_what_a_theta_must_map(topic: MemoryMetaInits) -> None:
    one = theta("v1")
    ThetaSignature().require(one, one.version)
    signature_of(one).require(one, one.version)
    signature_of(topic.catalogue().published["v1"]).require(one, one.version)
    for other in (
        ThetaSignature(source_modality="image"),
        ThetaSignature(source_dim=4),
        ThetaSignature(target_modality="text"),
        ThetaSignature(target_dim=3),
    ):
        with pytest.raises(RefusedMetaInit) as refusal:
            other.require(one, one.version)
        assert refusal.value.reason == "other_dimensions"


def test_facts_are_headers_as_far_as_there_is_room() -> None:
    facts = {"short": "s", "middle": "m" * 5_000, "long": "l" * 9_000, "tensor": str(np.pi)}
    told = dict(wire.theta_headers(replace(theta("v1"), facts=facts)))
    assert told["adaptd-fact-short"] == b"s"
    assert told["adaptd-fact-middle"] == b"m" * 5_000
    assert "adaptd-fact-long" not in told
    assert sum(len(v or b"") for v in told.values()) < wire.MAX_FACTS_BYTES + 1_000


@pytest.mark.parametrize("ms", [-1, 0, 10**15, 10**18, 10**30, -(10**18)])
def test_any_time_of_a_record_can_be_shown(ms: int) -> None:
    catalogue = wire.with_record(Catalogue(), MemoryRecord(0, ms, b"v1", b"x", []))
    catalogue = replace(catalogue, active=Active("v1", "ab", ms, "me"))
    assert command.published_table(catalogue).row_count == 1


@pytest.mark.parametrize(
    "text", ["[" * 5_000, "NaN", "[{}]", "[[]]", '{"a": 1}', '[{"pairs": []}]']
)
def test_any_evaluation_can_be_shown(text: str) -> None:
    assert command.scores_line({"evaluation": text}) == ""
