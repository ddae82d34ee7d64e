"""Ports that stay ours, also while a server is down between a kill and a restart."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST = 15_000
FALLBACK_HIGHEST = 32_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A free port on 127.0.0.1 below those the kernel hands to clients.

    Port 0 would give one of the kernel's own, which any client's outgoing connection may take
    while the server is away. Two processes may still pick the same one at the same moment:
    servers try again with another when they cannot bind.
    """
    while True:
        port = random.randint(LOWEST, _highest())
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _highest() -> int:
    try:
        lowest_ephemeral = int(EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return FALLBACK_HIGHEST
    return lowest_ephemeral - 1 if lowest_ephemeral > LOWEST + 1000 else FALLBACK_HIGHEST
