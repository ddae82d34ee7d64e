"""The reader that uses nothing of ours, against what the daemon publishes."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from model.mappings.mlp import Mlp, apply

SCRIPT = Path(__file__).parents[2] / "examples" / "subscribe.py"


@pytest.fixture(scope="module")
def reader() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("subscribe", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["subscribe"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["subscribe"]


@pytest.fixture(scope="module")
def mappings(reader: ModuleType, daemon_at_work: Any) -> dict[str, Any]:
    """Each stream's newest mapping, as the reader sees the topic."""
    bootstrap, topic = daemon_at_work.kafka_bootstrap_servers, daemon_at_work.mappings_topic
    return dict(reader.follow(bootstrap, topic, until_end=True))


def test_it_imports_kafka_python_safetensors_and_numpy_alone() -> None:
    tree = ast.parse(SCRIPT.read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"kafka", "safetensors", "numpy"}


def test_it_finds_every_stream_with_its_newest_version(mappings: dict[str, Any]) -> None:
    assert sorted(mappings) == [f"stream-{i}" for i in range(6)]
    assert {m.facts["support_pairs"] for m in mappings.values()} == {"32"}
    # the events are linear and θ is not meta-trained: mostly ridge does better
    assert {m.facts["outcome"] for m in mappings.values()} <= {"adapted", "ridge"}


def test_its_mapping_is_the_one_that_torch_computes(mappings: dict[str, Any]) -> None:
    x_ND = np.random.default_rng(3).standard_normal((5, 16)).astype(np.float32)
    for mapping in mappings.values():
        mlp = Mlp(**{name: torch.from_numpy(t) for name, t in mapping.tensors.items()})
        activations = (mapping.facts["activation"], mapping.facts["output_activation"])
        expected_NE = apply(mlp, torch.from_numpy(x_ND), *activations).numpy()
        np.testing.assert_allclose(mapping(x_ND), expected_NE, rtol=1e-5, atol=1e-6)


def test_all_its_activations_are_torchs(reader: ModuleType) -> None:
    z = np.linspace(-6, 6, 101, dtype=np.float32)
    theirs: dict[str, Any] = {
        "none": torch.nn.Identity(),
        "relu": torch.relu,
        "gelu": torch.nn.functional.gelu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
    }
    assert set(reader.ACTIVATIONS) == set(theirs)
    for name, sigma in theirs.items():
        expected = sigma(torch.from_numpy(z)).numpy()
        np.testing.assert_allclose(reader.ACTIVATIONS[name](z), expected, atol=1e-6)


def test_it_refuses_a_tampered_mapping(reader: ModuleType, daemon_at_work: Any) -> None:
    from kafka import KafkaConsumer  # importing it warns on some Pythons; the fixture did so before

    consumer = KafkaConsumer(
        daemon_at_work.mappings_topic,
        bootstrap_servers=daemon_at_work.kafka_bootstrap_servers,
        auto_offset_reset="earliest",
        consumer_timeout_ms=10_000,
    )
    value = bytearray(next(consumer).value)
    consumer.close()
    value[-1] ^= 1
    with pytest.raises(reader.BadMapping, match="do not match their hash"):
        reader.parse(bytes(value))
    with pytest.raises(reader.BadMapping, match="not an adapted mapping"):
        reader.parse(b"garbage")


def test_an_older_mapping_never_replaces_a_newer_one(
    reader: ModuleType, mappings: dict[str, Any], daemon_at_work: Any
) -> None:
    mapping = mappings["stream-0"]
    epoch, version = mapping.order
    orders: dict[str, tuple[int, int]] = {"stream-0": (epoch, version + 1)}
    record = _Record(b"stream-0", _republished(mapping))
    assert list(reader._newer(record, orders)) == []
    orders = {"stream-0": (epoch, version)}
    assert [stream for stream, _ in reader._newer(record, orders)] == ["stream-0"]


def test_it_runs_as_a_script(daemon_at_work: Any) -> None:
    printed = subprocess.run(
        [
            *(sys.executable, str(SCRIPT), "--until-end"),
            *("--bootstrap", daemon_at_work.kafka_bootstrap_servers),
            *("--topic", daemon_at_work.mappings_topic),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert re.search(r"stream-5: (adapted|ridge), version", printed)


class _Record:
    def __init__(self, key: bytes, value: bytes) -> None:
        self.key, self.value = key, value
        self.topic, self.partition, self.offset = "mappings", 0, 0


def _republished(mapping: Any) -> bytes:
    from safetensors.numpy import save

    return save(mapping.tensors, mapping.facts)
