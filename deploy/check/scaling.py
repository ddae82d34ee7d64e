"""Asks KEDA's own scaler how many workers a lag needs: `python -m deploy.check.scaling`.

The trigger is the chart's, the Kafka is real and local, and the scaler is KEDA's code, built with
Go (four minutes of CPU time, once). What the autoscaler makes of the metric is one division.

Exits with 0 when all is as it should be, 1 when something is not, 2 when it could not be tried.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, NoError
from kafka.structs import OffsetAndMetadata

from daemon.local.errors import ServicesUnavailable
from daemon.local.kafka import start_kafka
from deploy.check.base import CannotTry, Wrong, run
from deploy.check.go import go_program
from deploy.helm.render import documents, render
from deploy.helm.tools import ROOT, TOOLS, NoTool

SOURCE = ROOT / "deploy" / "check" / "keda"
PARTITIONS, THRESHOLD = 8, 100
TOPIC, GROUP = "paired-events", "adaptd"


def built_scaler() -> Path:
    """Returns KEDA's scaler as a program. Raises CannotTry."""
    version = re.search(r"github.com/kedacore/keda/v2 (v\S+)", (SOURCE / "go.mod").read_text())
    assert version
    if shutil.which("go") is None:
        raise CannotTry("no go on PATH: it builds KEDA's scaler")
    words = ["go", "mod", "download", "-json", f"github.com/kedacore/keda/v2@{version[1]}"]
    module = Path(json.loads(run(words, cwd=SOURCE))["Dir"])
    texts = {path.name: path.read_text() for path in SOURCE.iterdir()}
    for name in ("kafka_scaler.go", "scaler.go"):
        text = (module / "pkg" / "scalers" / name).read_text()
        texts[name] = text.replace("package scalers", "package main", 1)
    folder = TOOLS / "source" / "keda"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:
            (folder / name).write_text(text)
    return go_program(folder, "-ldflags=-s -w")


@dataclass(frozen=True, slots=True)
class Scaler:
    """KEDA's scaler with the chart's trigger, on a topic whose lag a check makes."""

    kafka: str
    process: subprocess.Popen[str]

    def workers(self) -> int:
        """Polls once, and returns how many workers the autoscaler would want, one at least."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("poll\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Wrong("KEDA's scaler ended")
        return max(1, math.ceil(float(line.split()[0]) / THRESHOLD))

    def produce(self, records: Mapping[int, int]) -> None:
        """Writes so many records to each partition."""
        producer = KafkaProducer(bootstrap_servers=self.kafka, linger_ms=20)
        for partition, count in records.items():
            for _ in range(count):
                producer.send(TOPIC, b"", partition=partition)
        producer.flush()
        producer.close()

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commits these offsets for the group."""
        marks = {
            TopicPartition(TOPIC, p): OffsetAndMetadata(at, "", -1) for p, at in offsets.items()
        }
        with KafkaAdminClient(bootstrap_servers=self.kafka) as admin:
            eventually(lambda: {*admin.alter_group_offsets(GROUP, marks).values()} == {NoError})


def eventually(holds: Callable[[], bool]) -> None:
    """Returns once it holds: a new Kafka's coordinator takes a moment. Raises Wrong."""
    give_up_at = time.monotonic() + 30
    while True:
        with suppress(KafkaError):
            if holds():
                return
        if time.monotonic() > give_up_at:
            raise Wrong("Kafka took no offsets for half a minute")
        time.sleep(0.2)


@contextmanager
def scaler() -> Iterator[Scaler]:
    """Runs a Kafka and KEDA's scaler for the block. Raises CannotTry, NoTool."""
    program = built_scaler()
    with start_kafka() as server:
        kafka = server.address
        with KafkaAdminClient(bootstrap_servers=kafka) as admin:
            options = {"num_partitions": PARTITIONS, "replication_factor": 1}
            admin.create_topics({TOPIC: options})
        given = f"autoscaling.enabled=true,autoscaling.lagThreshold={THRESHOLD}"
        (scaled,) = (m for m in documents(render("--set", given)) if m["kind"] == "ScaledObject")
        metadata = scaled["spec"]["triggers"][0]["metadata"] | {"bootstrapServers": kafka}
        with subprocess.Popen(
            [program, json.dumps(metadata)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield Scaler(kafka, process)
            process.kill()


def check(keda: Scaler) -> None:
    """Makes lags of several kinds. Raises Wrong where KEDA wants another number of workers."""

    def expect(workers: int, what: str) -> None:
        found = keda.workers()
        if found != workers:
            raise Wrong(f"{what}: {found} workers, not {workers}")
        print(f"ok  {what}: {workers} worker(s)", flush=True)  # noqa: T201

    every = range(PARTITIONS)
    keda.produce(dict.fromkeys(every, 50))
    keda.commit(dict.fromkeys(every, 0))
    expect(4, "50 records in each of 8 partitions, 100 a worker")
    keda.produce({0: 5_000} | dict.fromkeys(every[1:], 30))
    keda.commit(dict.fromkeys(every[1:], 50))
    expect(3, "one of 8 stands still with 5,050 waiting, the others have 30 each")
    keda.commit(dict.fromkeys(every[1:], 80))
    expect(1, "one of 8 stands still, the others have caught up")
    keda.produce({0: 5_000})
    expect(1, "the one that stands still gets 5,000 more")
    keda.produce(dict.fromkeys(every, 2_000))
    keda.commit(dict.fromkeys(every, 100) | {0: 60})
    expect(8, "all move again, with thousands waiting: no more workers than partitions")
    keda.commit({0: 70, 1: 200} | dict.fromkeys(every[2:], 2_080))
    expect(2, "thousands wait in two partitions: no more workers than partitions with a lag")


def main() -> None:
    """Runs the check."""
    try:
        with scaler() as keda:
            check(keda)
    except (CannotTry, NoTool, ServicesUnavailable) as e:
        print(f"scaling-check: {e}")  # noqa: T201
        sys.exit(2)
    except Wrong as e:
        print(f"scaling-check: wrong: {e}")  # noqa: T201
        sys.exit(1)
    print("scaling-check: all well")  # noqa: T201


if __name__ == "__main__":
    main()
