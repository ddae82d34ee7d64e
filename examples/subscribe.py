"""Read adapted mappings without adaptd: kafka-python, safetensors and numpy are all it takes.

    python examples/subscribe.py --bootstrap 127.0.0.1:9092 --topic adapted-mappings

It follows the compacted topic from its beginning, verifies each mapping, keeps each stream's
newest, and applies it. The topic may hold records of any encoding and dtype; each record says its
own. A mapping in the encoding `lowrank` is only what was added to θ. The reader finds that θ by its
hash, among the files given (`--theta FILE`, as often as you like) or in the topic of θs
(`--meta-inits-topic`). If your mappings are all `full`, you need no θ, and can leave out everything
between the two dashed lines below. Copy what you need.

R = rows (inputs), S = support pairs, D = source dim, H = hidden units, E = target dim, G = H + 1
"""

import argparse
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kafka import KafkaConsumer, TopicPartition
from numpy.typing import NDArray
from safetensors.numpy import load

Floats = NDArray[np.float32]
Tensors = dict[str, Floats]
FORMATS = ("adapted-mapping/1", "adapted-mapping/2")


class BadMapping(ValueError):
    """The record is not a mapping that can be applied, its tensors do not match their hash, or its
    θ is not known."""


@dataclass(frozen=True)
class Mapping:
    """One stream's mapping f(x) = σo(w2·σ(w1·x + b1) + b2), and the facts that came with it."""

    tensors: Tensors
    facts: dict[str, str]

    @property
    def order(self) -> tuple[int, int]:
        """Sort key: of two mappings of a stream that come from one partition, the one with the
        larger order counts. Orders of different partitions cannot be compared."""
        return int(self.facts["epoch"]), int(self.facts["version"])

    @property
    def place(self) -> tuple[int, int]:
        """Sort key: of two mappings of a stream that come from different partitions, the one with
        the larger place counts: the one that reflects the newer event."""
        return int(self.facts["event_time_ms"]), int(self.facts["partition"])

    def __call__(self, x_RD: Floats) -> Floats:
        """Maps source features (R, D) to target features (R, E)."""
        t = self.tensors
        sigma, sigma_out = (ACTIVATIONS[self.facts[f]] for f in ("activation", "output_activation"))
        return sigma_out(sigma(x_RD @ t["w1"].T + t["b1"]) @ t["w2"].T + t["b2"])


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


# ---- only `lowrank` mappings need what follows


class Thetas:
    """θs by content hash, from files and, if a topic is given, from the topic of θs."""

    def __init__(self, files: Sequence[Path] = (), bootstrap: str = "", topic: str = "") -> None:
        """Reads the files. Raises BadTheta for one that is not a θ."""
        self._known = dict(parse_theta(path.read_bytes()) for path in files)
        self._topic = TopicPartition(topic, 0)
        self._bootstrap = bootstrap
        self._consumer: Any = None

    def get(self, content_hash: str) -> Tensors | None:
        """Returns w1, b1, w2, b2 of a θ, or None. Reads what is new in the topic if need be."""
        if content_hash not in self._known and self._topic.topic:
            self._read_on()
        return self._known.get(content_hash)

    def _read_on(self) -> None:
        if self._consumer is None:
            self._consumer = KafkaConsumer(
                bootstrap_servers=self._bootstrap,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
            )
        if not self._consumer.partitions_for_topic(self._topic.topic):
            return
        if not self._consumer.assignment():
            self._consumer.assign([self._topic])
        end = self._consumer.end_offsets([self._topic])[self._topic]
        while self._consumer.position(self._topic) < end:
            for record in self._consumer.poll(timeout_ms=500).get(self._topic, []):
                self._take(record)

    def _take(self, record: Any) -> None:
        if record.value is None or (record.key or b"@").startswith(b"@"):
            return  # deleted; or which one is active
        try:
            content_hash, theta = parse_theta(record.value)
        except BadTheta as e:
            print(f"passed over θ {record.key!r}: {e}")
        else:
            self._known[content_hash] = theta

    def close(self) -> None:
        """Closes the connection to the topic, if there is one."""
        if self._consumer is not None:
            self._consumer.close()


class BadTheta(ValueError):
    """The file is not a θ, or is damaged."""


def parse_theta(value: bytes) -> tuple[str, Tensors]:
    """Returns a θ's content hash, and its w1, b1, w2, b2 in float32. Raises BadTheta."""
    try:
        tensors = {name: t.astype(np.float32, copy=False) for name, t in load(value).items()}
        metadata = _metadata(value)
        digest = hashlib.sha256(metadata["adaptd.facts"].encode())
        expected = metadata["adaptd.content_hash"]
        mapping = {name: tensors[f"mapping.{name}"] for name in ("w1", "b1", "w2", "b2")}
    except Exception as e:  # whatever the parser stumbles over, it is no θ
        raise BadTheta(f"not a θ: {e!r}") from e
    for name in sorted(tensors):
        digest.update(f"\n{name} <f4 {tensors[name].shape}\n".encode() + tensors[name].tobytes())
    if digest.hexdigest() != expected:
        raise BadTheta("damaged: its tensors do not match its hash")
    return expected, mapping


def add(theta: Tensors, factors: Tensors) -> Tensors:
    """Returns θ plus what was added to it. Factors that change nothing may be missing. Raises
    ValueError for factors that do not fit θ."""
    _check_factors(theta, factors)
    f, w_EG = factors, np.column_stack([theta["w2"], theta["b2"]])
    w1_HD = theta["w1"] + f["a"].T @ f["x"] if "a" in f else theta["w1"]
    b1_H = theta["b1"] + f.get("beta", np.float32(0))
    change_EG = w_EG @ f["n"] if "n" in f else np.zeros_like(w_EG)
    if "v" in f:
        change_EG += f["y"].T @ f["v"]
    w_EG = w_EG + change_EG
    return {"w1": w1_HD, "b1": b1_H, "w2": w_EG[:, :-1], "b2": w_EG[:, -1]}


def _check_factors(theta: Tensors, factors: Tensors) -> None:
    (hidden, source), target = theta["w1"].shape, len(theta["b2"])
    pairs = len(factors["x"]) if "x" in factors else len(factors.get("y", ()))
    fitting = {
        "a": (pairs, hidden),
        "x": (pairs, source),
        "beta": (hidden,),
        "n": (hidden + 1, hidden + 1),
        "v": (pairs, hidden + 1),
        "y": (pairs, target),
    }
    for name, tensor in factors.items():
        if tensor.shape != fitting.get(name):
            raise ValueError(f"{name} has shape {tensor.shape}, its θ asks for {fitting.get(name)}")


# ---- up to here


def parse(value: bytes, thetas: Thetas | None = None) -> Mapping:
    """Returns the mapping that a record's value holds. Raises BadMapping."""
    try:
        return _parse(value, thetas)
    except BadMapping:
        raise
    except Exception as e:  # whatever the parser stumbles over, it is no mapping
        raise BadMapping(f"not an adapted mapping: {e!r}") from e


def _parse(value: bytes, thetas: Thetas | None) -> Mapping:
    stored, facts = load(value), _metadata(value)
    if facts["kind"] != "mlp" or facts["format"] not in FORMATS:
        raise BadMapping(f"{facts['kind']!r} in format {facts['format']!r} is not known here")
    if content_hash(stored, facts) != facts["content_hash"]:
        raise BadMapping(f"the tensors of {facts.get('stream')!r} do not match their hash")
    tensors = in_single(stored)
    if facts.get("encoding", "full") == "lowrank":
        wanted = facts["meta_init_hash"]
        theta = thetas.get(wanted) if thetas else None
        if theta is None:
            raise BadMapping(f"{facts['stream']!r} cannot be read without θ {wanted}")
        tensors = add(theta, tensors)
    mapping = Mapping(tensors, facts)
    _check(mapping)
    return mapping


def _check(mapping: Mapping) -> None:
    """Raises an exception unless the mapping can be ordered and applied."""
    t, facts = mapping.tensors, mapping.facts
    hidden, source, target = (int(facts[f"{n}_dim"]) for n in ("hidden", "source", "target"))
    shapes = {"w1": (hidden, source), "b1": (hidden,), "w2": (target, hidden), "b2": (target,)}
    if {name: tensor.shape for name, tensor in t.items()} != shapes:
        raise BadMapping(f"the tensors do not have the shapes {shapes}")
    if unknown := {facts["activation"], facts["output_activation"]} - set(ACTIVATIONS):
        raise BadMapping(f"unknown activations {unknown}")
    if not all(0 <= number < 2**63 for number in (*mapping.order, *mapping.place)):
        raise BadMapping(f"(epoch, version) is {mapping.order}, (time, partition) {mapping.place}")


def _metadata(value: bytes) -> dict[str, str]:
    header_bytes = int.from_bytes(value[:8], "little")
    metadata: dict[str, str] = json.loads(value[8 : 8 + header_bytes])["__metadata__"]
    return metadata


def in_single(stored: dict[str, NDArray[Any]]) -> Tensors:
    """Returns all tensors in float32, float16 factors multiplied by their numbers in `scales`."""
    names = sorted(name for name in stored if name != "scales")
    scales = stored.get("scales", np.ones(len(names), np.float32))
    return {n: stored[n].astype(np.float32) * s for n, s in zip(names, scales, strict=True)}


def content_hash(tensors: dict[str, NDArray[Any]], facts: dict[str, str]) -> str:
    """Returns the SHA-256 of each tensor's name, shape and bytes, in the order of names.

    For any form but `full` in float32 the encoding, the dtype and the hash of θ come first.
    """
    digest = hashlib.sha256()
    if facts["format"] != "adapted-mapping/1":
        encoding, dtype = facts["encoding"], facts["dtype"]
        theta = facts["meta_init_hash"] if encoding == "lowrank" else ""
        digest.update(f"adapted-mapping/2;{encoding};{dtype};{theta};".encode())
    for name in sorted(tensors):
        shape = ",".join(map(str, tensors[name].shape))
        digest.update(f"{name}:{shape};".encode() + tensors[name].tobytes())
    return digest.hexdigest()


def follow(
    bootstrap: str,
    topic: str,
    *,
    thetas: Thetas | None = None,
    until_end: bool = False,
    passed_over: Counter[str] | None = None,
) -> Iterator[tuple[str, Mapping | None]]:
    """Yields (stream, mapping) each time a stream's newest mapping changes, from the beginning of
    the topic on; the mapping is None when the stream was erased.

    It passes over records that are no mappings, and over mappings that are older than one already
    seen, that do not verify, or whose θ is not known: the newest before them stays. `passed_over`
    counts them. `until_end` stops at what was there at the start.
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
        places: dict[str, tuple[int, int]] = {}
        while not until_end or any(consumer.position(tp) < ends[tp] for tp in partitions):
            for records in consumer.poll(timeout_ms=500).values():
                for record in records:
                    yield from _newer(record, orders, thetas, passed_over, places)
    finally:
        consumer.close()


def _newer(
    record: Any,
    orders: dict[str, tuple[int, int]],
    thetas: Thetas | None = None,
    passed_over: Counter[str] | None = None,
    places: dict[str, tuple[int, int]] | None = None,
) -> Iterator[tuple[str, Mapping | None]]:
    counts: Counter[str] = Counter() if passed_over is None else passed_over
    places = {} if places is None else places
    try:
        stream = record.key.decode()
        mapping = None if record.value is None else parse(record.value, thetas)
    except (BadMapping, AttributeError, UnicodeDecodeError) as e:  # no key; a key that is no text
        counts["bad"] += 1
        print(f"passed over {record.topic}/{record.partition}/{record.offset}: {e}")
        return
    if mapping is None:
        orders.pop(stream, None)
        places.pop(stream, None)
        yield stream, None
        return
    place = places.get(stream, mapping.place)
    # a stream is in two partitions when partitions were added, or when producers disagree
    moved = mapping.place[1] != place[1]
    if mapping.place > place if moved else mapping.order >= orders.get(stream, (-1, -1)):
        orders[stream], places[stream] = mapping.order, mapping.place
        yield stream, mapping
    else:
        counts["older"] += 1


def main() -> None:
    """Prints a line for every mapping, applied to an input of ones."""
    parser = argparse.ArgumentParser(description="Follow adapted mappings.")
    parser.add_argument("--bootstrap", default="127.0.0.1:9092", help="Kafka's address")
    parser.add_argument("--topic", default="adapted-mappings")
    parser.add_argument("--until-end", action="store_true", help="stop at the topic's end")
    parser.add_argument("--theta", type=Path, action="append", default=[], help="a θ's file")
    parser.add_argument("--meta-inits-topic", default="meta-inits", help="the topic of θs")
    o = parser.parse_args()
    try:
        thetas = Thetas(o.theta, o.bootstrap, o.meta_inits_topic)
    except (OSError, BadTheta) as e:
        raise SystemExit(f"--theta: {e}") from e
    passed_over: Counter[str] = Counter()
    followed = follow(
        o.bootstrap, o.topic, thetas=thetas, until_end=o.until_end, passed_over=passed_over
    )
    for stream, mapping in followed:
        print(f"{stream}: {'erased' if mapping is None else described(mapping)}")
    print(f"passed over: {passed_over['bad']} bad, {passed_over['older']} older")


def described(mapping: Mapping) -> str:
    """Returns a mapping's main facts, and what it makes of an input of ones, in one line."""
    facts = mapping.facts
    x_1D = np.ones((1, mapping.tensors["w1"].shape[1]), np.float32)
    norm = float(np.linalg.norm(mapping(x_1D)))
    before, after = (_number(facts.get(f"query_loss_{when}", "")) for when in ("before", "after"))
    return (
        f"{facts.get('outcome', '?')}, version {facts['version']}, "
        f"{facts.get('support_pairs', '?')} pairs, loss {before} -> {after}, |f(1)| = {norm:.3f}"
    )


def _number(text: str) -> str:
    try:
        return f"{float(text):.3f}"
    except ValueError:
        return "?"


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
