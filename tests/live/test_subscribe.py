"""The reader that uses nothing of ours, against what the daemon publishes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from daemon.local.services import Services
from daemon.wire.adapted_mapping import Dtype
from daemon.wire.mapping_body import MappingForm
from model.mappings.mlp import Mlp, apply
from model.serving.engine import Engine
from model.theta.meta_init import MetaInit, fresh_meta_init
from model.theta.meta_init_file import meta_init_to_bytes
from model.theta.meta_init_file import save_meta_init as save_theta
from model.values.episode import Adaptation
from model.values.gate import Outcome
from model.values.low_rank import LowRank

SCRIPT = Path(__file__).parents[2] / "examples" / "subscribe.py"


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
    assert {m.facts["support_pairs"] for m in mappings.values()} == {"36"}
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


@dataclass(frozen=True)
class Factored:
    """Topics of mappings that are published as what was added to θ."""

    bootstrap: str
    mappings_topic: str
    meta_inits_topic: str
    in_topic: MetaInit
    in_file: MetaInit
    file: Path
    expected: dict[str, dict[str, Any]]
    """By stream: the adapted mapping as it was before it was taken apart."""


DTYPES: list[Dtype] = ["float32", "float16"]


@pytest.fixture(scope="module")
def factored(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Factored:
    """Streams of two θs in both dtypes and of a fallback; one θ is published, one lies in a file.
    Before both lies a θ that was damaged."""
    from daemon.adapters.kafka_python.meta_inits import KafkaPythonMetaInits
    from daemon.adapters.kafka_python.outbox import KafkaPythonOutbox
    from daemon.adapters.kafka_python.topics import KafkaTopics
    from daemon.config import Settings
    from daemon.thetas.operate import activate_theta, publish_theta
    from daemon.wire.topics import specs

    prefix = f"live-{uuid.uuid4().hex[:8]}"
    settings = Settings(
        kafka_bootstrap_servers=services.kafka_bootstrap_servers,
        kafka_mappings_topic=f"{prefix}-mappings",
        kafka_meta_inits_topic=f"{prefix}-meta-inits",
        topic_partitions=2,
    )
    topics = KafkaTopics(settings)
    for spec in specs(settings, 0):
        if spec.name.startswith(prefix):
            topics.create(spec)
    topics.close()
    in_topic, in_file = fresh_meta_init(24, 16, 8, seed=1), fresh_meta_init(24, 16, 8, seed=2)
    file = tmp_path_factory.mktemp("theta") / "theta.safetensors"
    save_theta(in_file, file)
    written = KafkaPythonMetaInits(settings, "test")
    damaged = bytearray(meta_init_to_bytes(in_topic))
    damaged[-1] ^= 1
    written.write("damaged", bytes(damaged))
    publish_theta(written, in_topic, meta_init_to_bytes(in_topic))
    activate_theta(written, in_topic.version, by="test", now_ms=0)
    written.close()
    messages, expected = [], {}
    for theta in (in_topic, in_file):
        for dtype in DTYPES:
            stream = f"{theta.version}-{dtype}"
            message, expected[stream] = _published(theta, dtype, stream, settings)
            messages.append(message)
    messages.append(_published(in_topic, "float16", "fallback", settings, Outcome.WORSE)[0])
    expected["fallback"] = dict(in_topic.mapping)
    outbox = KafkaPythonOutbox(settings, "test")
    outbox.send(messages)
    outbox.close()
    return Factored(
        services.kafka_bootstrap_servers,
        settings.kafka_mappings_topic,
        settings.kafka_meta_inits_topic,
        in_topic,
        in_file,
        file,
        expected,
    )


def _published(
    theta: MetaInit, dtype: Dtype, stream: str, settings: Any, outcome: Outcome = Outcome.ADAPTED
) -> tuple[Any, dict[str, Any]]:
    from daemon.turn.messages import MessageBuilder, PublicationContext, Topics
    from daemon.turn.report import Verdict
    from daemon.turn.streams import StreamId

    rng = np.random.default_rng(sum(stream.encode()))
    shapes = ((2, 24), (2, 8), (8,), (2, 16), (9, 9), (2, 9))
    low_rank = LowRank(*(rng.standard_normal(shape).astype(np.float32) for shape in shapes))
    made = low_rank.multiplied_out(theta.mapping)
    adaptation = Adaptation(made, 1.0, 0.5, 1.0, 0.5, finite=True, factored=lambda: low_rank)
    topics = Topics("events", settings.kafka_mappings_topic, "letters")
    messages = MessageBuilder(topics, Engine(theta, "cpu"), 900, MappingForm("lowrank", dtype))
    verdict = Verdict(StreamId(0, stream), 5, 2, 1, adaptation, outcome)
    return messages.mapping(verdict, PublicationContext(1, 2, 3, "turn")), made


def _followed(reader: ModuleType, factored: Factored, thetas: Any) -> dict[str, Any]:
    try:
        return dict(
            reader.follow(
                factored.bootstrap, factored.mappings_topic, thetas=thetas, until_end=True
            )
        )
    finally:
        thetas.close()


def _check(factored: Factored, mappings: dict[str, Any], streams: set[str]) -> None:
    assert set(mappings) == streams
    for stream, mapping in mappings.items():
        assert mapping.facts["encoding"] == "lowrank"
        near = 2e-3 if mapping.facts["dtype"] == "float16" else 1e-6
        for name, wanted in factored.expected[stream].items():
            bound = near * abs(wanted).max()
            np.testing.assert_allclose(mapping.tensors[name], wanted, atol=bound, rtol=0)


def test_it_adds_what_was_published_to_the_thetas_of_topic_and_file(
    reader: ModuleType, factored: Factored
) -> None:
    thetas = reader.Thetas([factored.file], factored.bootstrap, factored.meta_inits_topic)
    _check(factored, _followed(reader, factored, thetas), set(factored.expected))


def test_the_topic_of_thetas_alone_serves_those_that_are_in_it(
    reader: ModuleType, factored: Factored, capsys: pytest.CaptureFixture[str]
) -> None:
    thetas = reader.Thetas([], factored.bootstrap, factored.meta_inits_topic)
    found = _followed(reader, factored, thetas)
    version = factored.in_topic.version
    _check(factored, found, {f"{version}-float32", f"{version}-float16", "fallback"})
    printed = capsys.readouterr().out
    wanted = f"cannot be read without θ {factored.in_file.content_hash}"
    assert printed.count(wanted) == 2
    assert "passed over θ b'damaged': damaged" in printed


def test_files_alone_serve_theirs(reader: ModuleType, factored: Factored) -> None:
    for topic in ("", factored.meta_inits_topic + "-not-there"):
        thetas = reader.Thetas([factored.file], factored.bootstrap, topic)
        version = factored.in_file.version
        streams = {f"{version}-float32", f"{version}-float16"}
        _check(factored, _followed(reader, factored, thetas), streams)


def test_a_theta_published_later_is_found(
    reader: ModuleType, factored: Factored, services: Services
) -> None:
    from daemon.adapters.kafka_python.meta_inits import KafkaPythonMetaInits
    from daemon.config import Settings
    from daemon.thetas.operate import publish_theta

    thetas = reader.Thetas([], factored.bootstrap, factored.meta_inits_topic)
    late = replace(fresh_meta_init(3, 2, 4, seed=9), version="late")
    assert thetas.get(late.content_hash) is None
    settings = Settings(
        kafka_bootstrap_servers=services.kafka_bootstrap_servers,
        kafka_meta_inits_topic=factored.meta_inits_topic,
    )
    topic = KafkaPythonMetaInits(settings, "test")
    publish_theta(topic, late, meta_init_to_bytes(late))
    topic.close()
    found = thetas.get(late.content_hash)
    thetas.close()
    assert found is not None
    assert all(np.array_equal(found[name], tensor) for name, tensor in late.mapping.items())


def test_a_file_that_is_no_theta_is_refused(reader: ModuleType, tmp_path: Path) -> None:
    theta = bytearray(meta_init_to_bytes(fresh_meta_init(3, 2, 4)))
    theta[-1] ^= 1
    for content, why in ((b"garbage", "not a θ"), (bytes(theta), "damaged")):
        (tmp_path / "theta").write_bytes(content)
        with pytest.raises(reader.BadTheta, match=why):
            reader.Thetas([tmp_path / "theta"])


def test_it_takes_thetas_on_the_command_line(factored: Factored) -> None:
    printed = subprocess.run(
        [
            *(sys.executable, str(SCRIPT), "--until-end", "--bootstrap", factored.bootstrap),
            *("--topic", factored.mappings_topic, "--theta", str(factored.file)),
            *("--meta-inits-topic", factored.meta_inits_topic),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert all(f"{stream}: " in printed for stream in factored.expected)
    assert "fallback: worse" in printed


class _Record:
    def __init__(self, key: bytes, value: bytes) -> None:
        self.key, self.value = key, value
        self.topic, self.partition, self.offset = "mappings", 0, 0


def _republished(mapping: Any) -> bytes:
    from safetensors.numpy import save

    return save(mapping.tensors, mapping.facts)
