"""Draws the dashboards in health and during an outage: `python -m deploy.grafana.pictures`.

Starts a Kafka, a Valkey, two workers with eight partitions, and a Prometheus with the shipped rules
at shortened times. Draws each board after some minutes of work, in which θ is changed and a worker
is added; then freezes Kafka and draws them again. Takes about five minutes.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import typer

from daemon.local.folders import new_data_folder
from daemon.local.server import free_port
from daemon.local.services import local_services
from deploy.alerts.__main__ import config
from deploy.alerts.lab import (
    HIDDEN_DIM,
    SOURCE_DIM,
    TARGET_DIM,
    Installation,
    Plan,
    Sending,
    wait_for,
)
from deploy.alerts.shortened import shortened_rules
from deploy.grafana.draw import Span, draw
from deploy.prometheus.queries import DASHBOARDS
from deploy.prometheus.server import Prometheus, running_prometheus
from model.theta.meta_init import fresh_meta_init
from model.theta.meta_init_file import save_meta_init

OUT = Path(__file__).parent / "pictures"
PLAN = Plan(
    "adaptd",
    {"gate_ridge": True, "turn_interval_ms": 50, "drift": True, "query_size": 12},
    events_per_s=120,
    partitions=8,
    theta_is_right=True,
    shift=2.0,
)
WORK_S, OUTAGE_S = 80.0, 60.0
RATE_S = 10
"""What Grafana's $__rate_interval would be at this scrape interval."""


def draw_all(api: Prometheus, start: float, when: str) -> None:
    """Writes a picture of each board from `start` (Unix seconds) until now."""
    OUT.mkdir(exist_ok=True)
    span = Span(start, time.time())
    for path in DASHBOARDS:
        out = OUT / f"{path.stem}-{when}.png"
        draw(json.loads(path.read_text()), api, span, out, RATE_S)
        typer.echo(f"{out}: {out.stat().st_size // 1024} KiB")


def main() -> None:
    """Draw the dashboards in health and during an outage."""
    with ExitStack() as stack:
        services = stack.enter_context(local_services(typer.echo))
        folder = new_data_folder("boards")
        stack.callback(folder.unlock)
        lab = Installation(PLAN, services, folder.path, stack)
        lab.start_worker()
        lab.targets.append(f"127.0.0.1:{free_port()}")  # of the worker that is added
        rules = {"rules.yaml": shortened_rules()}
        api = stack.enter_context(running_prometheus(config([lab], nobody=False), rules))
        wait_for("a worker", lambda: bool(api.query("adaptd_ready == 1")), 120)
        stack.callback(Sending([lab]).close)
        time.sleep(RATE_S)
        start = time.time()
        time.sleep(WORK_S / 2)
        lab.start_worker(lab.targets[1])
        time.sleep(WORK_S / 2)
        theta = folder.path / "next.safetensors"
        now = fresh_meta_init(SOURCE_DIM, TARGET_DIM, HIDDEN_DIM, steps=6)
        save_meta_init(replace(now, version="next"), theta)
        lab.run("meta-init", "publish", str(theta), "--activate")
        time.sleep(WORK_S / 2)
        draw_all(api, start, "health")
        assert services.kafka is not None
        services.kafka.pause()
        time.sleep(OUTAGE_S)
        draw_all(api, start, "outage")
        services.kafka.resume()


if __name__ == "__main__":
    typer.run(main)
