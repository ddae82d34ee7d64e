"""Where and with what the figures were measured."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import redis

from daemon.local.kafka_install import KAFKA_VERSION
from daemon.local.services import Services

PACKAGES = ("adaptd", "torch", "numpy", "kafka-python", "redis", "hiredis", "msgspec", "msgpack")
OPTIONAL = ("confluent-kafka",)


def machine() -> dict[str, object]:
    """The hardware, as far as the kernel tells."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()) or platform.processor() or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages * page_bytes / 2**30, 1),
        "kernel": platform.release(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
    }


def cpu_model(cpuinfo: str) -> str | None:
    """The first CPU's name, where the architecture has one."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return None


def versions(services: Services) -> dict[str, str]:
    """Of everything that takes part."""
    with redis.Redis.from_url(services.redis_url) as client:
        info = client.info("server")
    found = {"python": platform.python_version(), "kafka": KAFKA_VERSION}
    found["valkey"] = str(info.get("valkey_version") or info["redis_version"])
    found |= {package: version(package) for package in PACKAGES}
    for package in OPTIONAL:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
