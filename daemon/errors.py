"""Everything that can go wrong, by what the daemon does about it.

    AdaptdError
    ├── MalformedEvent   one event cannot be used        -> dead-letter topic, the turn goes on
    ├── Unavailable      Kafka or Redis does not answer  -> back off, recover, try again
    ├── Superseded       another worker owns a partition -> drop it; the new owner carries on
    ├── RefusedMetaInit  a published θ cannot be served  -> reported; the θ before serves on
    └── Misconfigured    the settings cannot work        -> one line and exit code 2, at the start
        └── Refused      Kafka or Redis refuses us       -> as its parent at the start; later on as
                                                            Unavailable: the right may come back

Any other exception is a bug: it ends the process, and the supervisor starts another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from model.values.errors import BadContentReason

Service = Literal["kafka", "redis"]
MalformedReason = Literal[
    "unreadable",
    "empty_key",
    "key_not_utf8",
    "oversize_key",
    "no_value",
    "oversize",
    "unknown_content_type",
    "undecodable",
    "schema",
    "unknown_modality",
    "wrong_pair_count",
    "lying_shape",
    "implausible_time",
    "decoder_failed",
    "repeated_dead_letter",
    BadContentReason,
]
"""Why an event cannot be used: a label of metrics and a header of dead letters."""
RefusalReason = Literal[
    "missing",
    "unreadable",
    "wrong_hash",
    "other_dimensions",
    "other_encoder",
    "unusable",
    "unfit_topics",
    "no_evidence",
]
"""Why a published θ cannot be served, or not be judged as a candidate (other_encoder and
no_evidence: only that): a label of metrics."""
AwayReason = Literal["no_answer", "refused", "elsewhere", "unwell", "lost_writes", "other_log"]
"""Why a service cannot be worked with, a label of metrics: no answer in time; it refuses a
credential or a right; it is a replica or otherwise the wrong server; it cannot serve now, for
instance because its memory is full; it has lost what was written to it; it has another log than
before."""


class AdaptdError(Exception):
    """Root of the tree."""


class MalformedEvent(AdaptdError):
    """One event cannot be used. The message says what is wrong, where, and what would be right."""

    def __init__(self, reason: MalformedReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: MalformedReason = reason
        self.detail = detail


class Unavailable(AdaptdError):
    """A service did not answer, or refused a write that it should accept later."""

    def __init__(self, service: Service, detail: str, reason: AwayReason = "no_answer") -> None:
        super().__init__(f"{service}: {detail}")
        self.service: Service = service
        self.detail = detail
        self.reason: AwayReason = reason


class Superseded(AdaptdError):
    """Another worker has claimed these partitions since this worker did."""

    def __init__(self, partitions: Iterable[int]) -> None:
        self.partitions = frozenset(partitions)
        super().__init__(f"another worker has claimed partitions {sorted(self.partitions)}")


class RefusedMetaInit(AdaptdError):
    """A θ of the meta-inits topic cannot be served."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: RefusalReason = reason
        self.detail = detail


class Misconfigured(AdaptdError):
    """The settings, the topics or the meta-init cannot work. The message is one line for a
    person."""


class Refused(Misconfigured):
    """A service refuses this worker's credentials, its certificate, or something it asks for."""

    reason: AwayReason = "refused"

    def __init__(self, service: Service, detail: str) -> None:
        super().__init__(f"{service}: {detail}")
        self.service: Service = service
        self.detail = detail


Outage = Unavailable | Refused
"""What ends a turn early."""
