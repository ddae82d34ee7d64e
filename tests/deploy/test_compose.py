"""deploy/compose.yaml, as docker compose's own parser reads it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon import config
from daemon.demo.plan import read_run_config

DEPLOY = Path(__file__).parents[2] / "deploy"
FILE = DEPLOY / "compose.yaml"
Services = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def read(compose_parser: str) -> Callable[..., Services]:
    def project(**variables: str) -> Services:
        done = subprocess.run(
            [compose_parser, str(FILE)],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        services: Services = json.loads(done.stdout)["services"]
        return services

    return project


def test_the_whole_house_is_there(read: Callable[..., Services]) -> None:
    services = read()
    named = {"kafka", "redis", "topics", "worker", "producer", "prometheus", "grafana"}
    assert services.keys() == named
    waits = services["worker"]["depends_on"]
    assert waits["topics"]["condition"] == "service_completed_successfully"


def test_every_images_name_is_a_variable(read: Callable[..., Services]) -> None:
    variables = set(re.findall(r"\$\{(\w+_IMAGE):-", FILE.read_text()))
    given = {name: f"example/{name.lower()}:1" for name in variables}
    assert {service["image"] for service in read(**given).values()} == set(given.values())


def test_a_misspelt_key_is_refused(compose_parser: str, tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text().replace("read_only: true", "read_onyl: true", 1))
    done = subprocess.run([compose_parser, str(wrong)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "read_onyl" in done.stderr


def test_everything_that_is_mounted_is_there(read: Callable[..., Services]) -> None:
    mounts = [v for s in read().values() for v in s.get("volumes", ()) if v["type"] == "bind"]
    assert mounts
    assert all(Path(mount["source"]).exists() and mount["read_only"] for mount in mounts)


def test_the_daemon_takes_its_settings_and_may_finish_its_turn(
    read: Callable[..., Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(config.PREFIX)]:
        monkeypatch.delenv(name)
    services = read()
    worker = services["worker"]
    settings = config.load_settings(None, worker["environment"])
    grace_s = re.fullmatch(r"(\d+)m(\d+)s", worker["stop_grace_period"])
    assert grace_s is not None
    assert settings.stop_timeout_s < 60 * int(grace_s[1]) + int(grace_s[2])
    assert worker["deploy"]["replicas"] <= settings.topic_partitions
    assert worker["read_only"]
    assert worker["cap_drop"] == ["ALL"]
    run = read_run_config(services["producer"]["command"][0])
    for name, value in services["producer"]["environment"].items():
        monkeypatch.setenv(name, value)
    assert run.settings_of("tenants").kafka_events_topic == settings.kafka_events_topic
    assert run.plan.events > 0


def test_redis_keeps_what_it_is_given(read: Callable[..., Services]) -> None:
    words = read()["redis"]["command"]
    assert words == ["--appendonly", "yes", "--maxmemory-policy", "noeviction"]


def test_prometheus_takes_its_configuration(promtool: str, tmp_path: Path) -> None:
    for file in ("compose/prometheus.yaml", "prometheus/rules.yaml"):
        shutil.copy(DEPLOY / file, tmp_path)
    words = [promtool, "check", "config", str(tmp_path / "prometheus.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_is_given_every_board(read: Callable[..., Services]) -> None:
    targets = {v["target"]: Path(v["source"]) for v in read()["grafana"]["volumes"]}
    (provider,) = yaml.safe_load((DEPLOY / "compose" / "dashboards.yaml").read_text())["providers"]
    boards = targets[provider["options"]["path"]]
    home = Path(read()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (boards / home.relative_to(provider["options"]["path"])).is_file()
    (source,) = yaml.safe_load((DEPLOY / "compose" / "datasources.yaml").read_text())["datasources"]
    assert source["isDefault"]
    assert source["url"] == "http://prometheus:9090"
