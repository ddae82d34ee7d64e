"""What canaries need from the outside: the topic of evidence.

Adapters satisfy this protocol, and pass its contract suite in tests/contracts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from daemon.wire.record import Record


class EvidenceRead(NamedTuple):
    """Records of the topic of evidence."""

    records: Sequence[Record]
    begins: bool
    """Whether they are read from the beginning: what was made of earlier ones is to be forgotten,
    for an error came between, or the topic is another one."""


class EvidenceLog(Protocol):
    """The topic of evidence, read."""

    def fault(self) -> str | None:
        """Returns in a line what keeps a worker from using the topic: it is missing, or a right
        is. Raises Unavailable, Misconfigured."""

    def read(self, since_ms: int) -> EvidenceRead:
        """Returns the records since the last call, to the topic's end; the first call, and one
        with another time, begins at the records of that time (ms, UTC). Raises Unavailable,
        Misconfigured; the next call then begins anew."""

    def close(self) -> None:
        """Closes the connection, in bounded time. Never raises."""
