"""Following the active θ: made ready once, refused once, and nothing that fails stops it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Event
from typing import Any

import pytest

from daemon.adapters.memory import MemoryMetaInits, MemoryRecord
from daemon.backoff import Backoff
from daemon.errors import RefusedMetaInit, Unavailable
from daemon.thetas import follow as following
from daemon.thetas import operate
from daemon.thetas.active import ThetaSignature, signature_of
from daemon.thetas.follow import Agreement, Follower, News, Ready, Refusal, Silence
from daemon.wire import meta_init as wire
from daemon.wire.catalogue import Active
from model.theta.meta_init import MetaInit, fresh_meta_init
from model.theta.meta_init_file import meta_init_to_bytes

SERVED = replace(fresh_meta_init(3, 2, 4, seed=9), version="served")


def theta(version: str, seed: int = 0, dims: tuple[int, int] = (3, 2)) -> MetaInit:
    return replace(fresh_meta_init(*dims, 4, seed=seed), version=version)


@pytest.fixture
def topic() -> MemoryMetaInits:
    made = MemoryMetaInits()
    for one in (theta("v1", seed=1), theta("v2", seed=2), theta("wide", dims=(5, 2)), SERVED):
        operate.publish_theta(made, one, meta_init_to_bytes(one))
    return made


def name_of(theta: MetaInit) -> str:
    return theta.version


def follower(
    topic: MemoryMetaInits,
    prepare: Callable[[MetaInit], str] = name_of,
    maps: ThetaSignature | None = None,
) -> Follower[str]:
    return Follower(topic, prepare, maps or signature_of(SERVED), SERVED.content_hash)


def point(topic: MemoryMetaInits, version: str) -> None:
    operate.activate_theta(topic, version, by="me", now_ms=len(topic.log), change_dimensions=True)


def looked(follower: Follower[str]) -> list[News[str]]:
    follower.poll_catalogue()
    return list(follower.news())


def test_what_becomes_active_is_made_ready_once(topic: MemoryMetaInits) -> None:
    following = follower(topic)
    assert looked(following) == [Agreement()]
    point(topic, "v1")
    assert looked(following) == [Ready("v1")]
    assert looked(following) == []
    point(topic, "v2")
    assert looked(following) == [Ready("v2")]
    operate.rollback_theta(topic, by="me", now_ms=0)
    assert looked(following) == [Ready("v1")]


def test_what_is_served_already_is_not_made_ready(topic: MemoryMetaInits) -> None:
    point(topic, "served")
    assert looked(follower(topic)) == [Agreement()]


def test_other_dimensions_are_refused_once_and_the_next_is_taken(topic: MemoryMetaInits) -> None:
    following = follower(topic)
    point(topic, "wide")
    (refusal,) = looked(following)
    assert isinstance(refusal, Refusal)
    assert (refusal.version, refusal.reason) == ("wide", "other_dimensions")
    assert "source_dim 5" in refusal.detail
    assert looked(following) == []
    point(topic, "v1")
    assert looked(following) == [Ready("v1")]


def test_where_nothing_binds_it_any_dimensions_are_taken_at_first(topic: MemoryMetaInits) -> None:
    following = follower(topic, maps=ThetaSignature())
    point(topic, "wide")
    assert looked(following) == [Ready("wide")]


def test_a_refusal_is_settled_when_what_is_served_is_active_again(topic: MemoryMetaInits) -> None:
    following = follower(topic)
    point(topic, "served")
    point(topic, "wide")
    assert [type(news) for news in looked(following)] == [Refusal]
    point(topic, "served")
    assert looked(following) == [Agreement()]


def test_damage_is_refused_until_a_good_one_lies_in_its_place(topic: MemoryMetaInits) -> None:
    following = follower(topic)
    point(topic, "v1")
    data = meta_init_to_bytes(theta("v1", seed=1))
    topic.write("v1", data[:-1] + bytes([data[-1] ^ 1]))
    (refusal,) = looked(following)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "unreadable"
    assert looked(following) == []
    topic.write("v1", data)
    assert looked(following) == [Ready("v1")]


def with_metadata(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A safetensors file whose header was changed."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def with_facts(data: bytes, facts: str) -> bytes:
    return with_metadata(data, lambda h: h["__metadata__"].update({"adaptd.facts": facts}))


GOOD = meta_init_to_bytes(theta("v1", seed=1))
NESTED = "[" * 5_000 + "]" * 5_000
LESS_NESTED = "[" * 500 + "]" * 500
POISON = {
    "metadata of null": with_metadata(GOOD, lambda h: h.update(__metadata__=None)),
    "facts nested deep": with_facts(GOOD, NESTED),
    "facts that can be read and not hashed": with_facts(GOOD, f'{{"learner": {LESS_NESTED}}}'),
    "a huge integer": with_facts(GOOD, f'{{"version": {"9" * 4_300}}}'),
    "no bytes": b"",
}


@pytest.mark.parametrize("data", POISON.values(), ids=POISON)
def test_no_file_ends_the_following_and_a_good_record_mends_it(
    topic: MemoryMetaInits, data: bytes
) -> None:
    following = follower(topic)
    point(topic, "v1")
    topic.write("v1", data)
    (refusal,) = looked(following)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "unreadable"
    assert len(refusal.detail) < 1_000
    topic.write("v1", GOOD)
    assert looked(following) == [Ready("v1")]


ACTIVE_POISON = (
    b"",
    b"[" * 5_000,
    b'{"x": ' + NESTED.encode() + b"}",
    b'{"version": "v1", "previous": ' + NESTED.encode() + b"}",
    b'{"activated_at_ms": ' + b"9" * 5_000 + b"}",
    b'{"version": NaN}',
    b"\xff\xfe",
)


@pytest.mark.parametrize("value", ACTIVE_POISON, ids=range(len(ACTIVE_POISON)))
@pytest.mark.parametrize("good", [True, False])
def test_no_active_record_ends_the_following_and_the_next_one_mends_it(
    topic: MemoryMetaInits, value: bytes, good: bool
) -> None:
    following = follower(topic)
    point(topic, "v1")
    assert looked(following) == [Ready("v1")]
    topic.write(wire.ACTIVE_KEY, value)
    (refusal,) = looked(following)
    assert isinstance(refusal, Refusal)
    assert (refusal.version, refusal.reason) == ("?", "unreadable")
    if good:
        point(topic, "v2")
        assert looked(following) == [Ready("v2")]
    else:
        topic.write(wire.ACTIVE_KEY, None)
        assert looked(following) == [Agreement()]


def test_keys_that_can_be_no_version_are_passed_over(topic: MemoryMetaInits) -> None:
    published = set(topic.catalogue().published)
    for key in (b"@newer", b"", b"\xff", b"v" * 201):
        topic.log.append(MemoryRecord(len(topic.log), 0, key, b"{}", []))
    assert set(topic.catalogue().published) == published
    assert looked(follower(topic)) == [Agreement()]


def test_a_version_that_is_not_there_is_refused_until_it_is(topic: MemoryMetaInits) -> None:
    following = follower(topic)
    late = theta("late", seed=5)
    pointer = Active("late", late.content_hash, 0, "me")
    topic.write(wire.ACTIVE_KEY, wire.encode_active(pointer))
    (refusal,) = looked(following)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "missing"
    operate.publish_theta(topic, late, meta_init_to_bytes(late))
    assert looked(following) == [Ready("late")]


def test_what_cannot_be_prepared_is_refused_and_another_is_not(topic: MemoryMetaInits) -> None:
    def prepare(theta: MetaInit) -> str:
        if theta.version == "v1":
            raise RefusedMetaInit("unusable", "no such part")
        return theta.version

    following = follower(topic, prepare)
    point(topic, "v1")
    assert looked(following) == [Refusal("v1", "unusable", "no such part")]
    point(topic, "v2")
    assert looked(following) == [Ready("v2")]


def test_a_topic_that_is_missing_is_said_once_and_followed_when_it_comes() -> None:
    topic = MemoryMetaInits(exists=False)
    following = follower(topic)
    assert not following.poll_catalogue()
    news = following.news()
    assert [type(one) for one in news] == [Agreement, Silence]
    assert looked(following) == []
    one = theta("v1")
    operate.publish_theta(topic, one, meta_init_to_bytes(one))
    point(topic, "v1")
    assert looked(following) == [Ready("v1")]


def test_a_service_that_fails_while_preparing_is_asked_again(topic: MemoryMetaInits) -> None:
    failures = [Unavailable("kafka", "away")] * 2

    def prepare(theta: MetaInit) -> str:
        if failures:
            raise failures.pop()
        return theta.version

    following = follower(topic, prepare)
    point(topic, "v1")
    for _ in range(2):
        with pytest.raises(Unavailable):
            following.poll_catalogue()
    assert looked(following) == [Ready("v1")]


# ---- on its thread


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(following, "BACKOFF", Backoff(0.01, 0.02))


@pytest.fixture
def started(topic: MemoryMetaInits, quick: None) -> Iterator[Callable[..., Follower[str]]]:
    made: list[Follower[str]] = []

    def start(**arguments: Any) -> Follower[str]:
        made.append(follower(topic, **arguments))
        made[-1].start(SERVED)
        return made[-1]

    yield start
    for one in made:
        one.close()


def until(follower: Follower[str], wanted: type) -> list[News[str]]:
    heard: list[News[str]] = []
    give_up_at = time.monotonic() + 10
    while not any(isinstance(news, wanted) for news in heard):
        assert time.monotonic() < give_up_at, heard
        heard += follower.news()
        time.sleep(0.005)
    return heard


def test_news_never_wait_for_a_theta_that_is_being_made_ready(
    topic: MemoryMetaInits, started: Callable[..., Follower[str]]
) -> None:
    begun, go_on = Event(), Event()

    def slowly(theta: MetaInit) -> str:
        begun.set()
        go_on.wait(10)
        return theta.version

    following = started(prepare=slowly)
    point(topic, "v1")
    assert begun.wait(10)
    before = time.monotonic()
    for _ in range(1_000):
        assert not any(isinstance(news, Ready) for news in following.news())
    assert time.monotonic() - before < 1.0
    go_on.set()
    assert Ready("v1") in until(following, Ready)


def test_a_service_away_is_told_once_and_waited_for(
    topic: MemoryMetaInits, started: Callable[..., Follower[str]]
) -> None:
    topic.down = True
    following = started()
    until(following, Silence)
    time.sleep(0.1)
    assert following.news() == []
    topic.down = False
    point(topic, "v2")
    assert Ready("v2") in until(following, Ready)


def test_a_bug_on_the_thread_comes_up_on_the_loops(
    topic: MemoryMetaInits, started: Callable[..., Follower[str]]
) -> None:
    def broken(theta: MetaInit) -> str:
        raise ZeroDivisionError

    following = started(prepare=broken)
    point(topic, "v1")
    with pytest.raises(ZeroDivisionError):
        until(following, Ready)


def test_once_started_only_the_dimensions_that_are_served_may_follow(
    topic: MemoryMetaInits, started: Callable[..., Follower[str]]
) -> None:
    following = started(maps=ThetaSignature())
    point(topic, "wide")
    (refusal,) = (n for n in until(following, Refusal) if isinstance(n, Refusal))
    assert refusal.reason == "other_dimensions"
