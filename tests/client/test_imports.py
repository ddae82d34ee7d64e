"""Programs that use the SDK need not have torch, Redis or the daemon's own parts."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import daemon.client

MODULES = [
    f"daemon.client.{module.name}" for module in pkgutil.iter_modules(daemon.client.__path__)
]
BLOCKED = (
    "torch",
    "redis",
    "structlog",
    "typer",
    "rich",
    "PIL",
    "daemon.worker",
    "confluent_kafka",
)
PROGRAM = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None  # importing it raises ImportError
import {", ".join(MODULES)}
import numpy as np
from daemon.client.conformance import known_theta
from daemon.client.served import parse_served_theta
from model.theta.meta_init_file import meta_init_to_bytes
theta = parse_served_theta(meta_init_to_bytes(known_theta()), "theta")
print(theta(np.ones(theta.dims[0])).shape)
"""


def test_the_sdk_is_imported_and_maps_where_torch_cannot_be() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(4,)"
