"""What operators do with published θs, and what a θ must be to be served. Time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, fields

from daemon.errors import Misconfigured, RefusedMetaInit
from daemon.thetas.port import MetaInits
from daemon.wire import meta_init as wire
from daemon.wire.catalogue import Active, Catalogue, Published
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import meta_init_from_bytes
from model.values.errors import BadMetaInit


@dataclass(frozen=True, slots=True)
class Maps:
    """From what to what a θ maps: what subscribers to the mappings rely on. None: anything."""

    source_modality: str | None = None
    source_dim: int | None = None
    target_modality: str | None = None
    target_dim: int | None = None

    def refuse_others(self, theta: MetaInit | Published) -> None:
        """Raises RefusedMetaInit, saying in what `theta` differs."""
        for field in fields(self):
            wanted, has = getattr(self, field.name), getattr(theta, field.name)
            if wanted not in (None, has):
                raise RefusedMetaInit(
                    "other_dimensions",
                    f"θ {theta.version} has {field.name} {has!r}, what is served has {wanted!r}: "
                    "subscribers' features would no longer fit",
                )


def maps_of(theta: object) -> Maps:
    """Of whatever has modalities and dimensions."""
    return Maps(**{field.name: getattr(theta, field.name) for field in fields(Maps)})


# ---- what is to be served


def active_theta(port: MetaInits, catalogue: Catalogue) -> MetaInit | None:
    """The active θ, intact, and the one that was meant; None when none is active.

    Raises RefusedMetaInit, Unavailable.
    """
    if catalogue.fault:
        raise RefusedMetaInit("unreadable", catalogue.fault)
    active = catalogue.active
    if active is None:
        return None
    theta = read(port, catalogue, active.version)
    if theta.content_hash != active.content_hash:
        raise RefusedMetaInit(
            "wrong_hash",
            f"θ {active.version} hashes to {theta.content_hash[:12]}…, "
            f"{active.content_hash[:12]}… was activated",
        )
    return theta


def read(port: MetaInits, catalogue: Catalogue, version: str) -> MetaInit:
    """A published θ, intact. Raises RefusedMetaInit, Unavailable."""
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


# ---- what operators do; each raises Misconfigured for what cannot be, and Unavailable


def publish(port: MetaInits, theta: MetaInit, data: bytes) -> bool:
    """Put θ into the topic; False if it is there already."""
    name = theta.version.encode()
    if theta.version.startswith("@") or len(name) > wire.MAX_VERSION_BYTES:
        raise Misconfigured(
            f"version {theta.version!r}: must not begin with @, and have at most "
            f"{wire.MAX_VERSION_BYTES} bytes"
        )
    there = port.catalogue().published.get(theta.version)
    if there is None:
        port.write(theta.version, data, wire.headers(theta))
        return True
    if there.content_hash == theta.content_hash:
        return False
    raise Misconfigured(
        f"another θ is published as {theta.version!r} ({there.content_hash[:12]}…, this is "
        f"{theta.content_hash[:12]}…): give this one a version of its own, or delete that one"
    )


def activate(
    port: MetaInits,
    version: str,
    *,
    by: str,
    now_ms: int,
    change_dimensions: bool = False,
) -> tuple[Active, bool]:
    """Have workers serve this θ; and whether they did not before."""
    catalogue = port.catalogue()
    before = catalogue.active
    try:
        theta = read(port, catalogue, version)
        served = catalogue.published.get(before.version) if before else None
        if served and not change_dimensions:
            maps_of(served).refuse_others(theta)
    except RefusedMetaInit as e:
        raise Misconfigured(_advised(e)) from e
    if before and (before.version, before.content_hash) == (version, theta.content_hash):
        return before, False
    previous = (before.version, *before.previous) if before else ()
    return _point(port, theta, tuple(v for v in previous if v != version), by, now_ms), True


def rollback(port: MetaInits, *, by: str, now_ms: int) -> Active:
    """Have workers serve the θ that was active before this one, if it was not deleted."""
    catalogue = port.catalogue()
    previous = catalogue.active.previous if catalogue.active else ()
    there = [version for version in previous if version in catalogue.published]
    if not there:
        raise Misconfigured("nothing to roll back to: no θ was active before this one")
    try:
        theta = read(port, catalogue, there[0])
    except RefusedMetaInit as e:
        raise Misconfigured(_advised(e)) from e
    return _point(port, theta, tuple(there[1:]), by, now_ms)


def delete(port: MetaInits, version: str) -> None:
    """Take a θ out of the topic."""
    catalogue = port.catalogue()
    if version not in catalogue.published:
        raise Misconfigured(f"no θ {version!r} is published")
    if catalogue.active and catalogue.active.version == version:
        raise Misconfigured(f"θ {version!r} is active: activate another one first")
    port.write(version, None)


def _point(
    port: MetaInits, theta: MetaInit, previous: tuple[str, ...], by: str, now_ms: int
) -> Active:
    active = Active(
        version=theta.version,
        content_hash=theta.content_hash,
        activated_at_ms=now_ms,
        by=by,
        previous=previous[: wire.MAX_PREVIOUS],
    )
    port.write(wire.ACTIVE_KEY, wire.encode_active(active))
    return active


def _advised(e: RefusedMetaInit) -> str:
    if e.reason == "other_dimensions":
        return f"{e}; if they are ready for it: --change-dimensions, and restart the workers"
    return str(e)
