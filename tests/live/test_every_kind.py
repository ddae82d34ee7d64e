"""Every generator, learner, loss and modality in the daemon: real Kafka, real Redis, real wiring.

A worker's parts are made from settings as `adaptd run` makes them, with a θ of each kind as
ADAPTD_META_INIT; it turns in this process until every stream has its mapping.
"""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from daemon.adapters.kafka_python.outbox import KafkaPythonOutbox
from daemon.adapters.kafka_python.reader import read_topic
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.config import Settings
from daemon.local.services import Services
from daemon.turn.loop import Loop
from daemon.wire import adapted_mapping, paired_event
from daemon.wire.adapted_mapping import AdaptedMapping
from daemon.wire.paired_event import Audio, Content, Image, PairedEvent, Text, Video, WirePair
from daemon.wire.record import Message
from daemon.wire.topics import specs
from daemon.worker.wiring import load_engine, loop_policy, message_builder, open_ports
from model.encoders import audio, image, text, vector, video
from model.encoders.build import fresh_encoder_spec
from model.inner.generators import KINDS as GENERATORS
from model.inner.learners import KINDS as LEARNERS
from model.losses import Loss
from model.meta.fresh import fresh_theta_of_kind
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import save_meta_init
from model.theta.part import PartSpec

STREAMS, EVENTS = 2, 9
DIMS = (16, 16, 8)
MOST_TURNS = 400

THETAS = {
    **{f"learner {kind}": fresh_theta_of_kind(DIMS, learner=kind) for kind in LEARNERS},
    **{f"generator {kind}": fresh_theta_of_kind(DIMS, generator=kind) for kind in GENERATORS},
    "attention, then r2d2": fresh_theta_of_kind(DIMS, generator="attention", learner="r2d2"),
    "infonce": fresh_theta_of_kind(DIMS, loss=Loss("infonce")),
    "hinge": fresh_theta_of_kind(DIMS, loss=Loss("hinge")),
    "cosine": fresh_theta_of_kind(DIMS, loss=Loss("cosine")),
    "tanh on the output": fresh_theta_of_kind(DIMS, output_activation="tanh"),
}


def vector_of(rng: np.random.Generator) -> Content:
    return paired_event.vector(rng.standard_normal(DIMS[0]).astype(np.float32))


def picture_of(rng: np.random.Generator) -> Content:
    return Image(_png(rng))


def text_of(rng: np.random.Generator) -> Content:
    words = ["grün", "лиса", "狐狸", "fox", "🦊", "jump", "ثعلب"]
    return Text(" ".join(rng.choice(words, 3)))


def audio_of(rng: np.random.Generator) -> Content:
    t = np.arange(4_000) / 16_000
    tone = 0.5 * np.sin(2 * math.pi * rng.uniform(200, 2_000) * t)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((tone * 32_767).astype("<i2").tobytes())
    return Audio(buffer.getvalue())


def video_of(rng: np.random.Generator) -> Content:
    return Video([_png(rng) for _ in range(3)], fps=8.0)


def _png(rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


MODALITIES: dict[str, tuple[PartSpec, Callable[[np.random.Generator], Content]]] = {
    "image": (fresh_encoder_spec(image.KIND, DIMS[0], 0, side=8, blocks=((4, True),)), picture_of),
    "text": (fresh_encoder_spec(text.KIND, DIMS[0], 0, width=8, hidden=8, buckets=64), text_of),
    "audio": (fresh_encoder_spec(audio.KIND, DIMS[0], 0, channels=(4, 4)), audio_of),
    "video": (fresh_encoder_spec(video.KIND, DIMS[0], 0, frame_dim=8, hidden=8), video_of),
    "vector": (fresh_encoder_spec(vector.KIND, DIMS[0], 0, input_dim=16), vector_of),
}


def worker_settings(services: Services, prefix: str, redis: str, theta: Path) -> Settings:
    return Settings(
        kafka_bootstrap_servers=services.kafka_bootstrap_servers,
        kafka_group_id=prefix,
        kafka_events_topic=f"{prefix}-events",
        kafka_mappings_topic=f"{prefix}-mappings",
        kafka_dead_letters_topic=f"{prefix}-dlq",
        kafka_meta_inits_topic=f"{prefix}-meta-inits",
        redis_url=services.redis_url,
        redis_prefix=redis,
        topic_partitions=1,
        support_size=6,
        query_size=2,
        publish_interval_ms=0,
        max_wait_ms=0,
        device="cpu",
        meta_init=theta,
    )


def produce(settings: Settings, source: Any, target: Any) -> None:
    topics = KafkaTopics(settings)
    for spec in specs(settings, 0):
        topics.create(spec)
    topics.close()
    rng = np.random.default_rng(5)
    messages = [
        Message(
            settings.kafka_events_topic,
            f"stream-{n % STREAMS}".encode(),
            paired_event.encode_event(PairedEvent([WirePair(source(rng), target(rng))])),
            (),
        )
        for n in range(STREAMS * EVENTS)
    ]
    outbox = KafkaPythonOutbox(settings, "producer")
    outbox.send(messages)
    outbox.close()


def work_until_published(settings: Settings) -> dict[str, AdaptedMapping]:
    """The newest mapping of every stream, once each reflects its last event."""
    engine = load_engine(settings)
    with open_ports(settings, engine, "worker") as ports:
        loop = Loop(
            loop_policy(settings, engine), ports, message_builder(settings, engine), "worker"
        )
        accepted = refused = 0
        for _ in range(MOST_TURNS):
            report = loop.turn()
            accepted += report.events
            refused += report.dead_letters.total()
            if accepted + refused == STREAMS * EVENTS and report.holdings.changed == 0:
                break
    assert (accepted, refused) == (STREAMS * EVENTS, 0)
    mappings = {}
    for _, record in read_topic(settings, settings.kafka_mappings_topic):
        assert record.value is not None
        mapping = adapted_mapping.decode_mapping(record.value)
        mappings[mapping.facts.stream] = mapping
    return mappings


def run_on(
    theta: MetaInit, settings: Settings, path: Path, source: Any, target: Any = vector_of
) -> dict[str, AdaptedMapping]:
    save_meta_init(theta, path)
    produce(settings, source, target)
    found = work_until_published(settings)
    assert sorted(found) == [f"stream-{n}" for n in range(STREAMS)]
    for mapping in found.values():
        facts = mapping.facts
        assert facts.outcome.value in ("adapted", "ridge", "worse")
        assert (facts.generator, facts.learner) == (theta.generator.kind, theta.learner.kind)
        assert facts.meta_init_hash == theta.content_hash
        assert (facts.support_pairs, facts.query_pairs) == (8, 2)
        assert all(np.isfinite(tensor).all() for tensor in mapping.tensors.values())
    return found


@pytest.mark.parametrize("name", THETAS)
def test_every_generator_learner_and_loss_publishes_plain_mappings(
    name: str,
    services: Services,
    topic_names: Callable[[str], str],
    redis_namespace: str,
    tmp_path: Path,
) -> None:
    prefix = topic_names("x")
    path = tmp_path / "theta.safetensors"
    settings = worker_settings(services, prefix, redis_namespace, path)
    found = run_on(THETAS[name], settings, path, vector_of, _target)
    for mapping in found.values():
        assert set(mapping.tensors) == {"w1", "b1", "w2", "b2"}
        assert mapping.tensors["w1"].shape[1] == DIMS[0]
        assert mapping.tensors["w2"].shape[0] == DIMS[2]


def _target(rng: np.random.Generator) -> Content:
    return paired_event.vector(np.tanh(rng.standard_normal(DIMS[2])).astype(np.float32))


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_modality_is_a_source(
    modality: Any,
    services: Services,
    topic_names: Callable[[str], str],
    redis_namespace: str,
    tmp_path: Path,
) -> None:
    encoder, source = MODALITIES[modality]
    theta = replace(fresh_theta_of_kind(DIMS), source_modality=modality, source_encoder=encoder)
    path = tmp_path / "theta.safetensors"
    settings = worker_settings(services, topic_names("x"), redis_namespace, path)
    for mapping in run_on(theta, settings, path, source, _target).values():
        assert mapping.facts.source_modality == modality
        assert mapping.facts.encoder == theta.encoder_version


def test_texts_of_pictures(
    services: Services,
    topic_names: Callable[[str], str],
    redis_namespace: str,
    tmp_path: Path,
) -> None:
    theta = replace(
        fresh_theta_of_kind((DIMS[0], DIMS[1], DIMS[0])),
        source_modality="image",
        source_encoder=MODALITIES["image"][0],
        target_modality="text",
        target_encoder=MODALITIES["text"][0],
    )
    path = tmp_path / "theta.safetensors"
    settings = worker_settings(services, topic_names("x"), redis_namespace, path)
    for mapping in run_on(theta, settings, path, picture_of, text_of).values():
        assert (mapping.facts.source_modality, mapping.facts.target_modality) == ("image", "text")
