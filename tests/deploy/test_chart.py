"""The chart: what it renders, what it refuses, and what is made from it. Helm's own words count."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon import config
from daemon.config import Settings
from deploy.helm import readme, schema
from deploy.helm.render import CHART, Refused, documents, plain_manifests, render
from tests.deploy.test_manifests import longest_turn_s

EVERYTHING = Path(__file__).with_name("everything.yaml")


def values(tmp_path: Path, given: dict[str, Any]) -> list[str]:
    """Words for helm that give it these values."""
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(given))
    return ["--values", str(file)]


def rendered(tmp_path: Path, **given: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """The manifests that helm makes with these values, by kind and name."""
    found = documents(render(*values(tmp_path, given)))
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def pod(tmp_path: Path, **given: Any) -> dict[str, Any]:
    """The Deployment's pod with these values."""
    deployment = rendered(tmp_path, **given)["Deployment", "adaptd"]
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def settings_of(tmp_path: Path, **given: Any) -> dict[str, str]:
    """The ConfigMap's variables with these values."""
    data: dict[str, str] = rendered(tmp_path, **given)["ConfigMap", "adaptd"]["data"]
    return data


# ---- what is made from it


def test_the_schema_is_that_of_the_settings() -> None:
    assert (CHART / "values.schema.json").read_text() == schema.text(), "make chart"


def test_the_readme_is_that_of_the_values() -> None:
    assert (CHART / "README.md").read_text() == readme.text(), "make chart"
    assert [value.path for value in readme.values() if not value.path] == []


@pytest.mark.usefixtures("helm")
def test_the_plain_manifests_are_what_the_chart_renders() -> None:
    for path, text in plain_manifests():
        assert path.read_text() == text, f"{path.name}: make chart"


@pytest.mark.usefixtures("helm")
def test_the_image_tag_is_the_projects_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (CHART.parents[1] / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project


# ---- settings


SAMPLES: dict[str, Any] = {
    "kafka_client": "librdkafka",
    "kafka_bootstrap_servers": "a:9092,b:9093",
    "kafka_security_protocol": "SSL",
    "kafka_offset_reset": "latest",
    "kafka_timeout_ms": 6_000,
    "meta_init": "/theta/mine.safetensors",
    "meta_init_max_bytes": 268_435_456,
    "source_dim": 512,
    "target_modality": "text",
    "rebuild_windows": False,
    "max_resident_streams": 10_000_000,
    "window_memory_mib": 1_024,
    "liveness_max_age_s": 90.5,
    "stop_timeout_s": 89.25,
    "mapping_dtype": "float16",
    "log_level": "debug",
}
"""Values of every type, large ones among them: helm must not write 1e+07."""


@pytest.mark.usefixtures("helm")
def test_settings_of_every_type_reach_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(config.PREFIX)]:
        monkeypatch.delenv(name)
    data = settings_of(tmp_path, settings=SAMPLES, terminationGracePeriodSeconds=120)
    loaded = config.load_settings(None, data)
    for name, value in SAMPLES.items():
        got = getattr(loaded, name)
        assert (str(got) if isinstance(got, Path) else got) == value, name


@pytest.mark.usefixtures("helm")
def test_a_changed_setting_rolls_the_workers_and_nothing_else_does(tmp_path: Path) -> None:
    def checksum(**given: Any) -> str:
        deployment = rendered(tmp_path, **given)["Deployment", "adaptd"]
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum() != checksum(settings={"max_batch": 128})
    assert checksum() == checksum(replicas=3)


# ---- refusals


@pytest.mark.usefixtures("helm")
@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"replica": 3}, "replica"),
        ({"replicas": "three"}, "/replicas"),
        ({"replicas": 2.5}, "/replicas"),
        ({"settings": {"exactly_once": True}}, "exactly_once"),
        ({"settings": {"max_batch": "many"}}, "/settings/max_batch"),
        ({"settings": {"max_batch": 0}}, "/settings/max_batch"),
        ({"settings": {"kafka_client": "sarama"}}, "/settings/kafka_client"),
        ({"settings": {"kafka_bootstrap_servers": "kafka"}}, "/settings/kafka_bootstrap_servers"),
        ({"settings": {"http_port": None}}, "http_port"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"resources": {"limits": {"memory": "2 GB"}}}, "/resources/limits/memory"),
        ({"resources": {"limit": {"memory": "2Gi"}}}, "limit"),
        ({"tls": {"kafka": {"secretName": "x"}}}, "secretName"),
        ({"extraEnv": [{"value": "1"}]}, "/extraEnv/0"),
        ({"profile": "rocm"}, "/profile"),
        ({"podMonitor": {"interval": 15}}, "/podMonitor/interval"),
        ({"networkPolicy": {"kafka": {"ports": [{"port": 99_999}]}}}, "/networkPolicy/kafka/ports"),
    ],
)
def test_unknown_and_ill_typed_values_are_refused_by_path(
    tmp_path: Path, given: dict[str, Any], path: str
) -> None:
    with pytest.raises(Refused) as refused:
        render(*values(tmp_path, given))
    said = str(refused.value)
    assert path in said or path.strip("/").replace("/", ".") in said  # Helm 4, Helm 3


SASL = {"kafka_security_protocol": "SASL_SSL"}
TLS_URL = {"settings": {"redis_url": "redis://r:6379/0"}, "tls": {"redis": {"secret": "s"}}}


@pytest.mark.usefixtures("helm")
@pytest.mark.parametrize(
    ("given", "path", "remedy"),
    [
        ({"replicas": 9}, "replicas", "Lower it"),
        ({"autoscaling": {"enabled": True, "maxReplicas": 9}}, "autoscaling.maxReplicas", "Lower"),
        (
            {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}},
            "autoscaling.minReplicas",
            "Lower",
        ),
        (
            {"autoscaling": {"enabled": True}, "settings": {"publish_interval_ms": 60_000}},
            "autoscaling.pollingInterval",
            "Set it to more than 61",
        ),
        (
            {"autoscaling": {"enabled": True, "lagSeconds": 30}},
            "autoscaling.lagSeconds",
            "lagSeconds to 0",
        ),
        (
            {
                "autoscaling": {"enabled": True},
                "settings": {"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": "u", **SASL},
            },
            "autoscaling.authenticationRef",
            "Name a TriggerAuthentication",
        ),
        (
            {"terminationGracePeriodSeconds": 85},
            "terminationGracePeriodSeconds",
            "Set it to 90",
        ),
        (
            {"settings": {"kafka_timeout_ms": 6_000}},
            "settings.stop_timeout_s",
            "Set it to 86",
        ),
        (
            {"settings": {"redis_timeout_ms": 60_000, "stop_timeout_s": 3_600}},
            "settings.liveness_max_age_s",
            "Raise it",
        ),
        (
            {"probes": {"liveness": {"failureThreshold": 1}}},
            "probes.liveness",
            "Raise failureThreshold",
        ),
        ({"settings": {"min_support": 33}}, "settings.min_support", "Lower it"),
        (
            {"settings": {"kafka_max_poll_interval_ms": 80_000}},
            "settings.kafka_max_poll_interval_ms",
            "Raise it",
        ),
        (
            {"settings": {"kafka_sasl_mechanism": "OAUTHBEARER", **SASL}},
            "settings.kafka_sasl_mechanism",
            "settings.kafka_oauth_token_provider",
        ),
        (
            {
                "settings": {
                    "kafka_session_timeout_ms": 150_000,
                    "kafka_max_poll_interval_ms": 140_000,
                }
            },
            "settings.kafka_session_timeout_ms",
            "Lower it",
        ),
        (
            {"settings": {"kafka_delivery_timeout_ms": 5_000}},
            "settings.kafka_delivery_timeout_ms",
            "at least 5005",
        ),
        (
            {"settings": {"kafka_max_poll_records": 10_000}},
            "settings.max_pairs_per_event",
            "Lower one",
        ),
        (
            {"settings": {"kafka_bootstrap_servers": "a:9092,b:19092"}},
            "networkPolicy.kafka.ports",
            "port 19092",
        ),
        (
            {"settings": {"redis_url": "redis://r:16379/0"}},
            "networkPolicy.redis.ports",
            "port 16379",
        ),
        (
            {"podMonitor": {"interval": "1m", "scrapeTimeout": "1m30s"}},
            "podMonitor.scrapeTimeout",
            "Lower it",
        ),
        (
            {"prometheusRule": {"disabled": ["AdaptdAbsend"]}},
            "prometheusRule.disabled",
            "Correct the name",
        ),
        ({"podLabels": {"app.kubernetes.io/name": "x"}}, "podLabels", "Leave it out"),
        ({"settings": {"tracing": True}}, "networkPolicy.extraEgress", "OTEL_EXPORTER"),
        ({"settings": {"device": "cuda"}}, "settings.device", "Set profile to cuda"),
        ({"profile": "cuda", "settings": {"device": "cpu"}}, "settings.device", "profile to cpu"),
        ({"settings": {"torch_threads": 4}}, "settings.torch_threads", "Raise the limit"),
        ({"settings": {"window_memory_mib": 2_048}}, "settings.window_memory_mib", "enable spill"),
        ({"settings": {"torch_threads": 0}}, "settings.torch_threads", "at most that"),
        ({"tls": {"kafka": {"secret": "s"}}}, "tls.kafka.secret", "Set it to SSL"),
        ({"tls": {"redis": {"secret": "s", "cert": "c"}}}, "tls.redis", "both or neither"),
        ({"tls": {"redis": {"cert": "c", "key": "k"}}}, "tls.redis.secret", "Name the Secret"),
        (TLS_URL, "settings.redis_url", "rediss://"),
        (
            {"settings": {"kafka_security_protocol": "SASL_SSL"}},
            "settings.kafka_security_protocol",
            "settings.kafka_sasl_mechanism",
        ),
        (
            {"settings": {"kafka_sasl_password": "x"}},
            "settings.kafka_sasl_password",
            "into the Secret",
        ),
        (
            {"settings": {"redis_url": "redis://:x@r:6379/0"}},
            "settings.redis_url",
            "into the Secret",
        ),
        ({"settings": {"instance": "a"}}, "settings.instance", "Leave it out"),
        ({"spill": {"enabled": True}}, "resources.limits.ephemeral-storage", "spill.kind to claim"),
        (
            {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}},
            "serviceMonitor.enabled",
            "Choose one",
        ),
    ],
)
def test_contradictions_are_refused_with_what_to_do(
    tmp_path: Path, given: dict[str, Any], path: str, remedy: str
) -> None:
    with pytest.raises(Refused) as refused:
        render(*values(tmp_path, given))
    (line,) = (li for li in str(refused.value).splitlines() if li.startswith(f"- {path}:"))
    assert remedy in line


@pytest.mark.usefixtures("helm")
@pytest.mark.parametrize(
    "given",
    [
        {"networkPolicy": {"enabled": False}, "settings": {"redis_url": "redis://r:1/0"}},
        {"networkPolicy": {"extraEgress": [{}]}, "settings": {"redis_url": "redis://r:1/0"}},
        {
            "networkPolicy": {"redis": {"ports": [{"port": 1}]}},
            "settings": {"redis_url": "redis://r:1"},
        },
        {"settings": {"redis_url": "redis://redis"}},
        {"settings": {"redis_url": None}},
        {
            "settings": {
                "kafka_sasl_mechanism": "OAUTHBEARER",
                "kafka_oauth_token_provider": "tokens:give",
                **SASL,
            }
        },
        {"secret": {"name": "s"}, "settings": {"kafka_sasl_mechanism": "PLAIN", **SASL}},
        {"replicas": 8},
        {"replicas": 0},
        {
            "settings": {"window_memory_mib": 2_048},
            "spill": {"enabled": True, "kind": "claim"},
        },
        {"autoscaling": {"enabled": True}, "replicas": 9},
        {"resources": {"limits": {"cpu": "500m"}}},
        {"resources": {"limits": {"cpu": None}}, "settings": {"torch_threads": 0}},
        {"resources": {"limits": {"cpu": 4}}, "settings": {"torch_threads": 4}},
        {"podMonitor": {"enabled": True, "interval": "10s", "scrapeTimeout": "10s"}},
    ],
    ids=str,
)
def test_values_that_only_look_contradictory_are_taken(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    assert rendered(tmp_path, **given)


@pytest.mark.usefixtures("helm")
def test_the_longest_turn_is_the_daemons(tmp_path: Path) -> None:
    timeouts = {"kafka_timeout_ms": 7_000, "redis_timeout_ms": 2_000}
    turn_s = longest_turn_s(Settings.model_construct(**timeouts))  # type: ignore[arg-type]
    with pytest.raises(Refused, match=f"shorter than the longest turn, {turn_s:g} s"):
        render(*values(tmp_path, {"settings": timeouts | {"stop_timeout_s": 10}}))


# ---- what users of charts ask for


@pytest.mark.usefixtures("helm")
def test_tls_files_are_mounted_from_secrets_and_named_to_the_daemon(tmp_path: Path) -> None:
    given = {
        "settings": {
            "kafka_security_protocol": "SSL",
            "redis_url": "rediss://r:6380/0?protocol=3",
        },
        "tls": {
            "kafka": {"secret": "k", "ca": "root.pem", "cert": "tls.crt", "key": "tls.key"},
            "redis": {"secret": "r"},
        },
    }
    found = rendered(tmp_path, **given)
    data = found["ConfigMap", "adaptd"]["data"]
    assert data["ADAPTD_KAFKA_SSL_CAFILE"] == "/tls/kafka/root.pem"
    assert data["ADAPTD_KAFKA_SSL_CERTFILE"] == "/tls/kafka/tls.crt"
    assert data["ADAPTD_KAFKA_SSL_KEYFILE"] == "/tls/kafka/tls.key"
    url = "rediss://r:6380/0?protocol=3&ssl_ca_certs=/tls/redis/ca.crt"
    assert data["ADAPTD_REDIS_URL"] == url
    for spec in (
        found["Deployment", "adaptd"]["spec"]["template"]["spec"],
        found["Job", "adaptd-topics"]["spec"]["template"]["spec"],
        found["Pod", "adaptd-check"]["spec"],
    ):
        mounts = {m["name"]: m for m in spec["containers"][0]["volumeMounts"]}
        assert mounts["tls-kafka"]["mountPath"] == "/tls/kafka"
        secrets = {v["name"]: v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
        assert secrets == {"tls-kafka": "k", "tls-redis": "r"}


@pytest.mark.usefixtures("helm")
def test_resources_are_laid_over_the_profiles(tmp_path: Path) -> None:
    given = {"limits": {"cpu": None, "memory": "3Gi"}, "requests": {"cpu": 2}}
    got = pod(tmp_path, resources=given)["containers"][0]["resources"]
    assert got == {
        "requests": {"cpu": 2, "memory": "2Gi", "ephemeral-storage": "64Mi"},
        "limits": {"memory": "3Gi", "ephemeral-storage": "256Mi"},
    }


@pytest.mark.usefixtures("helm")
def test_a_digest_wins_over_a_tag(tmp_path: Path) -> None:
    digest = "sha256:" + "0" * 64
    image = pod(tmp_path, image={"digest": digest, "tag": "x"})["containers"][0]["image"]
    assert image == f"adaptd@{digest}"


@pytest.mark.usefixtures("helm")
def test_extras_reach_the_pod(tmp_path: Path) -> None:
    given = yaml.safe_load(EVERYTHING.read_text())
    spec = pod(tmp_path, **given)
    container = spec["containers"][-1]
    assert container["env"] == given["extraEnv"]
    assert [each["name"] for each in spec["initContainers"]] == ["fetch"]
    assert [each["name"] for each in spec["containers"]] == ["agent", "adaptd"]
    assert given["extraEnvFrom"][0] in container["envFrom"]
    assert container["envFrom"][-1] == {"secretRef": {"name": "adaptd-env", "optional": False}}
    assert given["extraVolumes"][0] in spec["volumes"]
    assert given["extraVolumeMounts"][0] in container["volumeMounts"]
    assert spec["imagePullSecrets"] == given["imagePullSecrets"]
    assert all(c["matchLabelKeys"] for c in spec["topologySpreadConstraints"])
    assert rendered(tmp_path, **given)["ConfigMap", "adaptd-more"]["data"] == {"of": "adaptd"}


@pytest.mark.usefixtures("helm")
def test_a_device_among_the_extras_is_the_workers_alone(tmp_path: Path) -> None:
    more = [{"name": "ADAPTD_DEVICE", "value": "cuda:1"}, {"name": "A", "value": "b"}]
    found = rendered(tmp_path, profile="cuda", extraEnv=more)
    worker = found["Deployment", "adaptd"]["spec"]["template"]["spec"]["containers"][0]
    assert worker["env"] == more
    for each in (found["Job", "adaptd-topics"]["spec"]["template"], found["Pod", "adaptd-check"]):
        env = each["spec"]["containers"][0]["env"]
        assert env == [{"name": "ADAPTD_DEVICE", "value": "cpu"}, more[1]]


@pytest.mark.usefixtures("helm")
def test_the_spill_folder_is_a_claim_or_the_nodes_disk(tmp_path: Path) -> None:
    claim = pod(tmp_path, spill={"enabled": True, "kind": "claim", "storageClass": "fast"})
    (volume,) = (v for v in claim["volumes"] if v["name"] == "spill")
    spec = volume["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert spec["storageClassName"] == "fast"
    assert spec["resources"]["requests"]["storage"] == "10Gi"
    limits = {"limits": {"ephemeral-storage": "11Gi"}}
    disk = pod(tmp_path, spill={"enabled": True}, resources=limits)
    assert {"name": "spill", "emptyDir": {"sizeLimit": "10Gi"}} in disk["volumes"]
    data = settings_of(tmp_path, spill={"enabled": True}, resources=limits)
    assert data["ADAPTD_WINDOW_SPILL_DIR"] == "/spill"


@pytest.mark.usefixtures("helm")
def test_network_peers_reach_the_workers_policy_and_the_topics_jobs(tmp_path: Path) -> None:
    peers = [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
    ports = [{"port": 9000, "endPort": 9100, "protocol": "TCP"}]
    scrapers = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]
    given = {"kafka": {"peers": peers, "ports": ports}, "scrapers": scrapers}
    found = rendered(tmp_path, networkPolicy=given)
    for name in ("adaptd", "adaptd-topics"):
        assert {"ports": ports, "to": peers} in found["NetworkPolicy", name]["spec"]["egress"]
    (ingress,) = found["NetworkPolicy", "adaptd"]["spec"]["ingress"]
    assert ingress["from"] == scrapers
    assert "ingress" not in found["NetworkPolicy", "adaptd-topics"]["spec"]


@pytest.mark.usefixtures("helm")
def test_keda_scales_on_lag_up_to_the_partitions(tmp_path: Path) -> None:
    found = rendered(tmp_path, autoscaling={"enabled": True, "maxReplicas": 8})
    spec = found["ScaledObject", "adaptd"]["spec"]
    assert spec["maxReplicaCount"] <= Settings.model_construct().topic_partitions
    (trigger,) = spec["triggers"]
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert trigger["useCachedMetrics"] is True
    assert "replicas" not in found["Deployment", "adaptd"]["spec"]


@pytest.mark.usefixtures("helm")
def test_the_age_of_one_partition_that_stands_still_adds_no_workers(
    tmp_path: Path, promtool: str
) -> None:
    given = {"enabled": True, "lagSeconds": 30, "prometheusAddress": "http://prometheus:9090"}
    _, trigger = rendered(tmp_path, autoscaling=given)["ScaledObject", "adaptd"]["spec"]["triggers"]
    assert trigger["metadata"]["threshold"] == "30"
    owed = 'adaptd_oldest_owed_seconds{namespace="default",job="adaptd",partition="%d",pod="%s"}'
    ages = [9_000, 2, 2, 2, 2, 2, 2, 2]
    series = [{"series": owed % (p, "a"), "values": f"{age}"} for p, age in enumerate(ages)]
    series.append({"series": owed % (1, "before"), "values": "1"})  # of the owner before
    wanted = {
        "expr": trigger["metadata"]["query"],
        "eval_time": "0m",
        "exp_samples": [{"labels": "{}", "value": 2}],
    }
    (tmp_path / "no_rules.yaml").write_text("groups: []")
    test = {"input_series": series, "promql_expr_test": [wanted]}
    file = tmp_path / "test.yaml"
    file.write_text(json.dumps({"rule_files": ["no_rules.yaml"], "tests": [test]}))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("helm")
def test_two_installations_share_no_name_and_no_selector(tmp_path: Path) -> None:
    one, other = (
        documents(render("--values", str(EVERYTHING), release=name)) for name in ("a", "b")
    )
    names = [{(m["kind"], m["metadata"]["name"]) for m in found} for found in (one, other)]
    assert not names[0] & names[1]
    (selector,) = (m["spec"]["selector"] for m in one if m["kind"] == "Deployment")
    assert selector["matchLabels"]["app.kubernetes.io/instance"] == "a"


@pytest.mark.usefixtures("helm")
def test_alerts_link_to_the_runbook_and_can_be_left_out(tmp_path: Path) -> None:
    given = {
        "enabled": True,
        "runbookUrl": "https://example.org/runbook",
        "disabled": ["AdaptdAbsent"],
    }
    rule = rendered(tmp_path, prometheusRule=given)["PrometheusRule", "adaptd"]
    alerts = {
        rule["alert"]: rule
        for group in rule["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert "AdaptdAbsent" not in alerts
    for name, alert in alerts.items():
        link = f"https://example.org/runbook#{name.lower()}"
        assert alert["annotations"]["runbook_url"] == link


def rules(tmp_path: Path, **given: Any) -> dict[str, dict[str, Any]]:
    """The rendered rules, by the name of alert or record."""
    found = rendered(tmp_path, **given)["PrometheusRule", "adaptd"]["spec"]["groups"]
    return {rule.get("alert") or rule["record"]: rule for group in found for rule in group["rules"]}


@pytest.mark.usefixtures("helm")
def test_the_absence_of_this_release_is_watched(tmp_path: Path) -> None:
    found = rules(tmp_path, prometheusRule={"enabled": True})
    expected = 'absent(adaptd_build_info{namespace="default", job="adaptd"})'
    assert found["AdaptdAbsent"]["expr"] == expected


@pytest.mark.usefixtures("helm")
def test_the_rendered_rules_are_prometheus_own(tmp_path: Path, promtool: str) -> None:
    groups = rendered(tmp_path, prometheusRule={"enabled": True})["PrometheusRule", "adaptd"]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(groups["spec"]))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("helm")
def test_each_board_is_a_configmap_that_grafana_finds(tmp_path: Path) -> None:
    boards = sorted((CHART / "files").glob("*.json"))
    found = rendered(tmp_path, dashboards={"enabled": True})
    for board in boards:
        manifest = found["ConfigMap", f"adaptd-board-{board.stem}"]
        assert manifest["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert json.loads(manifest["data"][board.name]) == json.loads(board.read_text())
    assert boards


@pytest.mark.usefixtures("helm")
def test_boards_link_to_the_runbook(tmp_path: Path) -> None:
    url = "https://example.org/runbook"
    values = {"dashboards": {"enabled": True}, "prometheusRule": {"runbookUrl": url}}
    board = rendered(tmp_path, **values)["ConfigMap", "adaptd-board-adaptd"]["data"]["adaptd.json"]
    assert f'"query": "{url}"' in board
    assert "deploy/RUNBOOK.md" not in board


@pytest.mark.usefixtures("helm")
def test_the_topics_are_made_before_workers_start(tmp_path: Path) -> None:
    found = rendered(tmp_path)
    job = found["Job", "adaptd-topics"]
    (source, _secret) = job["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    name = source["configMapRef"]["name"]
    needed = [job, found["ConfigMap", name], found["NetworkPolicy", "adaptd-topics"]]
    hooks = [manifest["metadata"]["annotations"] for manifest in needed]
    assert {hook["helm.sh/hook"] for hook in hooks} == {"pre-install,pre-upgrade"}
    weights = [int(hook["helm.sh/hook-weight"]) for hook in hooks]
    assert min(weights) == weights[1] == weights[2] < weights[0]


@pytest.mark.usefixtures("helm")
def test_helm_test_runs_the_daemons_own_check(tmp_path: Path) -> None:
    check = rendered(tmp_path)["Pod", "adaptd-check"]
    assert check["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert check["spec"]["containers"][0]["args"] == ["check"]


@pytest.mark.usefixtures("helm")
def test_the_check_has_the_workers_memory_and_folders_but_no_gpu(tmp_path: Path) -> None:
    found = rendered(tmp_path, profile="cuda", spill={"enabled": True, "kind": "claim"})
    check = found["Pod", "adaptd-check"]["spec"]["containers"][0]
    worker = found["Deployment", "adaptd"]["spec"]["template"]["spec"]["containers"][0]
    limits = worker["resources"]["limits"]
    assert limits.pop("nvidia.com/gpu") == "1"
    assert check["resources"]["limits"] == limits
    assert {"name": "ADAPTD_DEVICE", "value": "cpu"} in check["env"]
    paths = [{m["mountPath"] for m in each["volumeMounts"]} for each in (check, worker)]
    assert paths[0] == paths[1] == {"/tmp", "/spill"}
