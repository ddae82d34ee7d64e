"""Installs the chart on a real API server: `python -m deploy.check.cluster`.

The namespaces enforce the Pod Security Standard `restricted`, and the API server refuses unknown
fields. Controllers and the scheduler are Kubernetes' own. Pods do not run: see
deploy/check/control_plane.py.

Exits with 0 when all is as it should be, 1 when something is not, 2 when it could not be tried.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from daemon.local.errors import ServicesUnavailable
from deploy.check.base import CannotTry, Wrong
from deploy.check.control_plane import NODES, Cluster, Refused, control_plane
from deploy.helm.render import CHART, KUBERNETES, PLAIN, documents, render
from deploy.helm.tools import ROOT, NoTool, tool

EVERYTHING = ROOT / "tests" / "deploy" / "everything.yaml"
WITHIN_S = 180.0
REPLICAS = 2

Fault = tuple[str, str, Callable[[dict[str, Any]], object]]

FAULTS: dict[str, Fault] = {
    "an unknown field of a Deployment": (
        "Deployment",
        "enableServiceLink",
        lambda m: m["spec"]["template"]["spec"].update(enableServiceLink=False),
    ),
    "replicas in words": (
        "Deployment",
        "spec.replicas",
        lambda m: m["spec"].update(replicas="two"),
    ),
    "an unknown field of a PodMonitor": (
        "PodMonitor",
        "intervall",
        lambda m: m["spec"]["podMetricsEndpoints"][0].update(intervall="15s"),
    ),
    "a number as text in a ScaledObject": (
        "ScaledObject",
        "maxReplicaCount",
        lambda m: m["spec"].update(maxReplicaCount="8"),
    ),
    "an alert's labels as a list": (
        "PrometheusRule",
        "labels",
        lambda m: m["spec"]["groups"][1]["rules"][0].update(labels=["a"]),
    ),
    "a pod that may gain privileges": (
        "Pod",
        "violates PodSecurity",
        lambda m: m["spec"]["containers"][0]["securityContext"].update(
            allowPrivilegeEscalation=True
        ),
    ),
}
"""By what is wrong: the kind, what the refusal names, and what makes it wrong."""


def say(line: str) -> None:
    """Prints a line of the report."""
    print(line, flush=True)  # noqa: T201


def make_namespace(cluster: Cluster, name: str) -> None:
    """Makes a namespace that admits and warns by the standard `restricted`."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    metadata = {"name": name, "labels": labels}
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    cluster.kubectl("apply", "-f", "-", given=json.dumps(manifest))
    wait_for(lambda: bool(cluster.items("serviceaccounts", name)), "a service account")


def wait_for(holds: Callable[[], bool], what: str) -> None:
    """Returns once it holds. Raises Wrong after three minutes."""
    give_up_at = time.monotonic() + WITHIN_S
    while not holds():
        if time.monotonic() > give_up_at:
            raise Wrong(f"waited in vain for {what}")
        time.sleep(0.2)


def helm(
    cluster: Cluster, namespace: str, *words: str, meanwhile: Callable[[], None] | None = None
) -> str:
    """Runs helm while nodes play their part. Raises Refused with what it said."""
    command = [tool("helm"), *words, "--namespace", namespace]
    with subprocess.Popen(
        command,
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        give_up_at = time.monotonic() + WITHIN_S
        while process.poll() is None:
            cluster.play_kubelet(namespace)
            if meanwhile:
                meanwhile()
            if time.monotonic() > give_up_at:
                process.kill()
            time.sleep(0.2)
        said = process.stdout.read() if process.stdout else ""
    if process.returncode != 0:
        raise Refused(said)
    return said


def install(cluster: Cluster) -> None:
    """Installs with the defaults: hooks, workers on both nodes, the chart's test."""
    make_namespace(cluster, "default-values")
    said = helm(
        cluster, "default-values", "install", "adaptd", str(CHART), "--wait", "--timeout=150s"
    )
    no_warnings(said)
    pods = workers(cluster, "default-values")
    nodes = {pod["spec"]["nodeName"] for pod in pods}
    if nodes != set(NODES):
        raise Wrong(f"workers are on {nodes}, not spread over {set(NODES)}")
    left = {m["metadata"]["name"] for m in cluster.items("jobs,networkpolicies", "default-values")}
    if left != {"adaptd"}:
        raise Wrong(f"hooks left something behind: {left}")
    say("ok  install: topics first, then workers, spread over nodes; hooks left nothing")
    helm(cluster, "default-values", "test", "adaptd", "--timeout=60s")
    say("ok  helm test: `adaptd check` in a pod like the workers'")


def roll(cluster: Cluster) -> None:
    """Changes a setting; the workers roll, and there are never more than before."""
    before = {pod["metadata"]["uid"] for pod in workers(cluster, "default-values")}
    most = 0

    def count() -> None:
        nonlocal most
        most = max(most, len(workers(cluster, "default-values")))

    words = ["upgrade", "adaptd", str(CHART), "--set", "settings.max_batch=128", "--wait"]
    helm(cluster, "default-values", *words, "--timeout=150s", meanwhile=count)
    now = {pod["metadata"]["uid"] for pod in workers(cluster, "default-values")}
    if len(now) != REPLICAS or now & before:
        raise Wrong("a changed setting did not replace the workers")
    if most > REPLICAS:
        raise Wrong(f"a rollout had {most} workers at once: the group would be doubled")
    say(f"ok  rollout: a changed setting replaced all workers, never more than {most} at once")


def evict(cluster: Cluster) -> None:
    """Evicts two workers at once; the budget lets one go."""
    pods = [pod["metadata"]["name"] for pod in workers(cluster, "default-values")]
    wait_for(lambda: budget(cluster) == 1, "a budget of one disruption")
    evict_pod(cluster, pods[0])
    try:
        evict_pod(cluster, pods[1])
    except Refused as e:
        if "disruption budget" not in str(e):
            raise
        say("ok  eviction: the budget let one worker go and kept the other")
        return
    raise Wrong("two workers were evicted at once")


def budget(cluster: Cluster) -> int:
    """Returns how many workers may be disrupted now."""
    (found,) = cluster.items("poddisruptionbudgets", "default-values")
    return int(found.get("status", {}).get("disruptionsAllowed", 0))


def evict_pod(cluster: Cluster, name: str) -> None:
    """Asks for a pod's eviction. Raises Refused."""
    metadata = {"name": name, "namespace": "default-values"}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/default-values/pods/{name}/eviction"
    cluster.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))


def upgrade(cluster: Cluster) -> None:
    """Upgrades to every value set, and back: nothing that cannot change is changed."""
    words = ["upgrade", "adaptd", str(CHART), "--values", str(EVERYTHING), "--timeout=150s"]
    no_warnings(helm(cluster, "default-values", *words))
    scaled = cluster.items("scaledobjects", "default-values")
    if [each["metadata"]["name"] for each in scaled] != ["adaptd"]:
        raise Wrong("the upgrade made no ScaledObject")
    helm(cluster, "default-values", "rollback", "adaptd", "1", "--timeout=150s")
    say("ok  upgrade to every value set, and rollback")


def plain(cluster: Cluster) -> None:
    """Applies each plain manifest in a namespace of its own."""
    for name in PLAIN:
        namespace = f"plain-{Path(name).stem}"
        make_namespace(cluster, namespace)
        words = ("apply", "-n", namespace, "--validate=strict", "-f", str(KUBERNETES / name))
        no_warnings(cluster.kubectl(*words))
        kinds = {manifest["kind"] for manifest in documents((KUBERNETES / name).read_text())}
        if kinds & {"Deployment", "Job"}:
            wait_for(lambda ns=namespace: bool(cluster.items("pods", ns)), f"pods of {name}")  # type: ignore[misc]
        say(f"ok  plain {name}: {', '.join(sorted(kinds))}")


def refuse(cluster: Cluster) -> None:
    """Proves that faults are refused: unknown fields, wrong types, pods with privileges."""
    everything = documents(render("--values", str(EVERYTHING)))
    by_kind = {each["kind"]: each for each in everything}
    make_namespace(cluster, "faults")
    for what, (kind, named, spoil) in FAULTS.items():
        manifest = deepcopy(by_kind[kind])
        spoil(manifest)
        words = ("apply", "-n", "faults", "--validate=strict", "-f", "-")
        try:
            cluster.kubectl(*words, given=yaml.safe_dump(manifest))
        except Refused as e:
            if named not in str(e):
                raise
            say(f"ok  refused: {what}")
        else:
            raise Wrong(f"{what} was not refused")


def workers(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    """Returns the workers' pods that are not about to go."""
    label = "app.kubernetes.io/component"
    return [
        pod
        for pod in cluster.items("pods", namespace)
        if pod["metadata"]["labels"][label] == "worker"
        and "deletionTimestamp" not in pod["metadata"]
    ]


def no_warnings(said: str) -> None:
    """Raises Wrong when the API server warned of something."""
    warned = [line for line in said.splitlines() if re.search("warn|would violate", line, re.I)]
    if warned:
        raise Wrong(f"the API server warned: {warned}")


def main() -> None:
    """Runs every check."""
    began = time.monotonic()
    try:
        with control_plane() as cluster:
            version = json.loads(cluster.kubectl("get", "--raw", "/version"))["gitVersion"]
            say(f"    API server {version} ready after {time.monotonic() - began:.0f} s")
            for check in (install, roll, evict, upgrade, plain, refuse):
                check(cluster)
    except (CannotTry, NoTool, ServicesUnavailable) as e:
        say(f"cluster-check: {e}")
        sys.exit(2)
    except (Wrong, Refused) as e:
        say(f"cluster-check: wrong: {e}")
        sys.exit(1)
    say(f"cluster-check: all well, in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
