"""What Redis' errors mean to us: one table, and the translation by it.

refused    our settings are wrong, or a right is missing: Refused
elsewhere  this is the wrong server, a replica for instance: Unavailable. Connections are dropped
           after every error, so that the next call asks the address again who the primary is
unwell     the right server, which cannot serve now: Unavailable
others     Unavailable, in the words of the client
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from redis import exceptions as vendor
from redis.exceptions import RedisError

from daemon.errors import Refused, Unavailable

Kind = Literal["refused", "elsewhere", "unwell"]


class Meaning(NamedTuple):
    """What an error is, and in words what a person should look at."""

    kind: Kind
    words: str


BY_TYPE: tuple[tuple[type[Exception], Meaning], ...] = (
    (
        vendor.AuthenticationError,
        Meaning("refused", "the user or password in ADAPTD_REDIS_URL is wrong or missing"),
    ),
    (
        vendor.NoPermissionError,
        Meaning("refused", "the user in ADAPTD_REDIS_URL lacks a right, see adaptd check"),
    ),
    (
        vendor.AskError,  # MovedError is one
        Meaning(
            "refused",
            "ADAPTD_REDIS_URL names a node of a Redis Cluster, which adaptd does not follow",
        ),
    ),
    (vendor.ReadOnlyError, Meaning("elsewhere", "ADAPTD_REDIS_URL leads to a replica")),
    (vendor.MasterDownError, Meaning("elsewhere", "a replica that has lost its primary")),
    (vendor.ClusterDownError, Meaning("elsewhere", "a node of a Redis Cluster that is down")),
    (vendor.BusyLoadingError, Meaning("unwell", "it still loads its data")),
    (
        vendor.OutOfMemoryError,
        Meaning("unwell", "its memory is full: raise maxmemory, or lower ADAPTD_WINDOW_TTL_S"),
    ),
)
BY_TEXT: tuple[tuple[str, Meaning], ...] = (
    (
        "ACL failure in script",
        Meaning("refused", "the user in ADAPTD_REDIS_URL lacks a right, see adaptd check"),
    ),
    (
        "DB index is out of range",
        Meaning("refused", "ADAPTD_REDIS_URL names a database that the server does not have"),
    ),
    ("unknown command", Meaning("refused", "the server is older than Redis 7")),
    (
        "WRONG_VERSION_NUMBER",
        Meaning(
            "refused", "ADAPTD_REDIS_URL is rediss://, and the server's port does not speak TLS"
        ),
    ),
    (
        "Hostname mismatch",
        Meaning("refused", "the server's certificate is for another host than ADAPTD_REDIS_URL's"),
    ),
    (
        "IP address mismatch",
        Meaning("refused", "the server's certificate is for another host than ADAPTD_REDIS_URL's"),
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        Meaning(
            "refused",
            "the server's certificate is signed by an unknown authority: ssl_ca_certs in "
            "ADAPTD_REDIS_URL",
        ),
    ),
    (
        "CERTIFICATE_REQUIRED",
        Meaning(
            "refused",
            "the server asks for a client certificate: ssl_certfile and ssl_keyfile in "
            "ADAPTD_REDIS_URL",
        ),
    ),
    ("NOREPLICAS", Meaning("elsewhere", "a primary that its replicas have left")),
    ("MISCONF", Meaning("unwell", "it cannot write to its disk")),
)
"""By a part of the message, for errors that redis-py has no type for."""


def meaning_of(error: Exception) -> Meaning | None:
    """Returns what an error of redis-py or of the system means; None where it says no more than
    that there was no answer."""
    for kind, meaning in BY_TYPE:
        if isinstance(error, kind):
            return meaning
    text = str(error)
    if isinstance(error.__cause__, ssl.SSLError):
        text += str(error.__cause__)
    upper = text.upper()
    return next((meaning for part, meaning in BY_TEXT if part.upper() in upper), None)


@contextmanager
def redis_errors_translated(doing: str) -> Iterator[None]:
    """Raises Refused or Unavailable in place of redis-py's errors and of the system's.

    `doing` says in the message what failed. Errors of any other kind pass: they are bugs.
    """
    try:
        yield
    except (RedisError, OSError) as e:
        meaning = meaning_of(e)
        detail = f"{doing}: {type(e).__name__}: {e}".replace("\n", " ")
        if meaning is None:
            raise Unavailable("redis", detail) from e
        detail = f"{meaning.words} ({detail})"
        if meaning.kind == "refused":
            raise Refused("redis", detail) from e
        raise Unavailable("redis", detail, meaning.kind) from e
