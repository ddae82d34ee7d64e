"""What kind of server Redis is, for the start and for `adaptd check`."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from daemon.adapters.redis.errors import redis_errors_translated


@dataclass(frozen=True, slots=True)
class RedisInfo:
    """The server's version, and which keys it evicts when it is full (its maxmemory-policy); None
    where the server does not say, as managed ones may not."""

    version: str | None
    eviction: str | None


def describe(url: str, timeout_s: float) -> RedisInfo:
    """Asks the server at `url`. Raises Refused, and Unavailable when it does not answer within
    `timeout_s`."""
    with (
        redis_errors_translated("look"),
        redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        ) as client,
    ):
        try:
            info = client.info()
        except redis.ResponseError as e:  # the right to ask is not needed for anything else
            if "perm" not in type(e).__name__.lower() and "unknown" not in str(e):
                raise
            info = {}
        version = info.get("valkey_version") or info.get("redis_version")
        eviction = info.get("maxmemory_policy") or _configured_eviction(client)
    return RedisInfo(None if version is None else str(version), eviction)


def _configured_eviction(client: redis.Redis) -> str | None:
    try:
        return client.config_get("maxmemory-policy").get("maxmemory-policy")
    except redis.ResponseError:  # managed services often forbid CONFIG
        return None
