"""Whatever the bytes from outside are, each reader returns a value or raises its one error.

This is the short form; `make fuzz N=10000000` reads as many inputs as there is time for.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.values.outside import MAX_DEPTH, BadBytes, described, parse_json, parse_tensor_file
from tests.fuzz.readers import Reader, readers

NAMES = (
    "json",
    "theta",
    "part",
    "mapping",
    "checkpoint",
    "active",
    "canary",
    "evidence",
    "catalogue",
    "event-json",
    "event-msgpack",
    "events.jsonl",
    "events.msgpack",
    "settings",
)


@pytest.fixture(scope="module")
def all_readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    made = readers(tmp_path_factory.mktemp("fuzz"))
    assert tuple(reader.name for reader in made) == NAMES
    return {reader.name: reader for reader in made}


@pytest.mark.parametrize("name", NAMES)
def test_every_good_sample_is_read(all_readers: dict[str, Reader], name: str) -> None:
    reader = all_readers[name]
    for sample in reader.samples:
        if (name, sample) != ("part", all_readers["theta"].samples[0]):  # has no encoder
            reader.read(sample)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_spoilt_samples_raise_only_the_readers_error(
    all_readers: dict[str, Reader], name: str, seed: int
) -> None:
    reader = all_readers[name]
    with suppress(reader.error):
        reader.read(reader.spoilt(Random(seed)))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=200))
def test_garbage_raises_only_the_readers_error(
    all_readers: dict[str, Reader], name: str, data: bytes
) -> None:
    with suppress(all_readers[name].error):
        all_readers[name].read(data)


def file_of(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        (2**63).to_bytes(8, "little") + b"{}",
        file_of(b"[]"),
        file_of(b'{"a":' + b"[" * 5_000),
        file_of({"__metadata__": {"a": 1}}),
        file_of({"a": ONE | {"shape": [-1]}}, b"1234"),
        file_of({"a": ONE | {"shape": [2**62, 2**62]}}, b"1234"),
        file_of({"a": ONE | {"shape": [2**63, 0], "data_offsets": [0, 0]}}),
        file_of({"a": ONE | {"shape": [1] * 100}}, b"1234"),
        file_of({"a": ONE | {"data_offsets": [4, 0]}}, b"1234"),
        file_of({"a": ONE | {"data_offsets": [-4, 0]}}, b"1234"),
        file_of({"a": ONE, "b": ONE}, b"1234"),
        file_of({"a": ONE}, b"12345"),
        file_of({"a": ONE | {"dtype": "BF16", "shape": [2]}}, b"1234"),
        file_of({"a": ONE | {"dtype": "F8_E4M3", "shape": [4]}}, b"1234"),
        file_of(b'{"__metadata__": {"a": "\\ud800"}}'),
    ],
    ids=range(17),
)
def test_a_header_that_lies_is_no_tensor_file(data: bytes) -> None:
    with pytest.raises(BadBytes, match="not a readable safetensors file"):
        parse_tensor_file(data)


@pytest.mark.parametrize("metadata", [{}, {"__metadata__": None}])
def test_a_file_may_have_no_metadata(metadata: dict[str, None]) -> None:
    assert parse_tensor_file(file_of(metadata)).metadata == {}


@pytest.mark.parametrize(
    "text",
    ["", "NaN", "[Infinity]", "1e999", "9" * 5_000, '"\\ud800"', "[" * 5_000 + "]" * 5_000],
)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(BadBytes, match="not JSON"):
        parse_json(text)


def test_json_may_be_nested_so_deep_and_no_deeper() -> None:
    inside = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert parse_json(inside) is not None
    with pytest.raises(BadBytes, match="nested deeper than 64"):
        parse_json(f'{{"a": [{inside}]}}')


def test_messages_have_one_line_and_an_end() -> None:
    assert described(ValueError("a\nb")) == "a b"
    assert described(KeyError("a")) == "KeyError: 'a'"
    assert len(described(ValueError("x" * 10_000))) == 501


def test_the_command_says_how_many_inputs_it_read(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.fuzz.__main__ import main

    assert main(["280", "--seed", "3"]) == 0
    assert "280 inputs over 14 readers" in capsys.readouterr().out


def test_a_reader_that_lets_something_out_is_named_with_the_seed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from tests.fuzz.__main__ import holds

    def read(data: bytes) -> None:
        raise KeyError(data)

    careless = Reader("careless", read, ValueError, [b"x"], [lambda data, random: data])
    assert not holds(careless, "7 careless 1")
    assert "careless, seed '7 careless 1': KeyError" in capsys.readouterr().out
