"""Whatever lies in the mappings topic, the example reader goes on and keeps what was good."""

from __future__ import annotations

import io
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

D, H, E, S = 3, 4, 2, 5
RNG = np.random.default_rng(0)
THETA = {
    name: RNG.standard_normal(shape).astype(np.float32)
    for name, shape in {"w1": (H, D), "b1": (H,), "w2": (E, H), "b2": (E,)}.items()
}
FACTORS = {
    name: RNG.standard_normal(shape).astype(np.float32)
    for name, shape in {
        **{"a": (S, H), "x": (S, D), "beta": (H,)},
        **{"n": (H + 1, H + 1), "v": (S, H + 1), "y": (S, E)},
    }.items()
}
FACTS = {
    **{"format": "adapted-mapping/2", "kind": "mlp", "dtype": "float32", "encoding": "full"},
    **{"stream": "s", "epoch": "7", "version": "9", "meta_init_hash": "t"},
    **{"source_dim": str(D), "hidden_dim": str(H), "target_dim": str(E)},
    **{"activation": "relu", "output_activation": "none", "outcome": "adapted"},
    **{"event_time_ms": "5", "partition": "0"},
    **{"support_pairs": "5", "query_loss_before": "2.0", "query_loss_after": "1.0"},
}


@dataclass(frozen=True)
class Record:
    key: bytes | None
    value: bytes | None
    topic: str = "mappings"
    partition: int = 0
    offset: int = 0


class Thetas:
    """Knows one θ."""

    def get(self, content_hash: str) -> dict[str, Any] | None:
        return THETA if content_hash == "t" else None


def mapping(reader: ModuleType, facts: dict[str, str], tensors: dict[str, Any]) -> bytes:
    """A record's value whose hash is right, whatever else is wrong."""
    try:
        facts = facts | {"content_hash": reader.content_hash(tensors, facts)}
    except KeyError:  # a fact is missing that the hash is made of
        facts = facts | {"content_hash": "none"}
    return bytes(save(tensors, facts))


def read(
    reader: ModuleType, record: Record, orders: dict[str, tuple[int, int]], counts: Counter[str]
) -> list[tuple[str, Any]]:
    with redirect_stdout(io.StringIO()):
        return list(reader._newer(record, orders, Thetas(), counts))


def test_both_encodings_are_read(reader: ModuleType) -> None:
    x_RD = RNG.standard_normal((6, D)).astype(np.float32)
    f = FACTORS
    w_EG = np.column_stack([THETA["w2"], THETA["b2"]])
    w_EG = w_EG + w_EG @ f["n"] + f["y"].T @ f["v"]
    h_RH = np.maximum(x_RD @ (THETA["w1"] + f["a"].T @ f["x"]).T + THETA["b1"] + f["beta"], 0)
    expected = h_RH @ w_EG[:, :-1].T + w_EG[:, -1]
    value = mapping(reader, FACTS | {"encoding": "lowrank"}, FACTORS)
    np.testing.assert_allclose(reader.parse(value, Thetas())(x_RD), expected, rtol=1e-4, atol=1e-4)
    full = reader.parse(mapping(reader, FACTS, THETA))
    expected = np.maximum(x_RD @ THETA["w1"].T + THETA["b1"], 0) @ THETA["w2"].T + THETA["b2"]
    np.testing.assert_allclose(full(x_RD), expected, rtol=1e-5, atol=1e-5)


WRONG_FACTS = [
    *({name: None} for name in ("epoch", "version", "activation", "output_activation")),
    *({name: None} for name in ("source_dim", "dtype", "format", "content_hash")),
    *({"epoch": epoch} for epoch in ("", "x", "-1", "1.5", "1" * 5_000, str(2**63))),
    {"activation": "swish"},
    {"hidden_dim": "5"},
    {"format": "adapted-mapping/3"},
    {"kind": "rnn"},
    {"kind": None},
    {"encoding": "lowrank"},
    {"encoding": "lowrank", "meta_init_hash": "another"},
    {"encoding": "lowrank", "meta_init_hash": None},
]


@pytest.mark.parametrize("change", WRONG_FACTS, ids=str)
def test_a_fact_that_is_wrong_or_missing_is_passed_over(
    reader: ModuleType, change: dict[str, str | None]
) -> None:
    facts: dict[str, Any] = {n: v for n, v in (FACTS | change).items() if v is not None}
    value = mapping(reader, facts, THETA)
    if change == {"content_hash": None}:
        value = bytes(save(THETA, facts))
    orders, counts = {"s": (1, 1)}, Counter[str]()
    assert read(reader, Record(b"s", value), orders, counts) == []
    assert (orders, counts) == ({"s": (1, 1)}, {"bad": 1})


@pytest.mark.parametrize("length", [0, 1, 3, 5])
def test_scales_of_the_wrong_length_are_passed_over(reader: ModuleType, length: int) -> None:
    tensors = THETA | {"scales": np.ones(length, np.float32)}
    with pytest.raises(reader.BadMapping):
        reader.parse(mapping(reader, FACTS, tensors))


@pytest.mark.parametrize("key", [None, b"\xff\xfe"])
@pytest.mark.parametrize("tombstone", [False, True])
def test_a_key_that_is_no_text_is_passed_over(
    reader: ModuleType, key: bytes | None, tombstone: bool
) -> None:
    value = None if tombstone else mapping(reader, FACTS, THETA)
    orders, counts = {"s": (1, 1)}, Counter[str]()
    assert read(reader, Record(key, value), orders, counts) == []
    assert (orders, counts) == ({"s": (1, 1)}, {"bad": 1})


def test_a_theta_without_a_key_is_passed_over(reader: ModuleType) -> None:
    thetas = reader.Thetas()
    with redirect_stdout(io.StringIO()):
        for key in (None, b"", b"\xff", b"v1", b"@active"):
            for value in (None, b"", b"garbage", mapping(reader, FACTS, THETA)):
                thetas._take(Record(key, value))
    assert thetas.get("t") is None


texts = st.text(max_size=20) | st.sampled_from(["0", "-1", "1e9", "NaN", "relu", "lowrank", "full"])
shapes = st.lists(st.integers(0, 6), max_size=3).map(tuple)
arrays = st.builds(
    lambda shape, dtype: np.ones(shape, dtype),
    shapes,
    st.sampled_from([np.float32, np.float16, np.float64, np.int64, np.uint8, np.bool_]),
)


@st.composite
def values(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, Any]]:
    """Facts and tensors that are right but for a few."""
    facts = FACTS | {"encoding": draw(st.sampled_from(["full", "lowrank"]))}
    tensors = dict(draw(st.sampled_from([THETA, FACTORS])))
    facts |= draw(st.dictionaries(st.sampled_from(sorted(FACTS)) | texts, texts, max_size=3))
    for name in draw(st.lists(st.sampled_from(sorted(FACTS)), max_size=2)):
        facts.pop(name, None)
    names = st.sampled_from([*THETA, *FACTORS, "scales"]) | st.text(min_size=1, max_size=5)
    tensors |= draw(st.dictionaries(names, arrays, max_size=3))
    for name in draw(st.lists(st.sampled_from(sorted(tensors)), max_size=2)):
        tensors.pop(name, None)
    return facts, tensors


@given(
    st.none() | st.binary(max_size=4) | st.just(b"s"),
    st.none() | st.binary(max_size=60) | values(),
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), max_size=2),
)
@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nothing_comes_out_but_a_mapping_that_can_be_applied(
    reader: ModuleType, key: bytes | None, content: Any, damage: list[tuple[int, int]]
) -> None:
    value = mapping(reader, *content) if isinstance(content, tuple) else content
    for at, byte in damage if value else ():
        value = value[:at] + bytes([byte]) + value[at + 1 :]
    orders, counts = {"s": (7, 9)}, Counter[str]()
    before = dict(orders)
    yielded = read(reader, Record(key, value), orders, counts)
    if not yielded:
        assert orders == before
        assert counts.total() == 1
        return
    ((stream, found),) = yielded
    assert stream.encode() == key
    if found is not None:
        assert orders[stream] == found.order
        source, target = int(found.facts["source_dim"]), int(found.facts["target_dim"])
        assert found(np.ones((2, source), np.float32)).shape == (2, target)
        assert reader.described(found)
