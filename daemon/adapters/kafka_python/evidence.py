"""The topic of evidence by kafka-python, for whoever follows canaries on a thread of its own."""

from __future__ import annotations

from daemon.adapters.kafka_python.single_partition import SinglePartition
from daemon.adapters.kafka_python.topics import KafkaTopics
from daemon.canary.port import EvidenceRead
from daemon.config import Settings
from daemon.errors import Misconfigured
from daemon.wire.topics import evidence_spec, evidence_topic_fault

MAX_RECORDS = 5_000


class KafkaPythonEvidence:
    """The EvidenceLog port on a KafkaConsumer. Connects when first asked."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings, self._topic = settings, settings.kafka_evidence_topic
        self._partition = SinglePartition(settings, client_id, self._topic)
        self._read_of: tuple[str, int] | None = None
        """The topic's id, and since when it is read."""
        self._next = 0

    def fault(self) -> str | None:
        """See EvidenceLog."""
        topics = KafkaTopics(self._settings)
        try:
            found = topics.describe([self._topic])
        finally:
            topics.close()
        return evidence_topic_fault(evidence_spec(self._settings), found)

    def read(self, since_ms: int) -> EvidenceRead:
        """See EvidenceLog."""
        before, self._read_of = self._read_of, None  # an error begins anew
        with self._partition.opened("read the evidence"):
            topic_id = self._partition.topic_id()
            if topic_id is None:
                raise Misconfigured(f"topic {self._topic!r} does not exist")
            read_of, end = (topic_id, since_ms), self._partition.end()
            begins = before != read_of or end < self._next
            if begins:
                first = self._partition.first_since(since_ms)
                self._next = end if first is None else first
            records = list(self._partition.records(self._next, end, MAX_RECORDS))
            self._read_of, self._next = read_of, end
        return EvidenceRead(records, begins)

    def close(self) -> None:
        """See EvidenceLog."""
        self._read_of = None
        self._partition.close()
