"""Limits and throttling by both versions of cgroups, as Kubernetes, Docker and systemd lay them."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.worker.cgroup import Cgroup

GIB = 2**30


def group(tmp_path: Path, membership: str, files: dict[str, str]) -> Cgroup:
    (tmp_path / "membership").write_text(membership)
    mount = tmp_path / "fs"
    mount.mkdir()
    for name, text in files.items():
        path = mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Cgroup(mount, tmp_path / "membership")


def test_a_container_of_the_second_version_is_the_root_that_it_sees(tmp_path: Path) -> None:
    cgroup = group(
        tmp_path,
        "0::/\n",
        {
            "memory.max": "1073741824\n",
            "cpu.max": "150000 100000\n",
            "cpu.stat": "usage_usec 9\nnr_throttled 3\nthrottled_usec 2500000\n",
        },
    )
    assert cgroup.memory_limit() == GIB
    assert cgroup.cpu_limit() == 1.5
    assert cgroup.throttled_seconds() == 2.5


def test_the_groups_above_limit_too(tmp_path: Path) -> None:
    cgroup = group(
        tmp_path,
        "0::/pod.slice/worker.scope\n",
        {
            "pod.slice/memory.max": "1073741824\n",
            "pod.slice/worker.scope/memory.max": "max\n",
            "pod.slice/cpu.max": "200000 100000\n",
            "pod.slice/worker.scope/cpu.max": "max 100000\n",
            "pod.slice/worker.scope/cpu.stat": "throttled_usec 1000000\n",
            "cpu.stat": "usage_usec 7\n",
        },
    )
    assert cgroup.memory_limit() == GIB
    assert cgroup.cpu_limit() == 2.0
    assert cgroup.throttled_seconds() == 1.0


@pytest.mark.parametrize("where", ["/docker/abc", "/"])
def test_a_container_of_the_first_version_may_see_its_own_group_as_the_root(
    tmp_path: Path, where: str
) -> None:
    """Docker mounts the container's group at the root and still names it by its path outside."""
    cgroup = group(
        tmp_path,
        f"4:memory:{where}\n3:cpu,cpuacct:{where}\n0::/\n",
        {
            "memory/memory.limit_in_bytes": "1073741824\n",
            "cpu/cpu.cfs_quota_us": "50000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "cpu/cpu.stat": "nr_throttled 3\nthrottled_time 1500000000\n",
        },
    )
    assert cgroup.memory_limit() == GIB
    assert cgroup.cpu_limit() == 0.5
    assert cgroup.throttled_seconds() == 1.5


def test_a_group_of_the_first_version_without_a_namespace(tmp_path: Path) -> None:
    cgroup = group(
        tmp_path,
        "4:memory:/system/a\n1:cpu:/\n",
        {"memory/system/a/memory.limit_in_bytes": "1073741824", "cpu/cpu.cfs_quota_us": "-1"},
    )
    assert cgroup.memory_limit() == GIB
    assert cgroup.cpu_limit() is None


@pytest.mark.parametrize("text", ["max", "9" * 30, "", "junk", "\n"])
def test_no_limit_is_the_machines_memory(tmp_path: Path, text: str) -> None:
    machine = Cgroup(tmp_path / "none", tmp_path / "none").memory_limit()
    assert machine > 0
    files = {"memory.max": text, "cpu.max": text, "cpu.stat": text}
    cgroup = group(tmp_path, "0::/\n", files)
    assert cgroup.memory_limit() == machine
    assert cgroup.cpu_limit() is None
    assert cgroup.throttled_seconds() is None


def test_a_group_outside_of_the_mount_is_not_followed(tmp_path: Path) -> None:
    cgroup = group(tmp_path, "0::/../../elsewhere\n", {"memory.max": "1073741824"})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "memory.max").write_text("1")
    assert cgroup.memory_limit() == GIB
