"""The manifests are valid, and agree with the settings, the daemon and each other."""

from __future__ import annotations

import os
import re
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import kubernetes_validate  # type: ignore[import-untyped, unused-ignore]
import pytest
import yaml

from daemon import config
from daemon.adapters.kafka_limits import CLOSE_TIMEOUT_S
from daemon.config import Settings
from daemon.errors import Misconfigured
from daemon.thetas import follow as following
from daemon.turn.policy import IDLE_WAIT_S
from deploy.helm.render import KUBERNETES, documents
from deploy.prometheus.queries import DEPLOY
from tests.deploy.custom_resources import SCHEMAS

VERSIONS = ("1.27", "1.31", kubernetes_validate.latest_version())
COMPUTE_S = 10.0
"""Allowed for encoding and adapting the largest turn."""


def manifests(name: str) -> dict[str, dict[str, Any]]:
    """The manifests of a file, by kind; of several of one kind, the first."""
    found: dict[str, dict[str, Any]] = {}
    for manifest in documents((KUBERNETES / name).read_text()):
        found.setdefault(manifest["kind"], manifest)
    return found


def one(name: str, kind: str) -> dict[str, Any]:
    """The manifest of this kind in this file."""
    return manifests(name)[kind]


def worker() -> dict[str, Any]:
    """The Deployment's pod."""
    pod: dict[str, Any] = one("base.yaml", "Deployment")["spec"]["template"]["spec"]
    return pod


def container() -> dict[str, Any]:
    """The Deployment's one container."""
    (found,) = worker()["containers"]
    return dict(found)


WHOLE = {
    f"{path.stem} {manifest['kind']} {manifest['metadata']['name']}": manifest
    for path in sorted(KUBERNETES.glob("*.yaml"))
    for manifest in documents(path.read_text())
    if "metadata" in manifest  # kustomization.yaml has none
}


@pytest.mark.parametrize("name", WHOLE)
def test_each_manifest_is_valid(name: str) -> None:
    manifest = WHOLE[name]
    if manifest["kind"] in SCHEMAS:
        jsonschema.validate(manifest, SCHEMAS[manifest["kind"]])
    else:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_an_unknown_field_is_refused() -> None:
    manifest = one("base.yaml", "Deployment")
    manifest["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
    monitor = one("monitoring.yaml", "PodMonitor")
    monitor["spec"]["podMetricsEndpoints"][0]["intervall"] = "15s"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor, SCHEMAS["PodMonitor"])


def test_kustomize_names_files_that_exist() -> None:
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    assert all((KUBERNETES / name).exists() for name in kustomization["resources"])


def test_no_manifest_chooses_a_namespace() -> None:
    assert not any("namespace" in manifest["metadata"] for manifest in WHOLE.values())


def test_plain_manifests_have_nothing_that_only_helm_reads() -> None:
    for path in KUBERNETES.glob("*.yaml"):
        assert "helm.sh" not in path.read_text(), path


def test_the_grace_period_fits_the_longest_turn() -> None:
    grace_s = worker()["terminationGracePeriodSeconds"]
    assert grace_s >= longest_turn_s(Settings.model_construct())


def test_a_turn_may_take_as_long_as_it_needs_before_the_grace_period_ends() -> None:
    stop_timeout_s = float(one("base.yaml", "ConfigMap")["data"]["ADAPTD_STOP_TIMEOUT_S"])
    grace_s = worker()["terminationGracePeriodSeconds"]
    assert longest_turn_s(Settings.model_construct()) <= stop_timeout_s < grace_s


def longest_turn_s(settings: Settings) -> float:
    """A turn in which each wait ends just before its timeout, and leaving the group after it."""
    kafka_s, redis_s = settings.kafka_timeout_ms / 1000, settings.redis_timeout_ms / 1000
    poll_s = IDLE_WAIT_S + kafka_s + redis_s  # with a claim of new partitions
    slide_s = 2 * redis_s
    publish_s = redis_s + kafka_s + settings.kafka_delivery_timeout_ms / 1000 + 1
    commit_s = kafka_s + redis_s
    house_s = kafka_s + redis_s
    following_s = following.CLOSE_TIMEOUT_S + CLOSE_TIMEOUT_S
    leave_s = CLOSE_TIMEOUT_S + CLOSE_TIMEOUT_S + 2 + following_s
    return poll_s + COMPUTE_S + slide_s + publish_s + commit_s + house_s + leave_s


def test_the_configmaps_settings_load(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(config.PREFIX)]:
        monkeypatch.delenv(name)
    data = one("base.yaml", "ConfigMap")["data"] | one("cuda.yaml", "ConfigMap")["data"]
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    settings = config.load_settings(None)
    assert settings.http_port == container()["ports"][0]["containerPort"]
    for name in data:
        assert name.removeprefix(config.PREFIX).lower() in Settings.model_fields


def test_no_secret_stands_in_the_configmap() -> None:
    data = one("base.yaml", "ConfigMap")["data"]
    secrets = {name for name in Settings.model_fields if config.is_secret(name)}
    in_the_open = {name.removeprefix(config.PREFIX).lower() for name in data} & secrets
    assert in_the_open == {"redis_url"}
    assert "@" not in data["ADAPTD_REDIS_URL"]


def test_the_secret_wins_over_the_configmap_and_may_be_absent() -> None:
    configmap, secret = container()["envFrom"]
    assert configmap["configMapRef"]["name"] == one("base.yaml", "ConfigMap")["metadata"]["name"]
    assert secret["secretRef"]["optional"] is True


def test_the_probes_ask_for_paths_that_exist() -> None:
    asked = {name: container()[name]["httpGet"] for name in PROBES}
    assert {name: get["path"] for name, get in asked.items()} == PROBES
    assert {get["port"] for get in asked.values()} == {container()["ports"][0]["name"]}
    served = (DEPLOY.parent / "daemon" / "worker" / "http.py").read_text()
    for path in {
        *PROBES.values(),
        one("monitoring.yaml", "PodMonitor")["spec"]["podMetricsEndpoints"][0]["path"],
    }:
        assert f'case "{path}"' in served


PROBES = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}


def test_a_longest_turn_outlives_no_liveness_probe() -> None:
    probe = container()["livenessProbe"]
    settings = Settings.model_construct()
    allowed_s = (
        settings.liveness_max_age_s + (probe["failureThreshold"] - 1) * probe["periodSeconds"]
    )
    assert allowed_s > longest_turn_s(settings)


def test_a_rollout_never_doubles_the_group() -> None:
    assert one("base.yaml", "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [("base.yaml", "Deployment"), ("cuda.yaml", "Deployment"), ("topics.yaml", "Job")],
)
def test_pods_may_do_nothing_that_they_need_not(name: str, kind: str) -> None:
    pod = one(name, kind)["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_service_named_adaptd_would_set_unknown_settings() -> None:
    with pytest.raises(Misconfigured, match="ADAPTD_PORT"):
        config.load_settings(None, {"ADAPTD_PORT": "tcp://10.0.0.1:9464"})


def test_torch_has_no_more_threads_than_the_container_has_cores() -> None:
    threads = one("base.yaml", "ConfigMap")["data"]["ADAPTD_TORCH_THREADS"]
    assert 0 < int(threads) <= int(container()["resources"]["limits"]["cpu"])


def test_the_cuda_manifests_ask_for_a_gpu_and_say_so() -> None:
    pod = one("cuda.yaml", "Deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["containers"][0]["image"].endswith("-cuda")
    # not auto: a worker that was promised a GPU must not run without one in silence
    assert one("cuda.yaml", "ConfigMap")["data"]["ADAPTD_DEVICE"] == "cuda"


def test_all_selectors_select_the_worker() -> None:
    labels = one("base.yaml", "Deployment")["spec"]["template"]["metadata"]["labels"]
    spread = [c["labelSelector"] for c in worker()["topologySpreadConstraints"]]
    others = [
        one("base.yaml", "Deployment")["spec"]["selector"],
        one("base.yaml", "PodDisruptionBudget")["spec"]["selector"],
        one("monitoring.yaml", "PodMonitor")["spec"]["selector"],
    ]
    assert all(selector == {"matchLabels": labels} for selector in [*spread, *others])
    assert one("monitoring.yaml", "PodMonitor")["spec"]["jobLabel"] in labels
    component = labels.pop("app.kubernetes.io/component")
    policy = one("base.yaml", "NetworkPolicy")["spec"]["podSelector"]
    assert policy["matchLabels"] == labels
    (expression,) = policy["matchExpressions"]
    assert component in expression["values"]


def test_the_image_and_the_pod_agree() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    user = worker()["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}" in dockerfile
    assert f"EXPOSE {container()['ports'][0]['containerPort']}" in dockerfile
    for name in re.findall(r"(ADAPTD_[A-Z_]+)=", dockerfile):
        assert name.removeprefix(config.PREFIX).lower() in Settings.model_fields


def test_the_images_context_holds_what_is_copied() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    kept = set(re.findall(r"^!(\S+)", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.M))
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.M)
    assert {name for names in copied for name in names.split()} == kept
