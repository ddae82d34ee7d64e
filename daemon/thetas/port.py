"""What following and publishing θs needs from the outside: the meta-inits topic.

Adapters satisfy it, and pass its contract suite in tests/contracts.
"""

from __future__ import annotations

from typing import Protocol

from daemon.wire.catalogue import Catalogue, PublishedTheta
from daemon.wire.record import Headers


class MetaInits(Protocol):
    """The meta-inits topic: θs that were published, and which of them is active.

    Not the loop's: whoever follows the topic, or an operator's command, calls it.
    """

    def catalogue(self) -> Catalogue:
        """What the topic says now, read to its end; None published where there is no topic.

        Raises Unavailable.
        """

    def fetch(self, published: PublishedTheta) -> bytes | None:
        """The file of a θ; None if it is there no more, or is larger than what is allowed.

        Raises Unavailable.
        """

    def write(self, key: str, value: bytes | None, headers: Headers = ()) -> None:
        """Return when the record is acknowledged by all in-sync replicas; a missing topic is made.

        Raises Unavailable, Misconfigured when the topic does not take so large a record.
        """

    def close(self) -> None:
        """Never raises; bounded in time."""
