"""Among what a stream's events are looked for: the features of its own targets.

N = concepts of the stream's pool, C = candidates (128), E = target dim
"""

from __future__ import annotations

from zlib import crc32

from daemon.demo.part import Part
from daemon.demo.score import candidate_concepts
from daemon.wire import paired_event
from model.serving.engine import Engine
from model.values.arrays import FloatArray


class Candidates:
    """One stream's targets, encoded once."""

    def __init__(self, part: Part, stream: str, engine: Engine) -> None:
        """Take the target of every concept in the stream's pool."""
        self._pool, self._seed = part.pool(stream), crc32(stream.encode())
        self._row = {concept: row for row, concept in enumerate(self._pool)}
        contents = [paired_event.raw_content(part.target(stream, c)) for c in self._pool]
        prepared = [engine.prepare("target", *content) for content in contents]
        self._features_NE = engine.encode("target", prepared)

    def among(self, concept: int) -> tuple[list[int], FloatArray]:
        """The concept and 127 others, always the same ones, with their features (C, E)."""
        concepts = candidate_concepts(concept, self._pool, self._seed)
        return concepts, self._features_NE[[self._row[c] for c in concepts]]
