"""What stops a demo before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.demo.environment import demo_environment, load_theta, theta_paths
from daemon.demo.plan import Plan
from daemon.demo.run import DemoOptions, run_demo
from daemon.errors import Misconfigured
from model.theta.meta_init import fresh_meta_init
from model.theta.meta_init_file import save_meta_init


def test_a_theta_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.safetensors"
    with pytest.raises(Misconfigured, match=r"--meta-init: .*none\.safetensors: cannot be read"):
        run_demo(DemoOptions(Plan(), meta_init=missing))


def test_a_theta_for_other_events_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.safetensors"
    save_meta_init(fresh_meta_init(8, 4), path)
    with pytest.raises(Misconfigured, match=r"image to vector \(32\).*vector to vector \(4\)"):
        run_demo(DemoOptions(Plan(), meta_init=path))


def test_one_given_service_is_not_enough() -> None:
    with (
        pytest.raises(Misconfigured, match="--kafka and --redis go together"),
        demo_environment("127.0.0.1:1", None, theta_paths({}), lambda _line: None),
    ):
        pass


def test_each_scenario_needs_a_theta_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "vectors.safetensors"
    save_meta_init(fresh_meta_init(8, 4), path)
    with pytest.raises(Misconfigured, match=r"--names-meta-init: .*image to text"):
        load_theta("names", path)


def test_the_shipped_thetas_are_those_that_the_scenarios_need() -> None:
    for scenario, path in theta_paths({}).items():
        assert load_theta(scenario, path).source_modality == "image"
