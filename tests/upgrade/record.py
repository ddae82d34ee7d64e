"""Records what this version leaves behind: `python -m tests.upgrade.record`.

Run it at each release, and commit the file: the next version must go on from it.

Three streams, two partitions. One worker follows the topic of θs and publishes whole mappings.
Then another publishes what was added to θ, in float16 (without ridge, which is always whole). It is
stopped while its last events are owed a mapping: Redis has their pairs, and their offsets are not
committed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from daemon.local.services import find_services
from model.theta.meta_init import MetaInit, fresh_meta_init
from model.theta.meta_init_file import save_meta_init
from tests.faults.lab import (
    WINDOW,
    Installation,
    Pairs,
    Raw,
    Spring,
    eventually,
)
from tests.upgrade.state import recorded, topic_name, write_state

FOLDER = Path(__file__).parent
SOURCE_DIM, HIDDEN_DIM, TARGET_DIM = 64, 32, 64
"""Such that what is added to θ is smaller than the whole mapping."""
STREAMS = [f"s{number}" for number in range(3)]
MALFORMED = (
    Raw(b"s0", b"no event"),
    Raw(b"s1", None),
    Raw(None, b"without a stream", (("content-type", b"application/json"),)),
)


def spring(seed: int) -> Spring:
    """Returns a source of events of the recorded dimensions."""
    return Spring(seed, (SOURCE_DIM, TARGET_DIM))


def recorded_theta() -> MetaInit:
    """Returns a θ that counts as meta-trained: only that gives mappings as what is added to θ."""
    fresh = fresh_meta_init(SOURCE_DIM, TARGET_DIM, HIDDEN_DIM, steps=2)
    return replace(fresh, facts={})


def rounds(events: Spring, count: int) -> list[Pairs]:
    """Some events of every stream."""
    return [events.event(stream) for _ in range(count) for stream in STREAMS]


def run_adaptd(lab: Installation, *words: str) -> None:
    """Runs a command of adaptd in the installation."""
    command = [sys.executable, "-m", "daemon", *words]
    subprocess.run(command, env=lab.environment, check=True, capture_output=True)


def leave_behind(lab: Installation) -> None:
    """Has two workers, one after the other, do all that leaves something behind."""
    events = spring(17)
    lab.make_topic_of_one(topic_name(lab, "meta_inits"))
    run_adaptd(lab, "meta-init", "publish", str(lab.theta), "--activate")
    lab.send([*rounds(events, WINDOW), *MALFORMED])
    with lab.worker() as worker:
        lab.wait_until_done()
        worker.stop()
    committed = lab.committed()
    with lab.worker(
        mapping_encoding="lowrank",
        mapping_dtype="float16",
        gate_ridge=False,
        publish_interval_ms=5_000,
    ) as worker:
        lab.send(rounds(events, 1))
        eventually(lambda: all(lab.committed().get(p, 0) > at for p, at in committed.items()))
        committed = lab.committed()
        lab.send(rounds(events, 2))
        eventually(lambda: worker.status()["totals"]["events"] >= 3 * len(STREAMS))
        worker.stop()
    assert lab.committed() == committed != lab.ends(), "the last events are owed nothing"


def main() -> None:
    """Writes the file, and prints its name and size."""
    with find_services() as used, tempfile.TemporaryDirectory() as folder:
        theta = Path(folder) / "theta.safetensors"
        save_meta_init(recorded_theta(), theta)
        addresses = used.kafka_bootstrap_servers, used.redis_url
        lab = Installation(*addresses, theta, Path(folder), partitions=2)
        with closing(lab):
            leave_behind(lab)
            state = recorded(lab, version("adaptd"))
    path = FOLDER / f"state-{state.adaptd}.msgpack"
    write_state(path, state)
    print(f"{path.name}: {path.stat().st_size} bytes, {len(state.records)} records")  # noqa: T201


if __name__ == "__main__":
    main()
