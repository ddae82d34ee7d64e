"""What the tests of changing θs share: θs, events that they fit, an operator, eyes on the result.

D = source dim, E = target dim
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import redis
from typer.testing import CliRunner

from daemon.adapters.kafka_python.meta_inits import KafkaPythonMetaInits
from daemon.commands.meta_init import app
from daemon.wire import meta_init as wire
from daemon.wire.catalogue import Active
from model.encoders.build import fresh_encoder_spec
from model.mappings.numpy_mlp import apply_numpy
from model.theta.meta_init import MetaInit, fresh_meta_init
from model.theta.meta_init_file import meta_init_to_bytes, save_meta_init
from model.theta.part import PartSpec
from tests.faults.lab import (
    HIDDEN_DIM,
    LEARNED,
    SOURCE_DIM,
    TARGET_DIM,
    Installation,
    Pairs,
    Worker,
    eventually,
    kept_by_reader,
)

STREAMS = [f"stream-{i}" for i in range(12)]


BASE = fresh_meta_init(SOURCE_DIM, TARGET_DIM, HIDDEN_DIM, seed=1)


def theta_of(name: str, seed: int = 1) -> MetaInit:
    """A θ that is a little off the base, and passes for a trained one."""
    rng = np.random.default_rng(seed)
    mapping = {
        n: t + 0.02 * rng.standard_normal(t.shape).astype(np.float32)
        for n, t in BASE.mapping.items()
    }
    facts = {"training": "stands for a trained θ"}
    return replace(BASE, version=name, mapping=mapping, facts=facts)


def encoding(name: str, seed: int = 1) -> MetaInit:
    """A θ whose features are another projection of the vectors."""
    projection = fresh_encoder_spec("projection/1", SOURCE_DIM, seed, input_dim=SOURCE_DIM)
    return replace(theta_of(name, seed), source_encoder=projection)


def events(rounds: int, seed: int = 5) -> list[Pairs]:
    """Each stream is the base with an offset of its own: θs near it adapt better than ridge."""
    rng = np.random.default_rng(seed)
    offsets = {
        s: 0.3 * np.random.default_rng(i).standard_normal(TARGET_DIM) for i, s in enumerate(STREAMS)
    }
    made = []
    for number in range(rounds * len(STREAMS)):
        stream = STREAMS[number % len(STREAMS)]
        x_1D = rng.standard_normal((1, SOURCE_DIM)).astype(np.float32)
        y_1E = apply_numpy(BASE.mapping, x_1D, "gelu") + offsets[stream]
        y_E = y_1E[0].astype(np.float32)
        made.append(Pairs(stream, (x_1D[0],), (y_E,), 1_700_000_000_000 + 7 * number))
    return made


class Operator:
    """Uses the command line on an installation."""

    def __init__(self, lab: Installation) -> None:
        self._lab = lab
        self._folder = lab.folder

    def file(self, theta: MetaInit) -> Path:
        path = self._folder / f"{theta.version}.safetensors"
        save_meta_init(theta, path)
        return path

    def says(self, *arguments: str | Path) -> str:
        told = {k: v for k, v in self._lab.environment.items() if k.startswith("ADAPTD_")}
        result = CliRunner().invoke(app, [str(a) for a in arguments], env=told)
        if result.exception is not None:
            raise result.exception
        return result.output

    def serve(self, theta: MetaInit) -> None:
        assert f"{theta.version}: active" in self.says("publish", self.file(theta), "--activate")

    def write(self, key: str, value: bytes | None) -> None:
        """Past all checks."""
        topic = KafkaPythonMetaInits(self._lab.settings, "test")
        topic.write(key, value)
        topic.close()


def serves(worker: Worker, version: str) -> bool:
    status = worker.status()
    return bool(status["meta_init"] == version and not status["streams_to_renew"])


def wait_until_served(lab: Installation, worker: Worker, version: str) -> float:
    """Until every stream's newest mapping is of this θ."""
    start = time.monotonic()
    eventually(lambda: serves(worker, version), 40, worker.tail)
    lab.wait_until_done()
    eventually(lambda: set(named(lab).values()) == {version}, 20, lambda: str(named(lab)))
    return time.monotonic() - start


def wait_until_it_begins(worker: Worker, version: str) -> None:
    """Until this θ is served; whether its mappings are published is another matter."""
    give_up_at = time.monotonic() + 20
    while worker.status()["meta_init"] != version:
        assert time.monotonic() < give_up_at, worker.tail()
        time.sleep(0.01)


def named(lab: Installation) -> dict[str, str]:
    """Which θ each stream's newest mapping names."""
    newest = sorted(lab.mappings(), key=lambda facts: (facts.epoch, facts.version))
    return {facts.stream: facts.meta_init for facts in newest}


def metric(worker: Worker, line: str) -> float:
    """The value behind a name with its labels."""
    for found in worker.get("/metrics")[1].splitlines():
        if found.startswith(line + " "):
            return float(found.split()[-1])
    raise AssertionError(line)


def ends_as(lab: Installation, theta: MetaInit, may_go_back: bool = False) -> None:
    """The newest mappings are those of θ on every window, to the bit. With `may_go_back` windows
    were made anew meanwhile, from the first event on."""
    truth = lab.truth.mappings(Operator(lab).file(theta))
    assert sum(shown.outcome == "adapted" for shown in truth.values()) > len(STREAMS) // 2
    kept = kept_by_reader(lab.mappings(), may_go_back)
    assert kept.keys() == truth.keys()
    for stream, wanted in truth.items():
        assert kept[stream].outcome == wanted.outcome, stream
        assert kept[stream].content_hash == wanted.content_hash, stream
        if wanted.outcome in LEARNED:  # θ itself is published once
            assert kept[stream].version == wanted.version, stream
    hashes = {facts.meta_init_hash for facts in lab.mappings() if facts.meta_init == theta.version}
    assert hashes == {theta.content_hash}


def features(lab: Installation, encoder: str) -> dict[str, list[tuple[bytes, dict[bytes, bytes]]]]:
    """The windows of one encoder, as they lie in Redis."""
    found = {}
    with redis.Redis.from_url(lab.redis_url) as client:
        for key in client.scan_iter(match=f"{lab.name}:{lab.name}:*:{encoder}:*:w:*", count=1000):
            found[key.decode().partition(":w:")[2]] = client.xrange(key)
    return found


def contents(lab: Installation) -> dict[str, tuple[int, str, str]]:
    newest = sorted(lab.mappings(), key=lambda facts: (facts.epoch, facts.version))
    return {f.stream: (f.version, f.meta_init, f.content_hash) for f in newest}


def unknown_part(theta: MetaInit) -> MetaInit:
    return replace(theta, learner=PartSpec({"kind": "telepathy"}, theta.learner.tensors))


def damaged(theta: MetaInit) -> bytes:
    data = bytearray(meta_init_to_bytes(theta))
    data[-3] ^= 4
    return bytes(data)


def pointing_at(theta: MetaInit, content_hash: str | None = None) -> bytes:
    pointer = Active(theta.version, content_hash or theta.content_hash, int(time.time()), "test")
    return wire.encode_active(pointer)


def bad_ones() -> dict[str, list[tuple[str, bytes]]]:
    """What to write past all checks for each reason to refuse."""
    wide, odd = (
        replace(fresh_meta_init(SOURCE_DIM + 1, TARGET_DIM, HIDDEN_DIM), version="wide"),
        unknown_part(theta_of("odd")),
    )
    broken, gone, other = theta_of("broken"), theta_of("gone"), theta_of("other", 7)
    return {
        "other_dimensions": [("wide", meta_init_to_bytes(wide)), ("@active", pointing_at(wide))],
        "unusable": [("odd", meta_init_to_bytes(odd)), ("@active", pointing_at(odd))],
        "unreadable": [("broken", damaged(broken)), ("@active", pointing_at(broken))],
        "missing": [("@active", pointing_at(gone))],
        "wrong_hash": [
            ("other", meta_init_to_bytes(other)),
            ("@active", pointing_at(other, "0" * 64)),
        ],
    }


def refused(worker: Worker) -> str | None:
    refusal = worker.status()["meta_init_refused"]
    return refusal and str(refusal["reason"])
