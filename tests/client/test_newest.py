"""Which mapping is served: the newest good one, whatever else comes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Event, Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.client import conformance
from daemon.client.newest import (
    EVERY_STREAM,
    Ignored,
    NewestMappings,
    PassedOver,
    Swapped,
    Waiting,
    selection,
)
from daemon.client.served import ServedTheta
from tests.client.conftest import THETA, Make, Record

X_D = np.ones(conformance.D, np.float32)


def served_version(newest: NewestMappings, stream: str = "s") -> int | None:
    mapping = newest.get(stream)
    return None if mapping is None else mapping.facts.version


def not_finite() -> bytes:
    tensors = conformance.whole_tensors()
    tensors["b1"] = tensors["b1"] * np.float32(np.nan)
    return conformance.recorded(THETA, "full", "float32", tensors, version=99)


KIT = conformance.kit()
BAD: list[tuple[PassedOver, bytes | None, bytes | None]] = [
    ("no_key", None, b""),
    ("no_key", b"", None),
    ("key_not_utf8", b"\xff", b""),
    ("not_a_mapping", b"s", b""),
    ("not_a_mapping", b"s", b"\x00" * 100),
    *(
        (reason, b"s", KIT[f"{name}.mapping"])
        for name, reason in {
            "cut-short": "not_a_mapping",
            "one-bit-changed": "wrong_hash",
            "another-format": "unknown_format",
            "another-kind": "unknown_format",
            "another-activation": "wrong_fact",
            "no-epoch": "missing_fact",
            "a-negative-version": "wrong_fact",
            "other-shapes": "wrong_shape",
            "a-tensor-too-few": "wrong_shape",
        }.items()
    ),  # type: ignore[list-item]
    ("wrong_stream", b"t", KIT["full-float32-relu.mapping"]),
    ("not_finite", b"s", not_finite()),
]


@pytest.mark.parametrize(("reason", "key", "value"), BAD, ids=lambda each: str(each)[:20])
def test_a_bad_record_is_counted_and_changes_nothing(
    reason: PassedOver, key: bytes | None, value: bytes | None, whole_record: Make
) -> None:
    newest = NewestMappings()
    newest.take(whole_record("s", version=5))
    newest.take(whole_record("t", version=5))
    before = newest.items()
    result = newest.take(Record(key, value))
    assert isinstance(result, Ignored)
    assert result.reason == reason
    assert result.detail
    assert newest.passed_over == {reason: 1}
    assert newest.items() == before


def test_a_record_that_kafkas_client_cannot_parse_is_counted() -> None:
    @dataclass(frozen=True)
    class Unreadable(Record):
        fault: str = "its checksum is wrong"

    newest = NewestMappings()
    newest.take(Unreadable(b"s", b"bytes"))
    assert newest.passed_over == {"unreadable": 1}


def test_older_fenced_and_repeated_ones_are_told_apart(whole_record: Make) -> None:
    newest = NewestMappings()
    newest.take(whole_record(epoch=7, version=90))
    newest.take(whole_record(epoch=7, version=89))
    newest.take(whole_record(epoch=6, version=95))
    newest.take(whole_record(epoch=7, version=90))
    assert newest.passed_over == {"older": 1, "fenced": 1, "repeated": 1}
    assert isinstance(newest.take(whole_record(epoch=7, version=90, seed=30)), Swapped)


def test_a_window_that_begins_behind_the_version_before_is_a_gap(whole_record: Make) -> None:
    newest = NewestMappings()
    changes = [
        newest.take(whole_record(version=version, window_since=since))
        for version, since in [(10, 0), (20, 11), (40, 22), (50, -1)]
    ]
    assert [isinstance(c, Swapped) and c.gap for c in changes] == [False, False, True, False]
    assert newest.gaps == {"window": 1}


def test_a_lowrank_mapping_waits_for_its_theta(
    theta: ServedTheta, factored_record: Make, whole_record: Make
) -> None:
    newest = NewestMappings()
    newest.take(whole_record(version=80, window_since=0))
    assert isinstance(newest.take(factored_record(version=90)), Waiting)
    assert newest.wanted_thetas == {theta.content_hash}
    assert isinstance(newest.take(factored_record(version=85)), Ignored)
    assert served_version(newest) == 80
    assert newest.retry() == []
    newest.add_theta(theta)
    (change,) = newest.retry()
    assert isinstance(change, Swapped)
    assert served_version(newest) == 90
    assert newest.wanted_thetas == set()


def test_a_mapping_that_waited_does_not_come_behind_a_newer_one(
    theta: ServedTheta, factored_record: Make, whole_record: Make
) -> None:
    newest = NewestMappings()
    newest.take(factored_record(version=90))
    newest.take(whole_record(version=95))
    newest.add_theta(theta)
    newest.retry()
    assert served_version(newest) == 95
    newest.take(factored_record("t", version=1))
    newest.take(Record(b"t", None))
    assert newest.get("t") is None


def test_a_mapping_does_not_outlive_its_erasure_by_waiting(
    theta: ServedTheta, factored_record: Make
) -> None:
    newest = NewestMappings()
    newest.take(factored_record())
    newest.take(Record(b"s", None))
    newest.add_theta(theta)
    assert newest.retry() == []
    assert len(newest) == 0


def test_thetas_that_nothing_needs_are_forgotten(theta: ServedTheta, factored_record: Make) -> None:
    given, active, old, new = (
        replace(theta, content_hash=name) for name in ("given", "active", "old", "new")
    )
    newest = NewestMappings(thetas=[given])
    newest.add_theta(theta)
    newest.take(factored_record())
    for each in (active, old):
        newest.add_theta(each, "active")
    newest.add_theta(new, "active")
    assert set(newest.thetas) == {"given", "active", "new", theta.content_hash}


def test_streams_are_chosen_by_name_or_by_how_they_begin() -> None:
    assert "camera-1" in EVERY_STREAM
    assert "camera-1" in selection("camera-")
    assert "user-1" not in selection("camera-")
    assert "camera-1" in selection(["camera-1"])
    assert "camera-10" not in selection(["camera-1"])
    assert "" not in selection([])


def test_a_stream_that_is_not_followed_is_no_fault(whole_record: Make) -> None:
    newest = NewestMappings(selection("camera-"))
    assert newest.take(whole_record("user-1")) is None
    assert newest.take(Record(b"user-1", b"garbage")) is None
    newest.take(whole_record("camera-1"))
    assert [stream for stream, _ in newest.items()] == ["camera-1"]
    assert not newest.passed_over


def test_what_is_gone_from_a_topic_read_again_is_erased(whole_record: Make) -> None:
    newest = NewestMappings()
    for stream in ("kept", "gone", "bad"):
        newest.take(whole_record(stream))
    newest.begin_again()
    newest.take(whole_record("kept"))
    newest.take(Record(b"bad", b"garbage"))
    assert [change.stream for change in newest.erase_unseen()] == ["gone"]
    assert sorted(stream for stream, _ in newest.items()) == ["bad", "kept"]


def test_a_stream_that_was_erased_while_it_waited_for_its_theta_is_not_served(
    theta: ServedTheta, factored_record: Make
) -> None:
    newest = NewestMappings()
    assert isinstance(newest.take(factored_record("s")), Waiting)
    newest.begin_again()
    assert newest.erase_unseen() == []
    newest.add_theta(theta)
    assert newest.retry() == []
    assert newest.get("s") is None


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.integers(0, 4),
            st.integers(0, 1),
            st.integers(0, 3),
            st.booleans(),
        ),
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None)
def test_the_newest_good_mapping_is_served_whatever_comes(
    whole_record: Make, records: list[tuple[int, int, int, int, bool]]
) -> None:
    """By the rule of the docs, applied to all good records at once."""
    newest = NewestMappings()
    best: tuple[int, int, int, int] | None = None
    for epoch, version, partition, time_ms, good in records:
        record = whole_record(
            epoch=epoch, version=version, partition=partition, event_time_ms=time_ms
        )
        assert record.value is not None
        newest.take(record if good else replace(record, value=record.value[:-1]))
        if not good:
            continue
        new = (epoch, version, partition, time_ms)
        if best is None:
            best = new
        elif partition == best[2]:
            best = new if (epoch, version) >= best[:2] else best
        else:
            best = new if (time_ms, partition) > (best[3], best[2]) else best
    mapping = newest.get("s")
    found = mapping and (
        mapping.facts.epoch,
        mapping.facts.version,
        mapping.facts.partition,
        mapping.facts.event_time_ms,
    )
    assert found == best


def test_readers_beside_the_thread_that_swaps_see_whole_mappings(whole_record: Make) -> None:
    """Each record's mapping gives an output of its own; every output seen is one of them, and
    belongs to the facts that came with it."""
    records = [whole_record(version=v, seed=100 * v, window_since=0) for v in range(20)]
    outputs = {}
    for record in records:
        alone = NewestMappings()
        alone.take(record)
        mapping = alone.get("s")
        assert mapping is not None
        outputs[mapping.facts.version] = mapping(X_D).tobytes()
    newest, done, faults = NewestMappings(), Event(), []
    newest.take(records[0])

    def read() -> None:
        last = 0
        while not done.is_set():
            mapping = newest.get("s")
            assert mapping is not None
            version = mapping.facts.version
            if mapping(X_D).tobytes() != outputs[version] or version < last:
                faults.append(version)
            last = version

    threads = [Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for record in records * 20:
        newest.take(record)
    done.set()
    for thread in threads:
        thread.join()
    assert not faults


def test_a_served_mapping_cannot_be_written_to(
    whole_record: Make, factored_record: Make, theta: ServedTheta
) -> None:
    newest = NewestMappings(thetas=[theta])
    newest.take(whole_record("s"))
    newest.take(factored_record("t"))
    for _, mapping in newest.items():
        for tensor in (*mapping.stored.values(), *mapping.tensors().values()):
            with pytest.raises(ValueError, match="read-only"):
                tensor[...] = 0
