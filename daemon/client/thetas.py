"""Finds θs for a subscriber: in files, and in the topic of θs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from daemon.adapters.kafka_python.meta_inits import KafkaPythonMetaInits
from daemon.client.served import ServedTheta, parse_served_theta
from daemon.config import Settings
from daemon.wire.catalogue import Catalogue
from model.theta.meta_init_file import MAX_BYTES, read_limited
from model.values.errors import BadMetaInit


def read_thetas(paths: Iterable[Path]) -> list[ServedTheta]:
    """Returns the θs of these files. Raises BadMetaInit for one that is none."""
    return [parse_served_theta(read_limited(path, MAX_BYTES), str(path)) for path in paths]


class ThetaTopic:
    """The topic of θs: which one is active, and any by its content hash. One thread calls."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._topic = KafkaPythonMetaInits(settings, client_id)
        self._catalogue = Catalogue(exists=False)
        self._useless: set[tuple[int, int]] = set()
        """The records, by offset and time, that do not hold what their headers say."""

    def read_on(self) -> str | None:
        """Reads what is new. Returns the content hash of the active θ, None where none is. Raises
        Unavailable, Misconfigured, Refused."""
        self._catalogue = self._topic.catalogue()
        active = self._catalogue.active
        return active.content_hash if active else None

    def fetch(self, content_hash: str) -> ServedTheta | None:
        """Returns the θ of this hash, None where the topic has none. Raises Unavailable,
        Misconfigured, Refused."""
        for each in self._catalogue.published.values():
            place = (each.offset, each.published_at_ms)
            if each.content_hash not in (content_hash, "") or place in self._useless:
                continue
            theta = self._parsed(self._topic.fetch(each), each.version)
            if theta and theta.content_hash == content_hash:
                return theta
            self._useless.add(place)
        return None

    @staticmethod
    def _parsed(data: bytes | None, version: str) -> ServedTheta | None:
        try:
            return parse_served_theta(data, version) if data else None
        except BadMetaInit:  # the worker that is told to serve it says so
            return None

    def close(self) -> None:
        """Closes the connections. Never raises."""
        self._topic.close()
