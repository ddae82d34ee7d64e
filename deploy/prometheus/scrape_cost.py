"""How long a scrape takes, and how large it is: `python -m deploy.prometheus.scrape_cost`.

A real worker reads one event of each stream, until it holds 1,000, then 10,000, then 100,000.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from contextlib import suppress
from urllib.request import Request, urlopen

import numpy as np
import typer
from kafka import KafkaProducer

from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.config import Settings
from daemon.local.folders import new_data_folder
from daemon.local.process import GuardedProcess
from daemon.local.server import free_port
from daemon.local.services import local_services
from daemon.wire.paired_event import PairedEvent, WirePair, encode_event, vector
from daemon.wire.topics import specs
from model.theta.meta_init import fresh_meta_init
from model.theta.meta_init_file import save_meta_init

STEPS = (1_000, 10_000, 100_000)
SCRAPES = 31
READ_WITHIN_S = 300.0
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def scrape(url: str) -> tuple[float, str]:
    """Returns the seconds that a scrape took, and its text."""
    start = time.perf_counter()
    with urlopen(Request(f"{url}/metrics", headers={"Accept": OPENMETRICS}), timeout=30) as answer:
        text = answer.read().decode()
    return time.perf_counter() - start, text


def resident(url: str) -> float:
    """Returns how many streams the worker holds."""
    with suppress(OSError):
        for line in scrape(url)[1].splitlines():
            if line.startswith('adaptd_streams{state="resident"}'):
                return float(line.split()[1])
    return 0.0


def main() -> None:
    """Print a table of scrape times and sizes."""
    folder = new_data_folder("scrapes")
    theta, url = folder.path / "theta.safetensors", f"http://127.0.0.1:{free_port()}"
    save_meta_init(fresh_meta_init(8, 3, 16), theta)
    pair = WirePair(vector(np.ones(8, np.float32)), vector(np.ones(3, np.float32)))
    value = encode_event(PairedEvent([pair]))
    with local_services(typer.echo) as services:
        told = {
            "kafka_bootstrap_servers": services.kafka_bootstrap_servers,
            "redis_url": services.redis_url,
            "meta_init": str(theta),
            "max_resident_streams": 2 * max(STEPS),
            "support_size": 4,
            "query_size": 1,
            "http_port": int(url.rpartition(":")[2]),
        }
        topics = KafkaTopics(Settings.model_validate(told))
        for spec in specs(Settings.model_validate(told), 0):
            topics.create(spec)
        topics.close()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTD_")}
        environment = kept | {f"ADAPTD_{k.upper()}": str(v) for k, v in told.items()}
        command = [sys.executable, "-m", "daemon", "run"]
        log = (folder.path / "log").open("wb")
        with log, GuardedProcess(command, grace_s=0.0, env=environment, stderr=log):
            producer = KafkaProducer(bootstrap_servers=services.kafka_bootstrap_servers)
            typer.echo(
                "| streams | scrape, median | largest | bytes | lines |\n|---|---|---|---|---|"
            )
            sent = 0
            for streams in STEPS:
                for stream in range(sent, streams):
                    producer.send("paired-events", value, f"stream-{stream}".encode())
                producer.flush()
                sent = streams
                give_up_at = time.monotonic() + READ_WITHIN_S
                while resident(url) < streams and time.monotonic() < give_up_at:
                    time.sleep(0.5)
                times, texts = zip(*(scrape(url) for _ in range(SCRAPES)), strict=True)
                typer.echo(
                    f"| {resident(url):,.0f} | {1000 * statistics.median(times):.1f} ms "
                    f"| {1000 * max(times):.0f} ms | {len(texts[-1].encode()):,} "
                    f"| {texts[-1].count(chr(10)):,} |"
                )
            producer.close()
    folder.unlock()


if __name__ == "__main__":
    typer.run(main)
