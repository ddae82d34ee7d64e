"""How to open a client of Redis: the same for the windows and for a look at the server."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from daemon.adapters.redis.address import require_usable


def open_redis(url: str, timeout_s: float) -> redis.Redis:
    """Returns a client that connects when first used. Raises Misconfigured when redis-py cannot
    read the URL."""
    require_usable(url)
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),  # the loop recovers; a blind retry could hide a fault
    )
