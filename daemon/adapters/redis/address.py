"""What a Redis URL may say. redis-py takes any option of its own from there, some only when it
connects, and those that the adapter sets would be taken from it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import redis

from daemon.errors import Misconfigured

OURS = (
    "decode_responses",
    "encoding",
    "encoding_errors",
    "retry",
    "retry_on_error",
    "retry_on_timeout",
    "single_connection_client",
    "socket_connect_timeout",
    "socket_timeout",
)
"""Options on which the adapter's own work rests."""
FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")


def require_usable(url: str) -> None:
    """Raises Misconfigured unless redis-py can use every option in the URL. Connects to nothing."""
    parts = urlsplit(url)
    if parts.scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):  # would mean database 0
        raise Misconfigured("ADAPTD_REDIS_URL = (hidden): its path must be a database's number")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in OURS:
            raise Misconfigured(f"ADAPTD_REDIS_URL = (hidden): its option {name} is adaptd's own")
        if name in FILES and not Path(value).exists():
            raise Misconfigured(f"ADAPTD_REDIS_URL = (hidden): {name}: there is no {value!r}")
    try:
        redis.ConnectionPool.from_url(url).make_connection()  # which reads all options
    except Exception as e:  # each option has errors of its own
        raise Misconfigured(f"ADAPTD_REDIS_URL = (hidden): {e}") from e
