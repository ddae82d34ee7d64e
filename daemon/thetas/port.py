"""What following and publishing θs needs from the outside: the meta-inits topic.

Adapters satisfy this protocol, and pass its contract suite in tests/contracts.
"""

from __future__ import annotations

from typing import Protocol

from daemon.wire.catalogue import Catalogue, PublishedTheta
from daemon.wire.record import Headers


class MetaInits(Protocol):
    """The meta-inits topic: the θs that were published, and which of them is active.

    The loop does not use it. The follower of the topic and the operators' commands do.
    """

    def catalogue(self) -> Catalogue:
        """Reads the topic to its end, and returns what it says; where there is no topic, nothing
        is published. Raises Unavailable, and Misconfigured when it may not be read."""

    def fetch(self, published: PublishedTheta) -> bytes | None:
        """Returns the file of a θ, or None when it is there no longer or is larger than the
        settings allow. Raises Unavailable."""

    def write(self, key: str, value: bytes | None, headers: Headers = ()) -> None:
        """Returns when all in-sync replicas have acknowledged the record. Makes the topic when it
        does not exist. Raises Unavailable, and Misconfigured when the topic does not take so large
        a record."""

    def close(self) -> None:
        """Closes the connection, in bounded time. Never raises."""
