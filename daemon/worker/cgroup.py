"""What the container may use, as the kernel says: memory, CPU, and how long it was held back.

Both versions of cgroups are read. A process sees its own group at the root when it has a namespace
of its own, as in Kubernetes; elsewhere its group lies deeper, and the groups above it limit it too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The group of this process. Values that the kernel does not give are None."""

    mount: Path = Path("/sys/fs/cgroup")
    membership: Path = Path("/proc/self/cgroup")
    """The file that says which group of each controller the process is in."""

    def memory_limit(self) -> int:
        """Returns the bytes that the process may take: its group's, or those of the machine."""
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        found = [_number(folder / "memory.max") for folder in self._second()]
        found += [_number(folder / "memory.limit_in_bytes") for folder in self._first("memory")]
        return min([machine, *(limit for limit in found if limit is not None)])

    def cpu_limit(self) -> float | None:
        """Returns how many CPUs the process may use at once."""
        limits = [_quota(folder / "cpu.max") for folder in self._second()]
        for folder in self._first("cpu"):
            quota, period = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
            limits.append(quota / period if quota and quota > 0 and period else None)
        return min((limit for limit in limits if limit is not None), default=None)

    def throttled_seconds(self) -> float | None:
        """Returns how long the process's group was held back in all because it had used up its
        CPU."""
        for folder in self._second():
            if (found := _field(folder / "cpu.stat", "throttled_usec")) is not None:
                return found / 1e6
        for folder in self._first("cpu"):
            if (found := _field(folder / "cpu.stat", "throttled_time")) is not None:
                return found / 1e9
        return None

    def _second(self) -> Iterator[Path]:
        """Yields the folders of the second version, this process's group's first."""
        unified = self.mount / "unified"
        yield from _upwards(unified if unified.is_dir() else self.mount, self._group(""))

    def _first(self, controller: str) -> Iterator[Path]:
        """Yields the folders of a controller of the first version, this process's group's first."""
        yield from _upwards(self.mount / controller, self._group(controller))

    def _group(self, controller: str) -> str:
        try:
            lines = self.membership.read_text().splitlines()
        except OSError:
            return ""
        groups = dict[str, str]()
        for line in lines:  # number:controllers:group
            _, names, group = line.split(":", 2)
            groups |= dict.fromkeys(names.split(","), group)
        return groups.get(controller, "")


def _upwards(root: Path, group: str) -> Iterator[Path]:
    folder = root / group.lstrip("/")
    while folder != root and root in folder.parents:
        if ".." not in folder.parts and folder.is_dir():
            yield folder
        folder = folder.parent
    yield root


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # there is none, or it says "max"
        return None


def _quota(path: Path) -> float | None:
    try:
        quota, period = path.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _field(path: Path, name: str) -> int | None:
    try:
        fields = dict(line.split() for line in path.read_text().splitlines())
        return int(fields[name])
    except (OSError, ValueError, KeyError):
        return None
