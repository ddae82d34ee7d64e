"""What stops a demo before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.demo.places import place
from daemon.demo.plan import Plan
from daemon.demo.run import Options, demo
from daemon.demo.thetas import load_theta, paths
from daemon.errors import Misconfigured
from model.theta.meta_init import fresh
from model.theta.meta_init_file import save


def test_a_theta_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.safetensors"
    with pytest.raises(Misconfigured, match=r"--meta-init: .*none\.safetensors: cannot be read"):
        demo(Options(Plan(), meta_init=missing))


def test_a_theta_for_other_events_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.safetensors"
    save(fresh(8, 4), path)
    with pytest.raises(Misconfigured, match=r"image to vector \(32\).*vector to vector \(4\)"):
        demo(Options(Plan(), meta_init=path))


def test_one_given_service_is_not_enough() -> None:
    with (
        pytest.raises(Misconfigured, match="--kafka and --redis go together"),
        place("127.0.0.1:1", None, paths({}), lambda _line: None),
    ):
        pass


def test_each_part_needs_a_theta_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "vectors.safetensors"
    save(fresh(8, 4), path)
    with pytest.raises(Misconfigured, match=r"--names-meta-init: .*image to text"):
        load_theta("names", path)


def test_the_shipped_thetas_are_those_that_the_parts_need() -> None:
    for part, path in paths({}).items():
        assert load_theta(part, path).source_modality == "image"
