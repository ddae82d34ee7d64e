"""The θs that were published, and which of them is active: values, as the topic tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Active:
    """Which θ is to be served, and which were before."""

    version: str
    content_hash: str
    """Of the θ that was meant, hexadecimal: another one under the same version is refused."""
    activated_at_ms: int
    by: str
    previous: tuple[str, ...] = ()
    """Versions active before, newest first: where a rollback goes."""


@dataclass(frozen=True, slots=True)
class PublishedTheta:
    """One θ in the topic, as its record's headers describe it. Only its file is proof."""

    version: str
    offset: int
    nbytes: int
    published_at_ms: int
    content_hash: str = ""
    parent: str | None = None
    source_modality: str = ""
    target_modality: str = ""
    source_dim: int = 0
    hidden_dim: int = 0
    target_dim: int = 0
    encoder: str = ""
    generator: str = ""
    learner: str = ""
    facts: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def maps(self) -> str:
        """From what to what, for people."""
        return (
            f"{self.source_modality} ({self.source_dim}) -> "
            f"{self.target_modality} ({self.target_dim})"
        )


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the topic says: θs by version, oldest publication first, and the active one."""

    published: Mapping[str, PublishedTheta] = field(default_factory=dict)
    active: Active | None = None
    fault: str | None = None
    """Why the record that names the active one, if there is one, cannot be read."""
    exists: bool = True
    """Whether there is such a topic."""
