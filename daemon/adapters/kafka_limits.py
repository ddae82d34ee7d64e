"""Sizes and times that both Kafka clients keep to, so that neither adapter loads the other."""

from __future__ import annotations

from daemon.config import MAX_RECORD_BYTES, PRODUCER_LINGER_MS, Settings

BATCH_BYTES = 512 * 1024
"""Of one producer batch: large ones cost the client and the broker less for each record."""
BUFFER_BYTES = MAX_RECORD_BYTES
"""Of all that a producer holds, and so of one record: the broker has stricter limits of its own."""
LINGER_MS = PRODUCER_LINGER_MS
"""How long a producer waits for a batch to fill."""
FETCH_WAIT_MS = 100
"""How long the broker may hold a fetch back while there is nothing to read."""
FETCH_BYTES = 16 * 1024 * 1024
"""Of one fetch, over all partitions: bounds memory, and lasts for several polls."""
RECONNECT_BACKOFF_MS = 100
RECONNECT_BACKOFF_MAX_MS = 1_000
METADATA_MAX_AGE_MS = 5_000
"""How old a consumer's knowledge of the topic may be: partitions that were added are read so soon.
Both clients would look every five minutes by default."""
CLOSE_TIMEOUT_S = 2.0
"""Within the grace period of a worker that is told to stop."""
PROOF_OF_LIFE_S = 2.0
"""An answer so recent spares `verify` its question."""

REBUILD_AFTER_S = 15.0
"""A client that no broker has answered for so long, or for two requests, may know only addresses
that are gone: it is replaced by one that asks the bootstrap servers. A restart of brokers, after
which the old client would find them again, rarely takes longer; if so, this does no harm."""


def heartbeat_interval_ms(settings: Settings) -> int:
    """Returns how often a member of the group says that it lives: three times in a session, at
    least every 3 s."""
    return min(3_000, settings.kafka_session_timeout_ms // 3)
