"""What canaries write: the trial and the evidence, and whatever else may lie there."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.adapters.memory import MemoryRecord
from daemon.canary.assignment import is_held_out, shadows
from daemon.wire.canary import CANDIDATE_KEY, Canary, decode_canary, encode_canary
from daemon.wire.catalogue import Catalogue
from daemon.wire.evidence import BadEvidence, decode_evidence, evidence_message
from daemon.wire.meta_init import with_record
from model.meta.splits import part_of
from model.values.outside import BadBytes
from tests.canary.lab import CANARY, evidence

NAMES = [f"tenant-{i}" for i in range(20_000)]


def test_a_canary_is_read_as_it_was_written() -> None:
    for canary in (CANARY, replace(CANARY, watch=True, ended="held", quarantined=("ab",))):
        assert decode_canary(encode_canary(canary)) == canary


@pytest.mark.parametrize(
    "change",
    [
        {"share": 0.31},
        {"share": 0.0},
        {"share": "all"},
        {"epoch": 0},
        {"attempt": -1},
        {"until_ms": 0},
        {"ended": "somehow"},
        {"version": None},
    ],
)
def test_a_canary_that_cannot_be_is_refused_and_told(change: dict[str, object]) -> None:
    value = msgspec.json.encode(msgspec.to_builtins(CANARY) | change)
    with pytest.raises(BadBytes):
        decode_canary(value)
    found = with_record(Catalogue(canary=CANARY), MemoryRecord(1, 2, CANDIDATE_KEY.encode(), value))
    assert found.canary is None
    assert found.canary_fault is not None


def after(catalogue: Catalogue, canary: Canary | None) -> Catalogue:
    value = encode_canary(canary) if canary else None
    return with_record(catalogue, MemoryRecord(1, 2, CANDIDATE_KEY.encode(), value))


def test_readers_keep_the_larger_epoch() -> None:
    newer, ended = replace(CANARY, epoch=9), replace(CANARY, epoch=9, ended="aborted")
    assert after(after(Catalogue(), newer), CANARY).canary == newer
    assert after(after(Catalogue(), CANARY), newer).canary == newer
    assert after(after(Catalogue(), newer), ended).canary == ended
    assert after(after(Catalogue(), newer), None).canary is None


def test_evidence_is_read_as_it_was_written_and_is_small() -> None:
    said = evidence(0.25)
    sent = evidence_message("meta-evidence", CANARY, "a/b", said)
    heard = decode_evidence(MemoryRecord(0, 0, sent.key, sent.value))
    assert heard == (CANARY.content_hash, "a/b", said)
    assert len(sent.value or b"") < 100


@given(st.binary() | st.none(), st.binary() | st.none())
def test_whatever_lies_there_is_evidence_or_bad_evidence(
    key: bytes | None, value: bytes | None
) -> None:
    with pytest.raises(BadEvidence):
        decode_evidence(MemoryRecord(0, 0, key, value))


def test_those_that_judge_are_those_that_are_never_trained_on() -> None:
    for name in NAMES[:3_000]:
        assert is_held_out(name, 3) == (part_of(name, 3) != "train")
    judging = {name for name in NAMES if shadows(CANARY, name)}
    assert judging == {name for name in NAMES if is_held_out(name, 0)}  # a share of 0.3


def test_shares_hold_and_candidates_have_streams_of_their_own() -> None:
    tenth = replace(CANARY, share=0.1)
    other = replace(tenth, content_hash="ab" * 32)
    one, two = ({n for n in NAMES if shadows(c, n)} for c in (tenth, other))
    error = (0.1 * 0.9 * len(NAMES)) ** 0.5
    for judging in (one, two):
        assert abs(len(judging) - 0.1 * len(NAMES)) < 3 * error
    # of the held-out streams a third each, independently
    assert abs(len(one & two) - len(NAMES) * 0.3 / 9) < 3 * (len(NAMES) * 0.3 / 9) ** 0.5
