"""Everything that can go wrong, by what the daemon does about it.

    AdaptdError
    ├── MalformedEvent   one event cannot be used      -> dead-letter topic, the turn goes on
    ├── Unavailable      Kafka or Redis does not answer -> back off, recover, try again
    ├── Superseded       another worker owns a partition -> drop it; the new owner carries on
    ├── RefusedMetaInit  a published θ cannot be served -> reported; the one before serves on
    └── Misconfigured    the settings cannot work      -> one line, exit code 2: at the start,
                                                      or when Kafka withdraws a right

Anything else is a bug: it crashes the process and the supervisor restarts it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Service = Literal["kafka", "redis"]
RefusalReason = Literal[
    "missing", "unreadable", "wrong_hash", "other_dimensions", "unusable", "unfit_topics"
]


class AdaptdError(Exception):
    """Root of the tree."""


class MalformedEvent(AdaptdError):
    """One event cannot be used; `reason` is a short code that metrics and dead letters carry."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Unavailable(AdaptdError):
    """A service did not answer, or refused a write that it should accept later."""

    def __init__(self, service: Service, detail: str) -> None:
        super().__init__(f"{service}: {detail}")
        self.service = service
        self.detail = detail


class Superseded(AdaptdError):
    """Another worker has claimed these partitions since this one did."""

    def __init__(self, partitions: Iterable[int]) -> None:
        self.partitions = frozenset(partitions)
        super().__init__(f"another worker has claimed partitions {sorted(self.partitions)}")


class RefusedMetaInit(AdaptdError):
    """A θ of the meta-inits topic cannot be served; `reason` is a label of metrics."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Misconfigured(AdaptdError):
    """Settings, topics or meta-init cannot work; the message is one line for a person."""
