"""Which published θ is to be served, and what it must be for that. Pure but for the port."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

from daemon.errors import RefusedMetaInit
from daemon.thetas.port import MetaInits
from daemon.wire.catalogue import Catalogue
from model.theta.info import ThetaInfo
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import meta_init_from_bytes
from model.values.errors import BadMetaInit


class Mapper(Protocol):
    """Whatever has modalities and dimensions: a θ, its info, its catalogue entry, the settings."""

    @property
    def source_modality(self) -> str | None: ...
    @property
    def source_dim(self) -> int | None: ...
    @property
    def target_modality(self) -> str | None: ...
    @property
    def target_dim(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class ThetaSignature:
    """What a θ must map from and to, which subscribers to the mappings rely on. None: anything."""

    source_modality: str | None = None
    source_dim: int | None = None
    target_modality: str | None = None
    target_dim: int | None = None

    def require(self, mapper: Mapper, version: str) -> None:
        """Raises RefusedMetaInit unless the θ of this version maps so; the message says in what it
        differs."""
        for field in fields(self):
            wanted, has = getattr(self, field.name), getattr(mapper, field.name)
            if wanted not in (None, has):
                raise RefusedMetaInit(
                    "other_dimensions",
                    f"θ {version} has {field.name} {has!r}, what is served has {wanted!r}: "
                    "subscribers' features would no longer fit",
                )


def signature_of(mapper: Mapper) -> ThetaSignature:
    """Returns what the mapper maps from and to."""
    return ThetaSignature(
        mapper.source_modality, mapper.source_dim, mapper.target_modality, mapper.target_dim
    )


def require_candidate(candidate: MetaInit, active: MetaInit | ThetaInfo) -> None:
    """Raises RefusedMetaInit unless the candidate can be judged beside the active θ: it must map
    what that maps, and from the same features, for the windows hold those of the active θ."""
    signature_of(active).require(candidate, candidate.version)
    if candidate.encoder_version != active.encoder_version:
        raise RefusedMetaInit(
            "other_encoder",
            f"θ {candidate.version} has encoder {candidate.encoder_version!r}, what is served has "
            f"{active.encoder_version!r}: the windows hold other features than it needs",
        )


def active_theta(port: MetaInits, catalogue: Catalogue) -> MetaInit | None:
    """Returns the active θ, or None when none is active. Raises RefusedMetaInit when it is damaged
    or is not the one that was activated, and Unavailable."""
    if catalogue.fault:
        raise RefusedMetaInit("unreadable", catalogue.fault)
    active = catalogue.active
    if active is None:
        return None
    theta = read_theta(port, catalogue, active.version)
    if theta.content_hash != active.content_hash:
        raise RefusedMetaInit(
            "wrong_hash",
            f"θ {active.version} hashes to {theta.content_hash[:12]}…, "
            f"{active.content_hash[:12]}… was activated",
        )
    return theta


def read_theta(port: MetaInits, catalogue: Catalogue, version: str) -> MetaInit:
    """Fetches and returns a published θ. Raises RefusedMetaInit when it is missing or damaged, and
    Unavailable."""
    published = catalogue.published.get(version)
    if published is None:
        raise RefusedMetaInit("missing", f"no θ {version!r} is published")
    data = port.fetch(published)
    if data is None:
        raise RefusedMetaInit(
            "missing",
            f"θ {version!r} ({published.nbytes} bytes) was deleted meanwhile, or is larger than "
            "ADAPTD_META_INIT_MAX_BYTES",
        )
    try:
        theta = meta_init_from_bytes(data, f"published θ {version!r}")
    except BadMetaInit as e:
        raise RefusedMetaInit("unreadable", str(e)) from e
    if theta.version != version:
        raise RefusedMetaInit("wrong_hash", f"behind {version!r} lies θ {theta.version!r}")
    return theta
