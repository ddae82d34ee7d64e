"""Causes every alert for real, with shortened times, and prints how long each takes to fire.

    python -m deploy.alerts        # or: make alerts-check

Starts a Kafka, Valkeys, a dozen installations of one worker each and a Prometheus with the shipped
rules, does something bad to each installation but one, and at last freezes Kafka. An installation
whose alerts have fired is stopped, to leave the machine to the others. Takes six to ten minutes on
two cores, 5 GB of memory, and Debian's package `prometheus`; as root, a limit of memory is
caused too.

Exits with 0 when each alert fired for what was done, and none for the installation that nothing was
done to; with 1 when not, and 2 when it could not be tried.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import typer

from daemon.local.errors import ServicesUnavailable
from daemon.local.folders import new_data_folder
from daemon.local.server import free_port
from daemon.local.services import Services, local_services
from deploy.alerts.causes import (
    CAUSES,
    CONTROL,
    ELSEWHERE,
    NOT_STARTED,
    PLANS,
    WITH_CGROUPS,
    Cause,
    causes_later,
)
from deploy.alerts.inhibition import Labels, inhibit_rules, sent
from deploy.alerts.lab import Installation, Sending, wait_for
from deploy.alerts.limits import refusal, remove_groups
from deploy.alerts.shortened import shortened_rules, shortened_s, waits_s
from deploy.prometheus.queries import all_rules
from deploy.prometheus.server import CannotCheck, Prometheus, running_prometheus

CALM_S = 20.0
WAIT_S = 240.0
"""How long alerts may take, of each of the two rounds."""


class Fired(NamedTuple):
    """An alert that a cause made fire, and after how many seconds."""

    alert: str
    words: str
    after_s: float


@dataclass
class Watch:
    """Which alerts have fired for which installation, and when first."""

    api: Prometheus
    first: dict[tuple[str, str], float] = field(default_factory=dict)

    def look(self) -> list[Labels]:
        """Asks which alerts fire now, and returns them."""
        firing: list[Labels] = [
            series["metric"] for series in self.api.query('ALERTS{alertstate="firing"}')
        ]
        for alert in firing:
            place = alert.get("job", ""), alert["alertname"].removeprefix("Adaptd")
            if place not in self.first:
                typer.echo(f"         {place[0]}: {alert['alertname']} fires")
                self.first[place] = time.monotonic()
        return firing

    def since(self, start: float) -> dict[tuple[str, str], float]:
        """Returns when (Unix seconds) each alert fired first after `start`, by installation."""
        now, found = time.time(), dict[tuple[str, str], float]()
        for one in self.api.query_range('ALERTS{alertstate="firing"}', start, now, 0.5):
            place = one["metric"].get("job", ""), one["metric"]["alertname"].removeprefix("Adaptd")
            at = float(one["values"][0][0])
            found[place] = min(at, found.get(place, at))
        return found

    def of(self, installation: str) -> set[str]:
        """Returns the alerts that have fired for it."""
        return {alert for job, alert in self.first if job == installation}


def config(labs: Sequence[Installation], *, nobody: bool = True) -> str:
    """Returns Prometheus' configuration: a job for each installation, and one of a pod that never
    answers."""
    jobs = [(lab.plan.name, lab.targets, {"namespace": "lab"}) for lab in labs]
    labels = {"namespace": "lab", "container": "adaptd", "pod": "never-started"}
    if nobody:
        jobs.append((NOT_STARTED, [f"127.0.0.1:{free_port()}"], labels))
    scrapes = [
        {"job_name": name, "static_configs": [{"targets": targets, "labels": of}]}
        for name, targets, of in jobs
    ]
    times = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    return json.dumps({"global": times, "rule_files": ["rules.yaml"], "scrape_configs": scrapes})


def cause_all(
    causes: Sequence[Cause],
    labs: dict[str, Installation],
    watch: Watch,
    wanted_later: Collection[str] = (),
) -> list[Fired]:
    """Does to each installation what is to be done to it, one after the other, and returns the
    alerts that fire. Stops each installation whose alerts have fired, but for those `wanted_later`.
    Prints which alerts did not fire."""
    done_at: dict[Cause, float] = {}
    begun = time.time()
    for cause in causes:
        typer.echo(f"{time.time() - begun:5.0f} s  {cause.installation}: {cause.words}")
        done_at[cause] = time.time()
        cause.do(labs[cause.installation])
        watch.look()
    wanted = {(c.installation, alert): c for c in causes for alert in c.alerts}

    def missing() -> list[str]:
        watch.look()
        places = [place for place in wanted if place not in watch.first]
        busy = {job for job, _ in places} | {*wanted_later}
        for name in {cause.installation for cause in causes} - busy:
            labs[name].stop()
        return [f"{job}: {alert}" for job, alert in places]

    try:
        wait_for("alerts", lambda: not missing(), WAIT_S)
    except TimeoutError:
        typer.echo(f"not fired: {', '.join(missing())}")
    first = watch.since(begun)
    return [
        Fired(alert, cause.words, max(0.0, first[job, alert] - done_at[cause]))
        for (job, alert), cause in wanted.items()
        if (job, alert) in first
    ]


def freeze_kafka(services: Services, watch: Watch) -> list[Fired]:
    """Freezes Kafka until the control's alert fires; prints what is sent then, and how long the
    alert stays after Kafka is back."""
    assert services.kafka is not None
    start = time.monotonic()
    services.kafka.pause()
    place = CONTROL, "ServiceUnavailable"

    def firing() -> bool:
        watch.look()
        return place in watch.first

    wait_for("Kafka away", firing, 60)
    time.sleep(25)
    mine = [alert for alert in watch.look() if alert.get("job") == CONTROL]
    pages = sent(mine, inhibit_rules())
    names = [sorted(a["alertname"] for a in alerts) for alerts in (mine, pages)]
    typer.echo(f"Kafka frozen: fire {', '.join(names[0])}; sent {', '.join(names[1])}")
    services.kafka.resume()
    back = wait_for(
        "Kafka back", lambda: not any(a.get("job") == CONTROL for a in watch.look()), 90
    )
    typer.echo(f"Kafka back: quiet again after {back:.0f} s")
    return [Fired(place[1], "Kafka frozen", watch.first[place] - start)]


def run() -> bool:
    """Returns whether each alert fired for what was done and none for nothing."""
    with ExitStack() as stack:
        stack.callback(remove_groups)  # when their processes have ended
        services = stack.enter_context(local_services(typer.echo))
        folder = new_data_folder("alerts")
        stack.callback(folder.unlock)
        labs = {plan.name: Installation(plan, services, folder.path, stack) for plan in PLANS}
        for lab in labs.values():
            lab.start_worker()
        labs["mixed"].targets.append(f"127.0.0.1:{free_port()}")
        rules = {"rules.yaml": shortened_rules()}
        api = stack.enter_context(running_prometheus(config(list(labs.values())), rules))
        ready = f"count(adaptd_ready == 1) == {len(labs)}"
        typer.echo(f"ready after {wait_for(ready, lambda: bool(api.query(ready)), 240):.0f} s")
        stack.callback(Sending(list(labs.values())).close)
        watch = Watch(api)
        calm = time.monotonic() + CALM_S
        while time.monotonic() < calm:
            watch.look()
            time.sleep(1)
        later = causes_later()
        fired = cause_all(CAUSES, labs, watch, {cause.installation for cause in later})
        fired += cause_all(later, labs, watch)
        for_nothing = watch.of(CONTROL)
        fired += freeze_kafka(services, watch)
        never = (NOT_STARTED, "PodNotStarted") in watch.first
        report(fired)
        typer.echo(f"for {CONTROL}, to which nothing was done: {sorted(for_nothing) or 'none'}")
        expected = [(alert, c.words) for c in (*CAUSES, *later) for alert in c.alerts]
        missed = [one for one in expected if one not in [(f.alert, f.words) for f in fired]]
        for alert, why in not_caused().items():
            typer.echo(f"not caused here: Adaptd{alert} ({why})")
        return not missed and not for_nothing and never


def not_caused() -> dict[str, str]:
    """Returns the alerts that are not caused here, and why."""
    why = refusal()
    limits = {alert: f"no cgroups: {why}" for c in WITH_CGROUPS for alert in c.alerts if why}
    return ELSEWHERE | limits


def report(fired: Sequence[Fired]) -> None:
    """Prints the table that deploy/README.md holds."""
    rules = {rule["alert"]: rule for rule in all_rules() if "alert" in rule}
    typer.echo("| alert | cause | fired after | of which its rule waits | as shipped it waits |")
    typer.echo("|---|---|---|---|---|")
    for one in fired:
        waits = waits_s(rules[f"Adaptd{one.alert}"])
        typer.echo(
            f"| `Adaptd{one.alert}` | {one.words} | {one.after_s:.0f} s "
            f"| {shortened_s(waits):.0f} s | {waits / 60:g} min |"
        )


def main() -> None:
    """Cause every alert for real, with shortened times."""
    try:
        good = run()
    except (CannotCheck, ServicesUnavailable, TimeoutError) as e:
        typer.echo(f"alerts-check: {e}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(0 if good else 1)


if __name__ == "__main__":
    typer.run(main)
