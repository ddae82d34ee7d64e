"""What operators do with the published θs: publish, activate, roll back, delete.

Each function raises Misconfigured for what cannot be done, and Unavailable. Time is an argument.
"""

from __future__ import annotations

from daemon.errors import Misconfigured, RefusedMetaInit
from daemon.thetas.active import read_theta, signature_of
from daemon.thetas.port import MetaInits
from daemon.wire import meta_init as wire
from daemon.wire.catalogue import Active
from model.theta.meta_init import MetaInit


def publish_theta(port: MetaInits, theta: MetaInit, data: bytes) -> bool:
    """Writes θ, whose file is `data`, to the topic. Returns False if it is there already."""
    name = theta.version.encode()
    if theta.version.startswith("@") or len(name) > wire.MAX_VERSION_BYTES:
        raise Misconfigured(
            f"version {theta.version!r}: must not begin with @, and have at most "
            f"{wire.MAX_VERSION_BYTES} bytes"
        )
    there = port.catalogue().published.get(theta.version)
    if there is None:
        port.write(theta.version, data, wire.theta_headers(theta))
        return True
    if there.content_hash == theta.content_hash:
        return False
    raise Misconfigured(
        f"another θ is published as {theta.version!r} ({there.content_hash[:12]}…, this is "
        f"{theta.content_hash[:12]}…): give this one a version of its own, or delete that one"
    )


def activate_theta(
    port: MetaInits,
    version: str,
    *,
    by: str,
    now_ms: int,
    change_dimensions: bool = False,
) -> tuple[Active, bool]:
    """Makes workers serve this θ. Returns the record that says so, and whether it is new.

    `change_dimensions` lets it map from or to something else than the θ that is active."""
    catalogue = port.catalogue()
    before = catalogue.active
    try:
        theta = read_theta(port, catalogue, version)
        served = catalogue.published.get(before.version) if before else None
        if served and not change_dimensions:
            signature_of(served).require(theta, theta.version)
    except RefusedMetaInit as e:
        raise Misconfigured(_advised(e)) from e
    if before and (before.version, before.content_hash) == (version, theta.content_hash):
        return before, False
    previous = (before.version, *before.previous) if before else ()
    return _write_active(port, theta, tuple(v for v in previous if v != version), by, now_ms), True


def rollback_theta(port: MetaInits, *, by: str, now_ms: int) -> Active:
    """Makes workers serve the θ that was active before this one, or the newest of those before it
    that was not deleted. Returns the record that says so."""
    catalogue = port.catalogue()
    previous = catalogue.active.previous if catalogue.active else ()
    there = [version for version in previous if version in catalogue.published]
    if not there:
        raise Misconfigured("nothing to roll back to: no θ was active before this one")
    try:
        theta = read_theta(port, catalogue, there[0])
    except RefusedMetaInit as e:
        raise Misconfigured(_advised(e)) from e
    return _write_active(port, theta, tuple(there[1:]), by, now_ms)


def delete_theta(port: MetaInits, version: str) -> None:
    """Deletes a θ that is not active from the topic."""
    catalogue = port.catalogue()
    if version not in catalogue.published:
        raise Misconfigured(f"no θ {version!r} is published")
    if catalogue.active and catalogue.active.version == version:
        raise Misconfigured(f"θ {version!r} is active: activate another one first")
    port.write(version, None)


def _write_active(
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
