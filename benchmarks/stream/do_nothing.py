"""The do-nothing worker: the daemon's clients and nothing between them.

Each poll: consume, one Redis append per event in one MULTI, a mapping-sized record for a share of
the poll's streams, commit. The difference to the daemon is what decoding, windows, adapting and
its guarantees cost; what is left is the price of Kafka and Redis in Python.

    python -m benchmarks.stream.do_nothing MAPPING_BYTES SHARE        (settings: ADAPTD_*)
"""

import sys
from collections.abc import Mapping

import redis

from benchmarks.process import work_until_stopped
from daemon import config
from daemon.config import Settings
from daemon.turn.pending import Done, Pending
from daemon.turn.policy import IDLE_WAIT_S
from daemon.turn.ports import Polled
from daemon.wire.adapted_mapping import HEADER_PREFIX
from daemon.wire.record import Message
from daemon.worker.wiring import kafka_clients


class DoNothing:
    """The clients, made as the daemon makes them."""

    def __init__(self, settings: Settings, mapping_bytes: int, share: float) -> None:
        self._settings = settings
        self._value = bytes(mapping_bytes)
        self._share = share
        self._window_size = settings.support_size + settings.query_size
        open_source, open_outbox = kafka_clients(settings)
        self._source = open_source(settings, "do-nothing")
        self._outbox = open_outbox(settings, "do-nothing")
        self._redis = redis.Redis.from_url(settings.redis_url.get_secret_value())
        self._asked: Mapping[int, int] = {}
        self._answered: Pending[bool] = Done(True)

    def turn(self) -> None:
        """Does one poll and what belongs to it."""
        polled = self._source.poll(IDLE_WAIT_S, self._settings.kafka_max_poll_records)
        if polled.records:
            self._append(polled)
            if messages := self._messages(polled):
                self._outbox.send(messages)
        self._commit({p: batch[-1].offset + 1 for p, batch in polled.records.items()})

    def _commit(self, offsets: Mapping[int, int]) -> None:
        """Requests a commit, as the daemon does, and reads the answer in the next turn; what was
        refused is requested again."""
        refused = {} if self._answered.result() else self._asked
        self._asked = {**refused, **offsets}
        self._answered = self._source.commit(self._asked) if self._asked else Done(True)

    def _append(self, polled: Polled) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        for records in polled.records.values():
            for record in records:
                pipeline.xadd(
                    b"do-nothing:%b" % (record.key or b""),
                    {b"v": record.value or b""},
                    id=f"{record.offset + 1}-0",
                    maxlen=self._window_size,
                    approximate=False,
                )
        pipeline.execute()

    def _messages(self, polled: Polled) -> list[Message]:
        newest = {
            record.key or b"": (partition, record.offset)
            for partition, records in polled.records.items()
            for record in records
        }
        chosen = list(newest)[: max(1, round(self._share * len(newest)))]
        return [self._message(key, *newest[key]) for key in chosen]

    def _message(self, key: bytes, partition: int, offset: int) -> Message:
        facts = {"partition": partition, "version": offset}
        headers = tuple((HEADER_PREFIX + name, str(fact).encode()) for name, fact in facts.items())
        return Message(self._settings.kafka_mappings_topic, key, self._value, headers)

    def close(self) -> None:
        """Flushes, and leaves the group."""
        self._outbox.close()
        self._source.close()
        self._redis.close()


if __name__ == "__main__":
    worker = DoNothing(config.load_settings(None), int(sys.argv[1]), float(sys.argv[2]))
    work_until_stopped(worker.turn, worker.close)
