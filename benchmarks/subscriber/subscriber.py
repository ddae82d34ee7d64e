"""`python -m benchmarks subscriber`: what it costs to follow mappings by the SDK.

One process publishes at a steady rate. Another follows with a `MappingSubscriber` and asks for
every change, and its CPU time is counted as a whole. Both have a real Kafka beside them on the
machine.
"""

import tempfile
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient

from benchmarks.output import Benchmark, NoFigures, Report, Say
from benchmarks.process import Process
from benchmarks.subscriber.plan import QUICK, PublishedForm, SubscriberPlan, theta_of
from daemon.local.kafka import start_kafka
from model.theta.meta_init_file import save_meta_init

PACKAGES = ("adaptd", "kafka-python", "numpy", "safetensors")
PARTS = "benchmarks.subscriber.parts"
PARTITIONS = 4
QUIET_S = 6.0
"""The follower ends when nothing came for so long."""
NEAR_ENOUGH = 0.9
"""The part of the rate that must have been published."""


def subscriber_figures(plan: SubscriberPlan, say: Say) -> Report:
    """Measures every form, multiplied out and, where that differs, as published. Raises NoFigures,
    ServicesUnavailable."""
    cases: list[Report] = []
    with start_kafka(note=say) as kafka, tempfile.TemporaryDirectory() as folder:
        for form in plan.forms:
            theta = Path(folder) / f"{form.name}.safetensors"
            save_meta_init(theta_of(form), theta)
            compact = (form.encoding, form.dtype) != ("full", "float32")
            for multiplied_out in (True, False) if compact else (True,):
                case = _case(plan, form, theta, kafka.address, multiplied_out)
                cases.append(case)
                say(
                    f"{case['form']}, {case['held']}: {case['rate']:.0f}/s, p50 "
                    f"{case['p50_ms']:.1f} ms, p99 {case['p99_ms']:.1f} ms, "
                    f"{case['cpu_us_per_mapping']:.0f} µs of CPU per mapping, "
                    f"{case['resident_bytes_per_stream'] / 1000:.1f} KB per stream"
                )
    return {"cases": cases}


def _case(
    plan: SubscriberPlan, form: PublishedForm, theta: Path, kafka: str, multiplied_out: bool
) -> Report:
    topic = f"mappings-{uuid.uuid4().hex[:8]}"
    with closing(KafkaAdminClient(bootstrap_servers=kafka)) as admin:
        options = {"num_partitions": PARTITIONS, "replication_factor": 1}
        admin.create_topics({topic: options}, wait_for_metadata=True)
    ready = theta.with_name(topic)
    request: dict[str, Any] = {
        "ready": str(ready),
        **{"form": asdict(form), "kafka": kafka, "topic": topic, "theta": str(theta)},
        **{"rate": plan.rate, "seconds": plan.seconds, "streams": plan.streams},
        **{"support_pairs": plan.support_pairs, "multiplied_out": multiplied_out},
        **{"quiet_s": QUIET_S},
    }
    with Process(PARTS) as publisher, Process(PARTS) as follower, ThreadPoolExecutor(1) as beside:
        first = {"part": "publish", "seconds": plan.streams / plan.rate, "version": 0}
        publisher.ask(request | first)  # one mapping of each stream
        following = beside.submit(follower.ask, request | {"part": "follow"})
        _await(ready, following)
        published = publisher.ask(request | {"part": "publish", "version": plan.streams})
        found = following.result()
    if published["rate"] < NEAR_ENOUGH * plan.rate:
        raise NoFigures(f"{form.name}: {published['rate']:.0f} mappings/s could be published")
    if not found["served"]:
        raise NoFigures(f"{form.name}: no mapping was served")
    held = "multiplied out" if multiplied_out else "as published"
    return {"form": form.name, "held": held} | published | found


def _await(ready: Path, following: Future[Report]) -> None:
    """Waits until the follower is current: mappings before that are no measure of it."""
    while not ready.exists():
        if following.done():
            following.result()
            raise NoFigures("the follower ended before it was current")
        time.sleep(0.05)


BENCHMARK = Benchmark("subscriber", SubscriberPlan(), QUICK, PACKAGES, subscriber_figures)
