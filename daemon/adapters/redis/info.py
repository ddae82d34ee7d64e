"""What kind of server Redis is, for the start and for `adaptd check`."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import redis

from daemon.adapters.redis.client import open_redis
from daemon.adapters.redis.errors import redis_errors_translated
from daemon.config import Settings
from daemon.errors import Refused, Unavailable


@dataclass(frozen=True, slots=True)
class RedisInfo:
    """The server's version, and which keys it evicts when it is full (its maxmemory-policy); None
    where the server does not say, as managed ones may not."""

    version: str | None
    eviction: str | None


def describe(url: str, timeout_s: float) -> RedisInfo:
    """Asks the server at `url`. Raises Refused, and Unavailable when it does not answer within
    `timeout_s`."""
    try:
        return _described(url, timeout_s)
    except Unavailable as e:
        if words := _other_protocol(url, timeout_s):
            raise Refused("redis", words) from e
        if url == Settings.model_fields["redis_url"].default.get_secret_value():
            detail = f"{e.detail}; this is the default address: set ADAPTD_REDIS_URL"
            raise Unavailable("redis", detail) from e
        raise


def _described(url: str, timeout_s: float) -> RedisInfo:
    with redis_errors_translated("look"), open_redis(url, timeout_s) as client:
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


def _other_protocol(url: str, timeout_s: float) -> str | None:
    """Returns in words whether the port speaks TLS where the URL does not, or the other way round:
    Redis itself then waits for more, or hangs up."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss"):
        return None
    address = parts.hostname or "localhost", parts.port or 6379
    try:
        with socket.create_connection(address, timeout_s) as link:
            if parts.scheme == "rediss":
                link.sendall(b"PING\r\n")
                if link.recv(1) in (b"+", b"-"):
                    return "ADAPTD_REDIS_URL is rediss://, and the port does not speak TLS"
                return None
            blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
            with blind.wrap_socket(link):
                return "the port speaks TLS: ADAPTD_REDIS_URL must be rediss://"
    except OSError:
        return None
