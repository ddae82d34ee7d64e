"""What the image's build does to its environment: the list of parts, and what is removed."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from deploy import slim
from deploy.sbom import document


def test_the_list_of_parts_is_complete_and_refers_to_itself_alone() -> None:
    found = document("1.2.3")
    refs = [part["bom-ref"] for part in found["components"]]
    assert len(set(refs)) == len(refs)
    assert f"pkg:pypi/torch@{version('torch')}" in refs
    subject = found["metadata"]["component"]
    assert (subject["name"], subject["version"]) == ("adaptd", "1.2.3")
    known = {*refs, subject["bom-ref"]}
    assert {need["ref"] for need in found["dependencies"]} == known
    assert all(set(need["dependsOn"]) <= known for need in found["dependencies"])


def test_adaptd_depends_on_what_pyproject_names() -> None:
    found = document("0")
    root = found["metadata"]["component"]["bom-ref"]
    (needs,) = (need["dependsOn"] for need in found["dependencies"] if need["ref"] == root)
    names = {ref.removeprefix("pkg:pypi/").partition("@")[0] for ref in needs}
    assert {"torch", "kafka-python", "redis", "prometheus-client"} <= names


def test_headers_static_libraries_and_tests_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [
        "torch/__init__.py",
        "torch/lib/libtorch.so",
        "numpy/testing/__init__.py",
        "nvidia/x/lib/a.so",
        "nvidia/cu13/lib/libcusolver.so.12",
        "nvidia/nvshmem/lib/libnvshmem_host.so.3",
    ]
    removed = [
        "torch/include/torch.h",
        "nvidia/x/include/cuda.h",
        "nvidia/x/lib/libcudart_static.a",
        "numpy/linalg/tests/test_linalg.py",
        "nvidia/cu13/lib/libcusolverMg.so.12",
        "nvidia/cu13/lib/libnvperf_host.so",
        "nvidia/nvshmem/lib/libnvshmem_device_sm_90.bc",
        "nvidia/nvshmem/lib/nvshmem_transport_ibrc.so.6",
    ]
    for name in kept + removed:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    slim.main(tmp_path)
    assert all((tmp_path / name).exists() for name in kept)
    assert not any((tmp_path / name).exists() for name in removed)


@pytest.mark.parametrize(("compiler", "kept"), [("/usr/bin/cc", True), (None, False)])
def test_triton_goes_where_it_could_not_build_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str | None, kept: bool
) -> None:
    for name in ("triton/__init__.py", "triton-3.9.0.dist-info/METADATA"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    monkeypatch.setattr("shutil.which", lambda _: compiler)
    slim.main(tmp_path)
    assert (tmp_path / "triton").exists() == kept
    assert (tmp_path / "triton-3.9.0.dist-info").exists() == kept
