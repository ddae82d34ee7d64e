"""What stops a demo before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.demo.plan import Plan
from daemon.demo.run import Options, demo
from daemon.errors import Misconfigured
from model.meta_init import fresh, save


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
    with pytest.raises(Misconfigured, match="--kafka and --redis go together"):
        demo(Options(Plan(), kafka="127.0.0.1:1"))
