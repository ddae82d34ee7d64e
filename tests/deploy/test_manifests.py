"""The manifests are valid, and agree with the settings, the daemon and each other."""

from __future__ import annotations

import os
import re
from pathlib import Path
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
from deploy.prometheus.queries import DEPLOY, all_rules
from tests.deploy.custom_resources import SCHEMAS

KUBERNETES = DEPLOY / "kubernetes"
VERSIONS = ("1.27", "1.31", kubernetes_validate.latest_version())
COMPUTE_S = 10.0
"""Allowed for encoding and adapting the largest turn."""


def documents(*folders: str) -> dict[Path, dict[str, Any]]:
    """The manifests of these folders, or all of them, without kustomize's own files."""
    found = {}
    for folder in folders or ("",):
        for path in sorted((KUBERNETES / folder).rglob("*.yaml")):
            loaded = yaml.safe_load(path.read_text())
            if isinstance(loaded, dict) and loaded["kind"] != "Kustomization":
                found[path] = loaded
    return found


def one(name: str) -> dict[str, Any]:
    """The manifest in this file."""
    loaded: dict[str, Any] = yaml.safe_load((KUBERNETES / name).read_text())
    return loaded


def worker() -> dict[str, Any]:
    """The Deployment's pod."""
    pod: dict[str, Any] = one("base/deployment.yaml")["spec"]["template"]["spec"]
    return pod


def container() -> dict[str, Any]:
    """The Deployment's one container."""
    (found,) = worker()["containers"]
    return dict(found)


def bytes_of(quantity: str) -> int:
    """A memory quantity in bytes."""
    number, unit = re.fullmatch(r"(\d+)([KMG]i)", quantity).groups()  # type: ignore[union-attr]
    return int(number) << 10 * (1 + "KMG".index(unit[0]))


WHOLE = documents("base", "monitoring", "topics")


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_each_manifest_is_valid(path: Path) -> None:
    manifest = WHOLE[path]
    if manifest["kind"] in SCHEMAS:
        jsonschema.validate(manifest, SCHEMAS[manifest["kind"]])
    else:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_an_unknown_field_is_refused() -> None:
    manifest = one("base/deployment.yaml")
    manifest["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
    monitor = one("monitoring/podmonitor.yaml")
    monitor["spec"]["podMetricsEndpoints"][0]["intervall"] = "15s"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor, SCHEMAS["PodMonitor"])


@pytest.mark.parametrize(
    "path",
    sorted([*KUBERNETES.rglob("kustomization.yaml"), *DEPLOY.glob("grafana/kustomization.yaml")]),
    ids=lambda path: path.parent.name,
)
def test_kustomize_names_every_file_beside_it_and_no_other(path: Path) -> None:
    kustomization = yaml.safe_load(path.read_text())
    named = set(kustomization.get("resources", []))
    named |= {patch["path"] for patch in kustomization.get("patches", [])}
    for generator in kustomization.get("configMapGenerator", []):
        named |= set(generator["files"])
    for name in named:
        there = path.parent / name
        assert there.is_file() or (there / "kustomization.yaml").is_file(), name
    beside = {p.name for p in path.parent.glob("*.yaml")} - {path.name}
    assert beside <= named


def test_no_manifest_chooses_a_namespace() -> None:
    for path, manifest in documents().items():
        assert "namespace" not in manifest["metadata"], path


def test_the_grace_period_fits_the_longest_turn() -> None:
    grace_s = worker()["terminationGracePeriodSeconds"]
    assert grace_s >= longest_turn_s(Settings.model_construct())
    sum_in_comment = re.search(
        r"which is ([\d.]+) s", (KUBERNETES / "base/deployment.yaml").read_text()
    )
    assert sum_in_comment
    assert float(sum_in_comment[1]) == longest_turn_s(Settings.model_construct())


def test_a_turn_may_take_as_long_as_it_needs_before_the_grace_period_ends() -> None:
    config_map = yaml.safe_load((KUBERNETES / "base/configmap.yaml").read_text())
    stop_timeout_s = float(config_map["data"]["ADAPTD_STOP_TIMEOUT_S"])
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
    data = one("base/configmap.yaml")["data"] | one("overlays/cuda/configmap.yaml")["data"]
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    settings = config.load_settings(None)
    assert settings.http_port == container()["ports"][0]["containerPort"]
    for name in data:
        assert name.removeprefix(config.PREFIX).lower() in Settings.model_fields


def test_no_secret_stands_in_the_configmap() -> None:
    data = one("base/configmap.yaml")["data"]
    secrets = {name for name in Settings.model_fields if config.is_secret(name)}
    in_the_open = {name.removeprefix(config.PREFIX).lower() for name in data} & secrets
    assert in_the_open == {"redis_url"}
    assert "@" not in data["ADAPTD_REDIS_URL"]


def test_the_secret_wins_over_the_configmap_and_may_be_absent() -> None:
    configmap, secret = container()["envFrom"]
    assert configmap["configMapRef"]["name"] == one("base/configmap.yaml")["metadata"]["name"]
    assert secret["secretRef"]["optional"] is True


def test_the_probes_ask_for_paths_that_exist() -> None:
    asked = {name: container()[name]["httpGet"] for name in PROBES}
    assert {name: get["path"] for name, get in asked.items()} == PROBES
    assert {get["port"] for get in asked.values()} == {container()["ports"][0]["name"]}
    served = (DEPLOY.parent / "daemon" / "worker" / "http.py").read_text()
    for path in {
        *PROBES.values(),
        one("monitoring/podmonitor.yaml")["spec"]["podMetricsEndpoints"][0]["path"],
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
    assert one("base/deployment.yaml")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


@pytest.mark.parametrize("name", ["base/deployment.yaml", "topics/job.yaml"])
def test_pods_may_do_nothing_that_they_need_not(name: str) -> None:
    pod = one(name)["spec"]["template"]["spec"]
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
    threads = one("base/configmap.yaml")["data"]["ADAPTD_TORCH_THREADS"]
    assert 0 < int(threads) <= int(container()["resources"]["limits"]["cpu"])


def test_the_memory_alert_knows_the_limit() -> None:
    rule = next(r for r in all_rules() if r.get("record") == "adaptd:memory_limit_bytes")
    limit = container()["resources"]["limits"]["memory"]
    assert rule["expr"] == f"vector({bytes_of(limit)})"


def test_the_cuda_overlay_asks_for_a_gpu_and_moves_the_memory_alert() -> None:
    pod = one("overlays/cuda/deployment.yaml")["spec"]["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    test, replace = yaml.safe_load((KUBERNETES / "overlays/cuda/memory-limit.yaml").read_text())
    first = one("monitoring/prometheusrule.yaml")["spec"]["groups"][0]["rules"][0]
    assert test["value"] == first["record"] == "adaptd:memory_limit_bytes"
    assert replace["path"] == "/spec/groups/0/rules/0/expr"
    assert replace["value"] == f"vector({bytes_of(limits['memory'])})"


def test_all_selectors_select_the_worker() -> None:
    labels = one("base/deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    spread = [c["labelSelector"] for c in worker()["topologySpreadConstraints"]]
    others = [
        one("base/deployment.yaml")["spec"]["selector"],
        one("base/poddisruptionbudget.yaml")["spec"]["selector"],
        one("base/networkpolicy.yaml")["spec"]["podSelector"],
        one("monitoring/podmonitor.yaml")["spec"]["selector"],
    ]
    assert all(selector == {"matchLabels": labels} for selector in [*spread, *others])
    assert one("monitoring/podmonitor.yaml")["spec"]["jobLabel"] in labels


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
