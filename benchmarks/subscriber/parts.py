"""The two processes of `python -m benchmarks subscriber`: one publishes, one follows.

python -m benchmarks.subscriber.parts    answers one request
"""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from kafka import KafkaProducer

from benchmarks.machine import resident
from benchmarks.output import Report
from benchmarks.process import serve_requests
from benchmarks.subscriber.plan import Publications, PublishedForm
from daemon.client.subscriber import MappingSubscriber
from daemon.config import Settings

TICK_S = 0.005
CURRENT_WITHIN_S = 120.0


def publish_steadily(request: dict[str, Any]) -> Report:
    """Publishes at the rate that is asked for, and returns the one that came of it."""
    form, count = PublishedForm(**request["form"]), int(request["rate"] * request["seconds"])
    publications = Publications(form, request["support_pairs"])
    producer = KafkaProducer(
        bootstrap_servers=request["kafka"],
        acks="all",
        linger_ms=5,
        batch_size=512 * 1024,
        metrics_enabled=False,
    )
    with closing(producer):
        began = time.monotonic()
        for number in range(count):
            while number >= request["rate"] * (time.monotonic() - began):
                time.sleep(TICK_S)
            stream = f"stream-{number % request['streams']}"
            version = request["version"] + number
            value = publications.value(stream, version, time.time_ns())
            producer.send(request["topic"], value, stream.encode())
        producer.flush(60)
        took_s = time.monotonic() - began
    return {"rate": count / took_s, "bytes": len(value)}


def follow(request: dict[str, Any]) -> Report:
    """Follows until as many mappings were served as are published, and returns what that cost."""
    settings = Settings(
        kafka_bootstrap_servers=request["kafka"],
        kafka_mappings_topic=request["topic"],
        follow_meta_inits=False,
    )
    before = resident().all
    with MappingSubscriber(
        settings,
        thetas=[Path(request["theta"])],
        multiplied_out=request["multiplied_out"],
    ) as mappings:
        mappings.wait_until_current(CURRENT_WITHIN_S)
        held = resident().all - before
        Path(request["ready"]).touch()
        served_before, cpu_before = swaps(mappings), time.process_time()
        delays_s = list(_delays_s(mappings, request["quiet_s"]))
        cpu_s = time.process_time() - cpu_before
        served = swaps(mappings) - served_before
        streams = len(mappings.streams())
        nbytes = sum(m.nbytes for s in mappings.streams() if (m := mappings.get(s)))
    p50, p99, most = np.percentile(delays_s, [50, 99, 100]) if delays_s else (np.nan,) * 3
    return {
        "served": served,
        "p50_ms": 1e3 * p50,
        "p99_ms": 1e3 * p99,
        "max_ms": 1e3 * most,
        "cpu_us_per_mapping": 1e6 * cpu_s / max(served, 1),
        "tensor_bytes_per_stream": nbytes / max(streams, 1),
        "resident_bytes_per_stream": held / max(streams, 1),
    }


def swaps(mappings: MappingSubscriber) -> float:
    """Returns how many mappings were put in place."""
    return mappings.metrics.registry.get_sample_value("adaptd_client_swaps_total") or 0.0


def _delays_s(mappings: MappingSubscriber, quiet_s: float) -> Iterator[float]:
    """Yields the time from publication to service of each mapping that a reader is told of."""
    for change in mappings.changes(timeout_s=quiet_s):
        if change.mapping is not None:
            yield (time.time_ns() - int(change.mapping.facts.turn)) / 1e9


def subscriber_part(request: dict[str, Any]) -> Report:
    """Answers one request."""
    return publish_steadily(request) if request["part"] == "publish" else follow(request)


if __name__ == "__main__":
    serve_requests(subscriber_part)
