"""A Kubernetes control plane on this machine: store, API server, controllers and scheduler.

All four are one program, built from deploy/check/plane with Go (ten minutes of CPU time, once).
There is no kubelet: nodes and what pods do are made up, see `Cluster.play_kubelet`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from daemon.local.folders import new_data_folder
from daemon.local.server import Server, free_port
from deploy.check.go import go_program
from deploy.helm.tools import ROOT, tool

SOURCE = ROOT / "deploy" / "check" / "plane"
CRDS = ROOT / "deploy" / "check" / "crds.json"
NODES = ("node-a", "node-b")

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "https://{address}", insecure-skip-tls-verify: true}}}}]
users: [{{name: u, user: {{token: {token}}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""


class Refused(Exception):
    """The API server refused something; the message is what kubectl or helm said."""


def built_plane() -> str:
    """Returns the path of the control plane, which says the version that go.mod names. Raises
    CannotTry."""
    wanted = re.search(r"k8s.io/kubernetes (v[\d.]+)", (SOURCE / "go.mod").read_text())
    assert wanted
    version = f"k8s.io/component-base/version.gitVersion={wanted[1]}"
    return str(go_program(SOURCE, "-trimpath", f"-ldflags=-s -w -X {version}"))


class Cluster:
    """A running control plane, as kubectl and helm reach it."""

    def __init__(self, kubeconfig: Path) -> None:
        self.environment = dict(os.environ) | {"KUBECONFIG": str(kubeconfig)}
        self._kubectl = tool("kubectl")

    def kubectl(self, *words: str, given: str | None = None) -> str:
        """Runs kubectl and returns what it printed, warnings too. Raises Refused."""
        done = subprocess.run(
            [self._kubectl, *words],
            input=given,
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
        )
        if done.returncode != 0:
            raise Refused(done.stderr.strip() or done.stdout.strip())
        return done.stdout + done.stderr

    def items(self, kind: str, namespace: str) -> list[dict[str, Any]]:
        """Returns all objects of a kind in a namespace."""
        found = json.loads(self.kubectl("get", kind, "-n", namespace, "-o", "json"))
        items: list[dict[str, Any]] = found["items"]
        return items

    def add_nodes(self) -> None:
        """Makes two nodes that are ready and have room."""
        room = {"cpu": "64", "memory": "256Gi", "pods": "100", "ephemeral-storage": "100Gi"}
        for zone, name in enumerate(NODES):
            labels = {
                "kubernetes.io/hostname": name,
                "topology.kubernetes.io/zone": f"zone-{zone}",
            }
            metadata = {"name": name, "labels": labels}
            node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
            self.kubectl("apply", "-f", "-", given=json.dumps(node))
            ready = {"type": "Ready", "status": "True", "reason": "MadeUp"}
            status = {"capacity": room, "allocatable": room, "conditions": [ready]}
            self._patch_status("node", name, status)
        self.kubectl("taint", "nodes", "--all", "node.kubernetes.io/not-ready-")

    def play_kubelet(self, namespace: str) -> None:
        """Does once what nodes would do: pods become ready, commands succeed, deleted pods go."""
        for pod in self.items("pods", namespace):
            name, spec, phase = pod["metadata"]["name"], pod["spec"], pod["status"].get("phase")
            words = ("-n", namespace)
            if "deletionTimestamp" in pod["metadata"]:
                at_once = ("--ignore-not-found", "--force", "--grace-period=0")
                self.kubectl("delete", "pod", name, *words, *at_once)
            elif "nodeName" in spec and phase == "Pending":
                succeeds = spec["restartPolicy"] == "Never"
                with gone_meanwhile():
                    self._patch_status("pod", name, pod_status(pod, succeeds), *words)

    def _patch_status(self, kind: str, name: str, status: dict[str, Any], *words: str) -> None:
        patch = json.dumps({"status": status})
        self.kubectl("patch", kind, name, *words, "--subresource=status", "-p", patch)


@contextmanager
def gone_meanwhile() -> Iterator[None]:
    """Lets pass that a controller has deleted a pod since it was listed."""
    try:
        yield
    except Refused as e:
        if "NotFound" not in str(e):
            raise


def pod_status(pod: dict[str, Any], succeeds: bool) -> dict[str, Any]:
    """Returns the status of a pod that runs and is ready, or that has done its work."""
    at = pod["metadata"]["creationTimestamp"]
    ready = "False" if succeeds else "True"
    state = {"running": {"startedAt": at}}
    if succeeds:
        state = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": at}}
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "made-up",
            "ready": not succeeds,
            "restartCount": 0,
            "state": state,
        }
        for container in pod["spec"]["containers"]
    ]
    return {
        "phase": "Succeeded" if succeeds else "Running",
        "startTime": at,
        "conditions": [
            {"type": kind, "status": ready, "lastTransitionTime": at}
            for kind in ("Ready", "ContainersReady")
        ],
        "containerStatuses": containers,
    }


@contextmanager
def control_plane() -> Iterator[Cluster]:
    """Runs a control plane with two nodes and the custom resources, until the block ends.

    Raises CannotTry, NoTool, ServicesUnavailable.
    """
    program = built_plane()
    folder = new_data_folder("kubernetes")
    keys, token = folder.path / "keys", secrets.token_hex(16)
    keys.mkdir()
    key, tokens, kubeconfig = keys / "sa.key", keys / "tokens.csv", keys / "kubeconfig"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    tokens.write_text(f'{token},admin,admin,"system:masters"\n')
    store, peer, api = (f"127.0.0.1:{free_port()}" for _ in range(3))
    kubeconfig.write_text(KUBECONFIG.format(address=api, token=token))
    cluster = Cluster(kubeconfig)
    commands = {
        "etcd": [
            *(program, "etcd", f"--data-dir={folder.path}/etcd", "--unsafe-no-fsync"),
            *(f"--listen-client-urls=http://{store}", f"--advertise-client-urls=http://{store}"),
            *(f"--listen-peer-urls=http://{peer}", f"--initial-cluster=default=http://{peer}"),
            *(f"--initial-advertise-peer-urls=http://{peer}", "--log-level=error"),
        ],
        "API server": [
            *(program, "apiserver", f"--etcd-servers=http://{store}", "--bind-address=127.0.0.1"),
            *(f"--secure-port={api.rpartition(':')[2]}", f"--cert-dir={keys}"),
            *(f"--token-auth-file={tokens}", "--authorization-mode=RBAC"),
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            *(
                "--service-account-issuer=https://adaptd.test",
                "--service-cluster-ip-range=10.0.0.0/24",
            ),
        ],
        "controllers": [
            *(program, "controllers", f"--kubeconfig={kubeconfig}", "--secure-port=0"),
            *(f"--service-account-private-key-file={key}", "--leader-elect=false"),
            *(
                "--use-service-account-credentials=false",
                "--controllers=*,-node-lifecycle-controller",
            ),
        ],
        "scheduler": [
            *(program, "scheduler", f"--kubeconfig={kubeconfig}", "--secure-port=0"),
            "--leader-elect=false",
        ],
    }

    def answers() -> bool:
        try:
            return bool(cluster.kubectl("get", "--raw", "/readyz"))
        except Refused:
            return False

    with ExitStack() as stack:
        for name, command in commands.items():
            stack.enter_context(
                Server(
                    name=name,
                    address=api,
                    command=command,
                    folder=folder if name == "etcd" else new_data_folder("kubernetes"),
                    answers=answers if name == "API server" else lambda: True,
                    start_timeout_s=180.0,
                )
            )
        cluster.kubectl("apply", "-f", str(CRDS))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        cluster.add_nodes()
        yield cluster
