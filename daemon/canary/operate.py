"""What is done with canaries: begin one, stop it, act on its verdict.

Each function reads the topic first, and raises Misconfigured for what cannot be done, and
Unavailable. All of them may be repeated: what is there already is not done again. Time is an
argument.
"""

from __future__ import annotations

from dataclasses import replace

from daemon.errors import Misconfigured, RefusedMetaInit
from daemon.thetas.active import read_theta, require_candidate
from daemon.thetas.operate import activate_theta, rollback_theta
from daemon.thetas.port import MetaInits
from daemon.wire.canary import CANDIDATE_KEY, MOST_SHARE, Canary, Ended, encode_canary
from daemon.wire.catalogue import Catalogue

HOUR_MS = 3_600_000
WATCH_HOURS = 24.0
MOST_HOURS = 144.0
"""The topic of evidence keeps a week: nothing that counts may be deleted while a canary runs."""


def begin_canary(
    port: MetaInits, version: str, *, share: float, hours: float, by: str, now_ms: int
) -> Canary:
    """Puts a published θ on trial against the active one. Returns the record that says so."""
    if not 0.0 < share <= MOST_SHARE:
        raise Misconfigured(f"a share of {share:g}: must be above 0 and at most {MOST_SHARE}")
    if not 0.0 < hours <= MOST_HOURS:
        raise Misconfigured(f"{hours:g} hours: must be above 0 and at most {MOST_HOURS:g}")
    catalogue = port.catalogue()
    before, active = catalogue.canary, catalogue.active
    if running := running_canary(catalogue, now_ms):
        raise Misconfigured(
            f"θ {running.version!r} is on trial already: wait, or adaptd meta-init canary --abort"
        )
    if active is None:
        raise Misconfigured("no θ is active to compare with: publish and activate the one served")
    if active.version == version:
        raise Misconfigured(f"θ {version!r} is active already")
    try:
        candidate = read_theta(port, catalogue, version)
        require_candidate(candidate, read_theta(port, catalogue, active.version))
    except RefusedMetaInit as e:
        raise Misconfigured(str(e)) from e
    if candidate.content_hash == active.content_hash:
        raise Misconfigured(f"θ {version!r} has the content of the active one: nothing to judge")
    quarantined = before.quarantined if before else ()
    if candidate.content_hash in quarantined:
        raise Misconfigured(f"θ {version!r} was rolled back on evidence, and is tried no more")
    again = before and before.against_hash == active.content_hash and not before.watch
    canary = Canary(
        version=version,
        content_hash=candidate.content_hash,
        against=active.version,
        against_hash=active.content_hash,
        share=share,
        since_ms=now_ms,
        until_ms=now_ms + int(hours * HOUR_MS),
        epoch=_next_epoch(before, now_ms),
        by=by,
        attempt=before.attempt + 1 if before and again else 1,
        quarantined=quarantined,
    )
    _write(port, canary)
    return canary


def judged_canary(catalogue: Catalogue, now_ms: int) -> Canary | None:
    """Returns the newest canary while its evidence is of interest: it was not ended, nor did it
    end long ago."""
    canary = catalogue.canary
    if canary is None or canary.ended or now_ms > canary.until_ms + HOUR_MS:
        return None
    return canary


def running_canary(catalogue: Catalogue, now_ms: int) -> Canary | None:
    """Returns the canary that runs: neither ended nor over, and against the θ that is active."""
    canary, active = catalogue.canary, catalogue.active
    if canary is None or active is None or canary.ended or now_ms > canary.until_ms:
        return None
    return canary if canary.against_hash == active.content_hash else None


def end_canary(port: MetaInits, canary: Canary, how: Ended, *, now_ms: int) -> bool:
    """Ends this canary. Returns False, having done nothing, if it does not run any more."""
    if running_canary(port.catalogue(), now_ms) != canary:
        return False
    _write(port, replace(canary, ended=how))
    return True


def promote(port: MetaInits, canary: Canary, *, by: str, now_ms: int) -> bool:
    """Activates the candidate of this canary, and has the θ before it watch. Returns False, having
    done nothing, if it does not run any more."""
    if running_canary(port.catalogue(), now_ms) != canary:
        return False
    activate_theta(port, canary.version, by=by, now_ms=now_ms)
    begin_watch(port, by=by, now_ms=now_ms)
    return True


def begin_watch(port: MetaInits, *, by: str, now_ms: int) -> Canary | None:
    """Where the candidate of the newest canary was activated, has the θ before it watch: it stays
    as the shadow, and evidence may put it back. Returns the record that says so; None where
    nothing is to be watched, or is watched already."""
    catalogue = port.catalogue()
    canary, active = catalogue.canary, catalogue.active
    if canary is None or active is None or canary.watch or canary.ended not in (None, "promoted"):
        return None
    if active.content_hash != canary.content_hash or canary.against not in catalogue.published:
        return None
    watch = replace(
        canary,
        version=canary.against,
        content_hash=canary.against_hash,
        against=canary.version,
        against_hash=canary.content_hash,
        since_ms=now_ms,
        until_ms=now_ms + int(WATCH_HOURS * HOUR_MS),
        epoch=_next_epoch(canary, now_ms),
        by=by,
        watch=True,
        ended=None,
    )
    _write(port, watch)
    return watch


def roll_back(port: MetaInits, watch: Canary, *, by: str, now_ms: int) -> bool:
    """Puts the θ back that watches, and quarantines the one that it has found to be worse. Returns
    False, having done nothing, if it does not watch any more, or all is done."""
    catalogue = port.catalogue()
    if running_canary(catalogue, now_ms) == watch:
        previous = catalogue.active.previous if catalogue.active else ()
        if previous[:1] == (watch.version,):
            rollback_theta(port, by=by, now_ms=now_ms)
        else:
            activate_theta(port, watch.version, by=by, now_ms=now_ms)
    elif not is_unfinished(catalogue, watch):
        return False
    quarantined = (*watch.quarantined, watch.against_hash)
    _write(port, replace(watch, ended="rolled_back", quarantined=quarantined))
    return True


def is_unfinished(catalogue: Catalogue, canary: Canary) -> bool:
    """Returns whether the canary's θ was activated, and what follows from that is not written yet:
    of a candidate that the θ before it watches, of a watch that it is over."""
    active = catalogue.active
    return (
        catalogue.canary == canary
        and not canary.ended
        and active is not None
        and active.content_hash == canary.content_hash
    )


def _next_epoch(before: Canary | None, now_ms: int) -> int:
    return max(before.epoch + 1 if before else 1, now_ms)


def _write(port: MetaInits, canary: Canary) -> None:
    port.write(CANDIDATE_KEY, encode_canary(canary))
