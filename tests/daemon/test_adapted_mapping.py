"""Adapted mappings: bytes and headers say the same, and damage is noticed."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from daemon.wire import adapted_mapping
from daemon.wire.adapted_mapping import (
    AdaptedMapping,
    Dtype,
    Encoding,
    Facts,
    StoredArray,
    content_hash,
    runnable,
)
from model.values.arrays import FloatArray
from model.values.gate import Outcome
from model.values.low_rank import LowRank, in_half


def tensors(seed: int = 0) -> dict[str, FloatArray]:
    rng = np.random.default_rng(seed)
    shapes = {"w1": (3, 4), "b1": (3,), "w2": (2, 3), "b2": (2,)}
    return {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}


FACTS = Facts(
    kind="mlp",
    activation="gelu",
    output_activation="none",
    source_modality="vector",
    target_modality="vector",
    source_dim=4,
    hidden_dim=3,
    target_dim=2,
    stream="s",
    outcome=Outcome.ADAPTED,
    epoch=1_700_000_000_000,
    version=41,
    topic="paired-events",
    partition=3,
    meta_init="fresh",
    meta_init_hash="00ff",
    generator="mlp",
    learner="maml",
    encoder="identity",
    loss="mse",
    support_pairs=8,
    query_pairs=2,
    support_loss_before=1.0,
    support_loss_after=0.1,
    query_loss_before=1.1,
    query_loss_after=1 / 3,
    query_loss_ridge=2.0,
    event_time_ms=5,
    published_at_ms=6,
    turn="worker-1",
    content_hash=content_hash(tensors()),
)


def same(one: Facts, other: Facts) -> bool:
    """Equal, where NaN equals NaN."""
    return repr(one) == repr(other)


def with_facts(**changes: Any) -> AdaptedMapping:
    return AdaptedMapping(tensors(), msgspec.structs.replace(FACTS, **changes))


losses = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 1e-45, 1 / 3])


@given(
    stream=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    outcome=st.sampled_from(Outcome),
    before=losses,
    after=losses,
)
def test_a_mapping_comes_back_as_it_went(
    stream: str, outcome: Outcome, before: float, after: float
) -> None:
    mapping = with_facts(
        stream=stream, outcome=outcome, query_loss_before=before, query_loss_after=after
    )
    value, headers = adapted_mapping.encode_mapping(mapping)
    decoded = adapted_mapping.decode_mapping(value)
    assert same(decoded.facts, mapping.facts)
    assert decoded.tensors.keys() == mapping.tensors.keys()
    for name, tensor in mapping.tensors.items():
        assert np.array_equal(decoded.tensors[name], tensor)
    assert dict(headers)["adaptd-stream"].decode() == stream


def test_tensors_that_are_not_finite_come_back_too() -> None:
    damaged = tensors() | {"b1": np.array([np.nan, np.inf, -0.0], np.float32)}
    facts = msgspec.structs.replace(FACTS, content_hash=content_hash(damaged))
    value, _ = adapted_mapping.encode_mapping(AdaptedMapping(damaged, facts))
    assert adapted_mapping.decode_mapping(value).tensors["b1"].tobytes() == damaged["b1"].tobytes()


def test_a_tensor_that_is_a_view_is_written_by_its_values() -> None:
    strided = tensors() | {"w1": np.arange(24, dtype=np.float32).reshape(3, 8)[:, ::2]}
    facts = msgspec.structs.replace(FACTS, content_hash=content_hash(strided))
    value, _ = adapted_mapping.encode_mapping(AdaptedMapping(strided, facts))
    assert np.array_equal(adapted_mapping.decode_mapping(value).tensors["w1"], strided["w1"])


def in_form(
    encoding: Encoding, dtype: Dtype, stored: dict[str, StoredArray], **changes: Any
) -> AdaptedMapping:
    facts = msgspec.structs.replace(
        FACTS,
        format=adapted_mapping.format_of(encoding, dtype),
        encoding=encoding,
        dtype=dtype,
        content_hash=content_hash(stored, encoding, dtype, FACTS.meta_init_hash),
    )
    return AdaptedMapping(stored, msgspec.structs.replace(facts, **changes))


def low_rank() -> LowRank:
    """What is added to `tensors(1)`, as θ."""
    rng = np.random.default_rng(2)
    shapes = ((5, 4), (5, 3), (3,), (5, 2), (4, 4), (5, 4))
    return LowRank(*(rng.standard_normal(shape).astype(np.float32) for shape in shapes))


def every_form() -> dict[tuple[Encoding, Dtype], AdaptedMapping]:
    halves = {name: tensor.astype(np.float16) for name, tensor in tensors().items()}
    return {
        ("full", "float32"): in_form("full", "float32", dict(tensors())),
        ("full", "float16"): in_form("full", "float16", dict(halves)),
        ("lowrank", "float32"): in_form("lowrank", "float32", dict(low_rank().factors())),
        ("lowrank", "float16"): in_form(
            "lowrank", "float16", in_half(low_rank().factors(), lambda t: t.astype(np.float16))
        ),
    }


@pytest.mark.parametrize("form", every_form())
def test_every_form_comes_back_as_it_lies(form: tuple[Encoding, Dtype]) -> None:
    mapping = every_form()[form]
    value, headers = adapted_mapping.encode_mapping(mapping)
    decoded = adapted_mapping.decode_mapping(value)
    assert same(decoded.facts, mapping.facts)
    assert (decoded.facts.encoding, decoded.facts.dtype) == form
    assert dict(headers)["adaptd-encoding"].decode() == form[0]
    assert decoded.tensors.keys() == mapping.tensors.keys()
    for name, tensor in mapping.tensors.items():
        assert decoded.tensors[name].dtype == tensor.dtype
        assert decoded.tensors[name].tobytes() == tensor.tobytes()


@pytest.mark.parametrize("form", every_form())
def test_the_file_is_the_one_that_safetensors_writes(form: tuple[Encoding, Dtype]) -> None:
    mapping = every_form()[form]
    value, _ = adapted_mapping.encode_mapping(mapping)
    theirs = save(dict(mapping.tensors), mapping.facts.as_strings())
    size = int.from_bytes(value[:8], "little")
    assert size % 8 == 0  # so that the widest numbers are aligned, and the rest behind them
    assert value[8 + size :] == theirs[8 + int.from_bytes(theirs[:8], "little") :]
    header = json.loads(value[8 : 8 + size])
    assert header == json.loads(theirs[8 : 8 + int.from_bytes(theirs[:8], "little")])


@pytest.mark.parametrize("form", every_form())
def test_every_form_can_be_run(form: tuple[Encoding, Dtype]) -> None:
    theta = tensors(1)
    made = runnable(every_form()[form], theta)
    expected = tensors() if form[0] == "full" else low_rank().multiplied_out(theta)
    for name, tensor in expected.items():
        assert made[name].dtype == np.float32
        if form[1] == "float32":
            assert np.array_equal(made[name], tensor)
        else:
            np.testing.assert_allclose(made[name], tensor, atol=2e-3 * abs(tensor).max())


def test_theta_itself_takes_a_few_hundred_bytes() -> None:
    mapping = in_form("lowrank", "float16", {}, outcome=Outcome.WORSE)
    value, _ = adapted_mapping.encode_mapping(mapping)
    assert len(value) < 1_000
    made = runnable(adapted_mapping.decode_mapping(value), tensors(1))
    assert all(np.array_equal(made[name], tensor) for name, tensor in tensors(1).items())


def test_what_was_added_to_theta_cannot_be_run_without_it_or_with_another() -> None:
    mapping = every_form()["lowrank", "float32"]
    with pytest.raises(ValueError, match="'s' needs θ fresh \\(00ff\\)"):
        runnable(mapping)
    other = tensors() | {"w1": np.zeros((3, 9), np.float32)}
    with pytest.raises(ValueError, match=r"mismatch|shape"):
        runnable(mapping, other)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "adapted-mapping/3"},
        {"format": "adapted-mapping/1"},
        {"dtype": "float16"},
        {"dtype": "bfloat16"},
        {"encoding": "full"},
        {"encoding": "sparse"},
        {"meta_init_hash": "11ff"},
    ],
)
def test_a_form_that_is_not_what_it_says_is_refused(changes: dict[str, Any]) -> None:
    mapping = every_form()["lowrank", "float32"]
    mapping = AdaptedMapping(mapping.tensors, msgspec.structs.replace(mapping.facts, **changes))
    value, _ = adapted_mapping.encode_mapping(mapping)
    with pytest.raises(ValueError, match=r"not an adapted mapping|do not match their"):
        adapted_mapping.decode_mapping(value)


def test_a_record_from_before_there_were_encodings_is_full_in_float32() -> None:
    strings = FACTS.as_strings()
    assert strings.pop("encoding") == "full"
    assert strings.pop("dtype") == "float32"
    for newer in ("candidate", "ahead_squared", "ahead_cosine"):
        del strings[newer]
    decoded = adapted_mapping.decode_mapping(save(tensors(), strings))
    assert same(decoded.facts, FACTS)


def test_a_newer_candidate_is_read_and_a_newer_outcome_is_no_mapping() -> None:
    strings = FACTS.as_strings()
    newer = adapted_mapping.decode_mapping(save(tensors(), strings | {"candidate": "a newer one"}))
    assert newer.facts.candidate == "a newer one"
    with pytest.raises(ValueError, match="not an adapted mapping"):
        adapted_mapping.decode_mapping(save(tensors(), strings | {"outcome": "a newer one"}))


@pytest.mark.parametrize("form", [form for form in every_form() if form != ("full", "float32")])
def test_to_a_reader_that_knows_full_float32_alone_the_rest_is_damaged(
    form: tuple[Encoding, Dtype],
) -> None:
    """It hashes as adapted-mapping/1 did, and passes over what does not match."""
    value, _ = adapted_mapping.encode_mapping(every_form()[form])
    digest = hashlib.sha256()
    stored = load(value)
    for name in sorted(stored):
        shape = ",".join(map(str, stored[name].shape))
        digest.update(f"{name}:{shape};".encode() + stored[name].tobytes())
    assert digest.hexdigest() != adapted_mapping.decode_mapping(value).facts.content_hash


def test_the_headers_are_the_facts() -> None:
    _, headers = adapted_mapping.encode_mapping(
        with_facts(query_loss_after=math.nan, stream="ключ")
    )
    names = [name for name, _ in headers]
    texts = {name.removeprefix("adaptd-"): value.decode() for name, value in headers}
    assert all(name.startswith("adaptd-") for name in names)
    assert len(set(names)) == len(names)
    facts = msgspec.convert(texts, Facts, strict=False)
    assert same(facts, with_facts(query_loss_after=math.nan, stream="ключ").facts)


def test_the_value_is_plain_safetensors_whose_metadata_is_text() -> None:
    value, headers = adapted_mapping.encode_mapping(with_facts())
    size = int.from_bytes(value[:8], "little")
    metadata = json.loads(value[8 : 8 + size])["__metadata__"]
    assert {f"adaptd-{name}": text.encode() for name, text in metadata.items()} == dict(headers)


@pytest.mark.parametrize("name", ["w1", "b1", "w2", "b2"])
def test_a_tensor_changed_by_one_bit_is_noticed(name: str) -> None:
    value, _ = adapted_mapping.encode_mapping(with_facts())
    at = value.rindex(tensors()[name].tobytes())
    tampered = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
    with pytest.raises(ValueError, match="'s' do not match their content hash"):
        adapted_mapping.decode_mapping(tampered)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"short",
        bytes(100),
        b"\xff" * 64,
        adapted_mapping.encode_mapping(with_facts())[0][:-1],
        adapted_mapping.encode_mapping(with_facts())[0] + b"x",
    ],
)
def test_what_is_no_mapping_is_a_value_error(value: bytes) -> None:
    with pytest.raises(ValueError, match="not an adapted mapping"):
        adapted_mapping.decode_mapping(value)


def safetensors_file(header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"__metadata__": {}},
        {"__metadata__": {"stream": "s"}},
        {"__metadata__": {**FACTS.as_strings(), "epoch": "soon"}},
        {"__metadata__": {**FACTS.as_strings(), "outcome": "great"}},
        {"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}},
        {"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}},
    ],
)
def test_a_safetensors_file_of_another_kind_is_a_value_error(header: dict[str, Any]) -> None:
    data = bytes(2) if "a" in header else b""
    with pytest.raises(ValueError, match="not an adapted mapping"):
        adapted_mapping.decode_mapping(safetensors_file(header, data))


@given(at=st.integers(0, 3_000), replacement=st.binary(max_size=8), length=st.integers(0, 8))
def test_a_mapping_with_bytes_changed_is_a_mapping_or_a_value_error(
    at: int, replacement: bytes, length: int
) -> None:
    value, _ = adapted_mapping.encode_mapping(with_facts())
    value = value[:at] + replacement + value[at + length :]
    try:
        decoded = adapted_mapping.decode_mapping(value)
    except ValueError:
        return
    assert content_hash(decoded.tensors) == decoded.facts.content_hash


def test_the_content_hash_depends_on_names_shapes_and_values_and_not_on_their_order() -> None:
    base = tensors()
    assert content_hash(dict(reversed(base.items()))) == content_hash(base)
    assert content_hash(base | {"w1": base["w1"].reshape(4, 3)}) != content_hash(base)
    assert content_hash(base | {"b1": base["b1"] + 1}) != content_hash(base)
    renamed = {("c1" if name == "b1" else name): tensor for name, tensor in base.items()}
    assert content_hash(renamed) != content_hash(base)
