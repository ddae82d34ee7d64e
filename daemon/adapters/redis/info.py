"""What kind of server Redis is, for `adaptd check`."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from daemon.adapters.redis.address import require_usable
from daemon.adapters.redis.windows import redis_errors_translated


@dataclass(frozen=True, slots=True)
class RedisInfo:
    """The server's version, and which keys it evicts when it is full.

    `eviction` is its maxmemory-policy; None where the server does not say, as managed ones may not.
    """

    version: str
    eviction: str | None


def describe(url: str, timeout_s: float) -> RedisInfo:
    """Asks the server at `url`. Raises Unavailable when it does not answer within `timeout_s`, and
    Misconfigured when redis-py cannot use the URL."""
    require_usable(url)
    with (
        redis_errors_translated("look"),
        redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        ) as client,
    ):
        info = client.info()
        version = str(info.get("valkey_version") or info["redis_version"])
        try:
            eviction = client.config_get("maxmemory-policy").get("maxmemory-policy")
        except redis.ResponseError:  # managed services often forbid CONFIG
            eviction = None
    return RedisInfo(version, eviction)
