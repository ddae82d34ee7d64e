"""Read adapted mappings without adaptd: kafka-python, safetensors and numpy are all it takes.

    python examples/subscribe.py --bootstrap 127.0.0.1:9092 --topic adapted-mappings

Follows the compacted topic from its beginning, verifies each mapping, keeps each stream's newest,
and applies it. Copy what you need.

N = inputs, D = source dim, H = hidden, E = target dim
"""

import argparse
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from kafka import KafkaConsumer, TopicPartition
from numpy.typing import NDArray
from safetensors.numpy import load

Floats = NDArray[np.float32]


class BadMapping(ValueError):
    """The record is no mapping, or its tensors are not those that were published."""


@dataclass(frozen=True)
class Mapping:
    """One stream's mapping f(x) = σo(w2·σ(w1·x + b1) + b2), and the facts that came with it."""

    tensors: dict[str, Floats]
    facts: dict[str, str]

    @property
    def order(self) -> tuple[int, int]:
        """Of two mappings of a stream, the one with the larger order counts."""
        return int(self.facts["epoch"]), int(self.facts["version"])

    def __call__(self, x_ND: Floats) -> Floats:
        """Map source features (N, D) to target features (N, E)."""
        t = self.tensors
        sigma, sigma_out = (ACTIVATIONS[self.facts[f]] for f in ("activation", "output_activation"))
        return sigma_out(sigma(x_ND @ t["w1"].T + t["b1"]) @ t["w2"].T + t["b2"])


def _gelu(z: Floats) -> Floats:
    erf: Floats = np.vectorize(math.erf, otypes=[np.float32])(z / math.sqrt(2))
    return 0.5 * z * (1 + erf)


def _sigmoid(z: Floats) -> Floats:
    result: Floats = 0.5 * (1 + np.tanh(0.5 * z))
    return result


def _relu(z: Floats) -> Floats:
    result: Floats = np.maximum(z, 0)
    return result


def _none(z: Floats) -> Floats:
    return z


ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "none": _none,
    "relu": _relu,
    "gelu": _gelu,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
}


def parse(value: bytes) -> Mapping:
    """Raises BadMapping."""
    try:
        tensors = load(value)
        header_bytes = int.from_bytes(value[:8], "little")
        facts = json.loads(value[8 : 8 + header_bytes])["__metadata__"]
        expected = facts["content_hash"]
    except Exception as e:  # whatever the parser stumbles over, it is no mapping
        raise BadMapping(f"not an adapted mapping: {e}") from e
    if content_hash(tensors) != expected:
        raise BadMapping(f"the tensors of {facts.get('stream')!r} do not match their hash")
    return Mapping(tensors, facts)


def content_hash(tensors: dict[str, Floats]) -> str:
    """SHA-256 over each tensor's name, shape and bytes, in order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        shape = ",".join(map(str, tensors[name].shape))
        digest.update(f"{name}:{shape};".encode() + tensors[name].tobytes())
    return digest.hexdigest()


def follow(
    bootstrap: str, topic: str, *, until_end: bool = False
) -> Iterator[tuple[str, Mapping | None]]:
    """Each change of a stream's newest mapping, from the beginning of the topic on; None when the
    stream was erased. A mapping older than one already seen, or one that does not verify, is
    passed over. `until_end` stops at what was there at the start.
    """
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        if not partitions:
            raise SystemExit(f"topic {topic!r} does not exist at {bootstrap}")
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        orders: dict[str, tuple[int, int]] = {}
        while not until_end or any(consumer.position(tp) < ends[tp] for tp in partitions):
            for records in consumer.poll(timeout_ms=500).values():
                for record in records:
                    yield from _newer(record, orders)
    finally:
        consumer.close()


def _newer(record: Any, orders: dict[str, tuple[int, int]]) -> Iterator[tuple[str, Mapping | None]]:
    stream = record.key.decode()
    if record.value is None:
        orders.pop(stream, None)
        yield stream, None
        return
    try:
        mapping = parse(record.value)
    except BadMapping as e:
        print(f"passed over {record.topic}/{record.partition}/{record.offset}: {e}")
        return
    if mapping.order >= orders.get(stream, (-1, -1)):
        orders[stream] = mapping.order
        yield stream, mapping


def main() -> None:
    """Print a line for every mapping, applied to an input of ones."""
    parser = argparse.ArgumentParser(description="Follow adapted mappings.")
    parser.add_argument("--bootstrap", default="127.0.0.1:9092", help="Kafka's address")
    parser.add_argument("--topic", default="adapted-mappings")
    parser.add_argument("--until-end", action="store_true", help="stop at the topic's end")
    options = parser.parse_args()
    for stream, mapping in follow(options.bootstrap, options.topic, until_end=options.until_end):
        if mapping is None:
            print(f"{stream}: erased")
            continue
        facts = mapping.facts
        x_1D = np.ones((1, int(facts["source_dim"])), np.float32)
        norm = float(np.linalg.norm(mapping(x_1D)))
        print(
            f"{stream}: {facts['outcome']}, version {facts['version']}, "
            f"{facts['support_pairs']} pairs, loss {float(facts['query_loss_before']):.3f} -> "
            f"{float(facts['query_loss_after']):.3f}, |f(1)| = {norm:.3f}"
        )


if __name__ == "__main__":
    main()
