"""The keys of the windows in Redis.

All but the last three are under `<prefix>:<group>:{<topic id>:<partition>}`, so that the keys of
one partition share a cluster slot:

    :epoch                    string, a decimal integer; the partition's owner has the largest
    :theta                    string; the content hash of the θ that all mappings of the partition
                              are of
    :generation               string, a decimal integer; how often the windows began anew
    :<features>:position      string, a decimal integer; the offset after the newest event whose
                              pairs are kept
    :<features>:w:<stream>    stream; one entry per pair, id <offset + 1>-<pair index>,
                              fields x, y (float32, little-endian) and t (ms, UTC)
    <prefix>:<group>:last-read:<topic>:<partition>
                              string; the topic's id, and the offset and the fingerprint of the last
                              record that was read
    <prefix>:<group>:home:<topic id>:<stream>
                              string; the partition that the stream was seen in last, and since when
                              (ms, UTC); expires as windows do
    <prefix>:<group>:begun-with:<topic>
                              string; the id of the topic that the group began with, and how many
                              partitions it had

One more, `<prefix>:<group>:alive`, is empty: the store's `verify` writes it, to know that it can
write.

<features> is <encoder version>:<source dim>x<target dim>: what makes pairs comparable; from the
first generation on, ~<generation> follows. So new features, a topic made anew, and a log that was
replaced under the same id have windows of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

GLOB_ESCAPES = str.maketrans({special: f"\\{special}" for special in "*?[]^\\"})


@dataclass(frozen=True, slots=True)
class WindowLayout:
    """What a store's keys and entries depend on."""

    prefix: str
    group: str
    incarnation: str
    """The id of the events topic, until `use_topic` names another."""
    encoder_version: str
    window_size: int
    source_dim: int
    target_dim: int
    window_ttl_s: int = 0
    """Seconds after which a window that did not change expires; 0: never."""
    topic: str = ""
    """The name of the events topic."""


class WindowKeys:
    """Names the keys of a store. They depend on the topic's id and each partition's generation,
    which the store sets when it learns them."""

    def __init__(self, layout: WindowLayout) -> None:
        self._group = f"{layout.prefix}:{layout.group}"
        self._topic = layout.topic
        self._features = f"{layout.encoder_version}:{layout.source_dim}x{layout.target_dim}"
        self.topic_id = layout.incarnation
        self.generations: dict[int, int] = {}
        """Of the partitions whose windows began anew."""

    def _of_group(self, name: str) -> str:
        return f"{self._group}:{name}"

    def _of_partition(self, partition: int, name: str) -> str:
        return self._of_group(f"{{{self.topic_id}:{partition}}}:{name}")

    def _of_features(self, partition: int, name: str) -> str:
        generation = self.generations.get(partition)
        anew = f"~{generation}" if generation else ""
        return self._of_partition(partition, f"{self._features}{anew}:{name}")

    def epoch(self, partition: int) -> str:
        return self._of_partition(partition, "epoch")

    def theta(self, partition: int) -> str:
        return self._of_partition(partition, "theta")

    def generation(self, partition: int) -> str:
        return self._of_partition(partition, "generation")

    def position(self, partition: int) -> str:
        return self._of_features(partition, "position")

    def window_prefix(self, partition: int) -> str:
        """Returns what every window's key begins with; the stream follows."""
        return self._of_features(partition, "w:")

    def written(self, partition: int, streams: Iterable[str]) -> list[str]:
        """Returns the keys of a script that writes windows: epoch, position, then the windows."""
        prefix = self.window_prefix(partition)
        windows = [prefix + stream for stream in streams]
        return [self.epoch(partition), self.position(partition), *windows]

    def last_read(self, partition: int) -> str:
        return self._of_group(f"last-read:{self._topic}:{partition}")

    def home(self, stream: str) -> str:
        return self._of_group(f"home:{self.topic_id}:{stream}")

    def begun_with(self) -> str:
        return self._of_group(f"begun-with:{self._topic}")

    def alive(self) -> str:
        return self._of_group("alive")

    def of_topic(self) -> str:
        """Returns a pattern (SCAN's MATCH) for the keys of all partitions."""
        return self._of_group(f"{{{self.topic_id}:").translate(GLOB_ESCAPES) + "*"

    def of_partition(self, partition: int) -> str:
        """Returns a pattern (SCAN's MATCH) for the keys of one partition."""
        return self._of_partition(partition, "").translate(GLOB_ESCAPES) + "*"
