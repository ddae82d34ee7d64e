"""What the meta-inits topic says: which θs are published, active and on trial. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from daemon.wire.canary import Canary


@dataclass(frozen=True, slots=True)
class Active:
    """Which θ workers are to serve, and which were active before it."""

    version: str
    content_hash: str
    """Content hash of the θ that was activated, hexadecimal; another θ that is published under the
    same version later is refused."""
    activated_at_ms: int
    by: str
    previous: tuple[str, ...] = ()
    """The versions that were active before, newest first: a rollback goes to the first of them."""


@dataclass(frozen=True, slots=True)
class PublishedTheta:
    """One θ in the topic, as the headers of its record describe it. Headers may be wrong; the file
    itself is checked when it is fetched."""

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
        """From what to what θ maps, for people."""
        return (
            f"{self.source_modality} ({self.source_dim}) -> "
            f"{self.target_modality} ({self.target_dim})"
        )


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The published θs by version, the oldest publication first, and the active one."""

    published: Mapping[str, PublishedTheta] = field(default_factory=dict)
    active: Active | None = None
    fault: str | None = None
    """Why the record that names the active θ cannot be read, if there is such a record."""
    exists: bool = True
    """Whether the topic exists."""
    canary: Canary | None = None
    """The newest canary, running or ended."""
    canary_fault: str | None = None
    """Why the record of the canary cannot be read, if there is such a record."""
