"""`adaptd meta-init canary`: put a θ on trial beside the active one, look at it, stop it."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from typing import Annotated, Any

import typer

from daemon import config
from daemon.canary.follow import EARLIER_MS
from daemon.canary.judge import CanaryJudge, CanaryStanding
from daemon.canary.operate import begin_canary, end_canary, running_canary
from daemon.commands.options import AsJson, ConfigFile
from daemon.commands.thetas_topic import now_ms, opened_topic, who
from daemon.config import Settings
from daemon.errors import Misconfigured
from daemon.utc import time_told
from daemon.wire.canary import Canary
from daemon.wire.catalogue import Catalogue


def canary_command(
    version: Annotated[
        str | None, typer.Argument(help="A published version, to put on trial.")
    ] = None,
    share: Annotated[
        float, typer.Option(help="Of all streams, how many judge it; 0.3 at most.")
    ] = 0.1,
    hours: Annotated[float, typer.Option(help="How long the trial may last; 144 at most.")] = 24.0,
    status: Annotated[
        bool, typer.Option("--status", help="Show how the trial stands; so does no argument.")
    ] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Stop the trial, or the watch.")] = False,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Judge a θ beside the active one on a share of the streams, before anybody is served by it.

    Workers write down which of the two is better. Once that is clear, this command says so; with
    ADAPTD_CANARY=ask, the default, a person activates it.
    """
    if sum((version is not None, status, abort)) > 1:
        raise Misconfigured("give one of VERSION, --status and --abort")
    settings = config.load_settings(config_file)
    with opened_topic(settings) as topic:
        if version is not None:
            begun = begin_canary(
                topic, version, share=share, hours=hours, by=who(), now_ms=now_ms()
            )
            typer.echo(
                f"{begun.version}: on trial against {begun.against}, by {begun.share:.0%} of the "
                f"streams, until {time_told(begun.until_ms)} UTC at the latest"
            )
            return
        found = topic.catalogue()
        if abort:
            running = running_canary(found, now_ms())
            if running is None or not end_canary(topic, running, "aborted", now_ms=now_ms()):
                raise Misconfigured("no θ is on trial")
            typer.echo(f"{running.version}: {'watch' if running.watch else 'trial'} stopped")
            return
    if as_json:
        typer.echo(json.dumps(_as_json(settings, found), indent=2, ensure_ascii=False))
    elif not print_standing(settings, found):
        typer.echo("no θ was ever on trial; adaptd meta-init canary VERSION puts one on trial")


def print_standing(settings: Settings, found: Catalogue) -> bool:
    """Prints how the newest canary stands. Returns False when there is none."""
    if found.canary_fault:
        typer.echo(f"which θ is on trial cannot be read: {found.canary_fault}", err=True)
    if found.canary is None:
        return False
    try:
        lines = told(found, standing_of(settings, found.canary), now_ms())
    except Misconfigured as e:
        lines = [f"{found.canary.version}: how its trial stands cannot be read: {e}"]
    for line in lines:
        typer.echo(line)
    return True


def standing_of(settings: Settings, canary: Canary) -> CanaryStanding:
    """Reads the evidence and returns what it comes to. Raises Unavailable, Misconfigured."""
    from daemon.adapters.kafka_python.evidence import KafkaPythonEvidence

    judge = CanaryJudge(canary)
    with closing(KafkaPythonEvidence(settings, f"adaptd-canary-{who()}")) as log:
        for record in log.read(canary.since_ms - EARLIER_MS).records:
            judge.observe(record)
    return judge.standing()


def told(found: Catalogue, standing: CanaryStanding, at_ms: int) -> list[str]:
    """Returns how the newest canary stands, in lines for people."""
    canary = found.canary
    assert canary is not None
    state = state_of(found, standing, at_ms)
    new, old = (
        (canary.against, canary.version) if canary.watch else (canary.version, canary.against)
    )
    role = f"{new}, watched by {old}" if canary.watch else f"{new}, on trial against {old}"
    lines = [
        f"{role}: {state}",
        f"  since {time_told(canary.since_ms)} UTC, by {canary.by}, attempt {canary.attempt}",
    ]
    if standing.streams:
        lines.append(
            f"  {standing.streams} streams: better by {standing.difference:.3f} ± "
            f"{standing.error:.3f} ({standing.cold:.3f} with few pairs, {standing.full:.3f} with "
            f"all), {standing.harmed} harmed"
        )
        lines.append(
            f"  evidence: better {standing.better:.3g}, safe {standing.safe:.3g} (both of "
            f"{standing.needed:.0f} win); worse {standing.worse:.3g}, harmful "
            f"{standing.harmful:.3g} (20 of either lose)"
        )
    if standing.refused:
        lines.append(f"  {standing.refused} records of evidence were damaged, and do not count")
    if state == "has won":
        lines.append(f"  activate it with: adaptd meta-init activate {new}")
    if state == "is worse":
        lines.append("  go back with: adaptd meta-init rollback")
    return lines


def state_of(found: Catalogue, standing: CanaryStanding, at_ms: int) -> str:
    """Returns how far the newest canary has come, in words."""
    canary = found.canary
    assert canary is not None
    if canary.ended:
        return canary.ended.replace("_", " ")
    if found.active is None or found.active.content_hash != canary.against_hash:
        return "over: another θ is active"
    if standing.verdict == "lost":
        why = f" ({standing.reason})"
        return "is worse" if canary.watch else f"has lost{why}"
    if standing.verdict == "won":
        return "has held" if canary.watch else "has won"
    return "expired without a verdict" if at_ms > canary.until_ms else "running"


def _as_json(settings: Settings, found: Catalogue) -> dict[str, Any]:
    if found.canary is None:
        return {"canary": None, "fault": found.canary_fault}
    standing = standing_of(settings, found.canary)
    return {
        "canary": asdict(found.canary),
        "state": state_of(found, standing, now_ms()),
        "standing": standing.known(),
        "fault": found.canary_fault,
    }
