"""Builds the image, looks into it, and runs it: `python -m deploy.check.image`.

    python -m deploy.check.image                         # podman, on a base made by debootstrap
    python -m deploy.check.image --base python:3.12-slim --torch cpu --torch-index ADDRESS

A local Kafka and Valkey and the demo's producer run beside it. In the container, without
privileges, with a read-only root and 2 GiB, the worker must become ready, adapt the demo's events
with the faster Kafka client, and end with code 0 within five seconds of SIGTERM. Prints the image's
size, what takes the room, and how long a start took, cold and warm.

Exits with 0 when all is as it should be, 1 when something is not, 2 when it could not be tried.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.error import URLError
from urllib.request import urlopen

import typer

from daemon.demo.environment import (
    DemoEnvironment,
    create_scenario_topics,
    demo_environment,
    load_theta,
    theta_paths,
)
from daemon.demo.plan import Plan
from daemon.demo.processes import ProcessEnded, Processes
from daemon.errors import Unavailable
from daemon.local.errors import ServicesUnavailable
from daemon.local.server import free_port
from deploy.check.base import STAND_IN, CannotTry, Wrong, make_stand_in, run
from deploy.helm.tools import ROOT

READY_WITHIN_S = 120.0
STOP_WITHIN_S = 5.0
MAPPINGS = 50
"""Published by the worker before it counts as one that works."""

LOOK = """
import importlib.metadata, importlib.util, json, os, shutil
from pathlib import Path
site = Path(importlib.util.find_spec("torch").origin).parents[1]
def size(path):
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.lstat().st_size for f in files if not f.is_dir())
compilers = ("cc", "gcc", "g++", "c++", "clang", "ld", "as", "nvcc", "tcc", "make")
print(json.dumps({
    "user": os.getuid(),
    "compilers": [name for name in compilers if shutil.which(name)],
    "pip": (Path("/opt/adaptd/bin/pip").exists()),
    "strangers": [n for n in ("tests", "benchmarks", "deploy") if importlib.util.find_spec(n)],
    "installed": sorted(d.metadata["Name"].lower().replace("_", "-")
                        for d in importlib.metadata.distributions()),
    "sbom": json.loads(Path("/opt/adaptd/sbom.cdx.json").read_text()),
    "room": sorted(((size(p), p.name) for p in site.iterdir()), reverse=True)[:8],
}))
"""


def build(engine: str, tag: str, arguments: dict[str, str]) -> None:
    """Builds the image. Raises CannotTry with the end of the log."""
    words = [engine, "build", "--network", "host", "--file", "deploy/Dockerfile"]
    words += ["--ignorefile", "deploy/Dockerfile.dockerignore"] if engine == "podman" else []
    for name, value in arguments.items():
        words += ["--build-arg", f"{name}={value}"]
    run([*words, "--tag", tag, "."], cwd=ROOT)


def look_inside(engine: str, tag: str) -> dict[str, Any]:
    """Returns what the image says of itself, and raises Wrong for what should not be in it."""
    words = [engine, "run", "--rm", "--network", "none", "--entrypoint", "python"]
    seen: dict[str, Any] = json.loads(run([*words, tag, "-c", LOOK]))
    listed = {part["name"] for part in seen["sbom"]["components"]} | {"adaptd"}
    wrong = [
        ("it runs as root", seen["user"] == 0),
        (f"it holds compilers: {seen['compilers']}", bool(seen["compilers"])),
        ("its environment has pip", seen["pip"]),
        (f"it holds {seen['strangers']}", bool(seen["strangers"])),
        ("it lacks the faster client", "confluent-kafka" not in listed),
        ("its list of parts is not what is installed", listed != set(seen["installed"])),
    ]
    if found := [what for what, is_wrong in wrong if is_wrong]:
        raise Wrong("; ".join(found))
    return seen


class Container:
    """A worker in a container with the privileges that its pod has."""

    def __init__(self, engine: str, tag: str, variables: dict[str, str]) -> None:
        self._engine, self._port = engine, free_port()
        words = [engine, "run", "--detach", "--network", "host", "--read-only", "--cap-drop", "ALL"]
        words += ["--security-opt", "no-new-privileges", "--tmpfs", "/tmp:size=128m"]
        words += ["--memory", "2g", "--user", "10001:10001"]
        for name, value in (variables | {"ADAPTD_HTTP_PORT": str(self._port)}).items():
            words += ["--env", f"{name}={value}"]
        self.started_at = time.monotonic()
        self._id = run([*words, tag]).strip()

    def ready_after_s(self) -> float:
        """Returns how long it took until /readyz said yes. Raises Wrong when it never does."""
        while not self._answers("readyz"):
            if time.monotonic() > self.started_at + READY_WITHIN_S or not self._running():
                raise Wrong(f"it never became ready:\n{self.log()}")
            time.sleep(0.1)
        return time.monotonic() - self.started_at

    def wait_for_mappings(self, count: int) -> None:
        """Returns once it has published so many mappings. Raises Wrong."""
        give_up_at = time.monotonic() + READY_WITHIN_S
        while self._published() < count:
            if time.monotonic() > give_up_at or not self._running():
                raise Wrong(f"it published {self._published():.0f} mappings:\n{self.log()}")
            time.sleep(0.2)

    def stop(self) -> tuple[float, int]:
        """Sends SIGTERM; returns how long the process took to end, and its exit code.

        It waits for the process itself: an engine takes seconds to clean up after it.
        """
        words = [self._engine, "inspect", "--format", "{{.State.Pid}}", self._id]
        process = Path("/proc") / run(words).strip()
        began = time.monotonic()
        run([self._engine, "kill", "--signal", "TERM", self._id])
        while (process / "exe").exists():
            time.sleep(0.02)
        stopped_s = time.monotonic() - began
        return stopped_s, int(run([self._engine, "wait", self._id]).strip())

    def remove(self) -> None:
        """Ends it if it runs, and removes it."""
        run([self._engine, "rm", "--force", self._id])

    def log(self) -> str:
        """Returns the end of what it logged."""
        done = subprocess.run(
            [self._engine, "logs", "--tail", "15", self._id], capture_output=True, text=True
        )
        return done.stdout + done.stderr

    def _running(self) -> bool:
        state = run([self._engine, "inspect", "--format", "{{.State.Running}}", self._id])
        return state.strip() == "true"

    def _answers(self, path: str) -> bool:
        try:
            return bool(self._get(path))
        except (URLError, OSError):
            return False

    def _get(self, path: str) -> str:
        with urlopen(f"http://127.0.0.1:{self._port}/{path}", timeout=2) as answer:
            return str(answer.read().decode())

    def _published(self) -> float:
        lines = self._get("metrics").splitlines()
        found = [line for line in lines if line.startswith("adaptd_mappings_published_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in found)


@contextmanager
def services() -> Iterator[tuple[DemoEnvironment, Processes]]:
    """Runs a Kafka, a Valkey and the demo's producer for the block."""
    thetas = theta_paths({})
    with demo_environment(None, None, thetas, typer.echo) as environment:
        theta = load_theta("tenants", thetas["tenants"])
        create_scenario_topics(environment.settings_of("tenants"), theta)
        with Processes(environment.common) as processes:
            plan = Plan(seconds=90.0, events_per_language=0)
            processes.start("producer", environment.run_config(plan).to_json())
            yield environment, processes


def try_worker(engine: str, tag: str, variables: dict[str, str], what: str) -> None:
    """Runs a worker to its end, and prints how it went. Raises Wrong."""
    container = Container(engine, tag, variables)
    try:
        ready_s = container.ready_after_s()
        container.wait_for_mappings(MAPPINGS)
        worked_s = time.monotonic() - container.started_at
        stopped_s, code = container.stop()
        typer.echo(
            f"{what} start: ready after {ready_s:.1f} s, {MAPPINGS} mappings after "
            f"{worked_s:.1f} s, "
            f"SIGTERM took {stopped_s:.1f} s, exit code {code}"
        )
        if stopped_s > STOP_WITHIN_S or code != 0:
            raise Wrong(f"it must end with 0 within {STOP_WITHIN_S:g} s:\n{container.log()}")
    finally:
        container.remove()


def forget_cached_files() -> None:
    """Has the kernel drop its cached files, for a cold start; where it may."""
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        typer.echo("the first start is not cold: cached files cannot be dropped here")


def check(engine: str, tag: str) -> None:
    """Looks into the image and runs it twice. Raises Wrong, CannotTry."""
    size = int(run([engine, "image", "inspect", "--format", "{{.Size}}", tag]))
    labels = run([engine, "image", "inspect", "--format", "{{json .Config.Labels}}", tag])
    seen = look_inside(engine, tag)
    typer.echo(f"image: {size / 1e9:.2f} GB, {len(seen['sbom']['components'])} distributions")
    for room, name in seen["room"]:
        typer.echo(f"{room / 1e6:8.0f} MB  {name}")
    for name in ("version", "revision", "licenses", "base.name"):
        if not json.loads(labels).get(f"org.opencontainers.image.{name}"):
            raise Wrong(f"it has no label {name}")
    with services() as (environment, processes):
        variables = {
            name: value
            for name, value in environment.variables_of("tenants").items()
            if name.startswith("ADAPTD_") and name != "ADAPTD_META_INIT"  # the shipped one
        }
        forget_cached_files()
        try_worker(engine, tag, variables, "cold")
        processes.check()
        variables |= {"ADAPTD_KAFKA_CLIENT": "librdkafka", "ADAPTD_KAFKA_GROUP_ID": "second"}
        variables |= {"ADAPTD_REDIS_PREFIX": "second"}
        try_worker(engine, tag, variables, "warm (librdkafka)")


def main(
    engine: Annotated[str, typer.Option(help="podman or docker.")] = "podman",
    base: Annotated[str, typer.Option(help="Base image with Python.")] = STAND_IN,
    torch: Annotated[str, typer.Option(help="cuda, or cpu from --torch-index.")] = "cuda",
    torch_index: Annotated[str, typer.Option(help="Address of an index with torch.")] = "",
    tag: Annotated[str, typer.Option(help="The image's name.")] = "localhost/adaptd:check",
) -> None:
    """Build the image, look into it, and run it."""
    try:
        if shutil.which(engine) is None:
            raise CannotTry(f"no {engine} on PATH: apt-get install podman runc")
        if base == STAND_IN:
            make_stand_in(engine)
        revision = run(["git", "rev-parse", "HEAD"], cwd=ROOT).strip()
        arguments = {"BASE": base, "TORCH": torch, "TORCH_INDEX_URL": torch_index}
        build(engine, tag, arguments | {"REVISION": revision})
        check(engine, tag)
    except (CannotTry, ServicesUnavailable, Unavailable, ProcessEnded) as e:
        typer.echo(f"image-check: {e}", err=True)
        sys.exit(2)
    except Wrong as e:
        typer.echo(f"image-check: the image is wrong: {e}", err=True)
        sys.exit(1)
    typer.echo("image-check: the image is built, and does its work")


if __name__ == "__main__":
    typer.run(main)
