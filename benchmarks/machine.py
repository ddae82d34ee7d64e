"""What Linux tells of the machine and of a process's memory and CPU time."""

import os
import platform
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Self

from model.evaluate.machine import machine

KIB = 1024
MEMINFO, STATUS = Path("/proc/meminfo"), Path("/proc/self/status")


def host(packages: Sequence[str]) -> dict[str, Any]:
    """Returns the hardware, the kernel and the versions of Python and of these packages."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = {"memory_gib": round(memory_bytes / 2**30, 1), "kernel": platform.release()}
    return machine(packages) | memory


def proc_numbers(text: str) -> dict[str, int]:
    """Returns the first number of every `Name: number ...` line of a file of /proc."""
    lines = (line.partition(":") for line in text.splitlines())
    words = {name: value.split() for name, _, value in lines}
    return {name: int(found[0]) for name, found in words.items() if found and found[0].isdigit()}


def available_bytes(meminfo: Path = MEMINFO) -> float:
    """Returns the memory that can be had without swapping; infinity where the kernel does not
    tell."""
    found = proc_numbers(meminfo.read_text()) if meminfo.exists() else {}
    return found["MemAvailable"] * KIB if "MemAvailable" in found else float("inf")


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes of a process that lie in memory. The kernel takes pages of files back where memory is
    short, and reads them again when they are looked at; anonymous ones it can only swap."""

    all: int
    anon: int
    file: int
    shmem: int

    def __sub__(self, other: Self) -> "Resident":
        return Resident(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


def resident(status: str | None = None) -> "Resident":
    """Returns what this process holds, or what the text of a /proc/PID/status says.

    Raises OSError where there is no such file."""
    kib = proc_numbers(STATUS.read_text() if status is None else status)
    names = ("VmRSS", "RssAnon", "RssFile", "RssShmem")
    return Resident(*(kib[name] * KIB for name in names))


def fresh_peak_kib() -> int:
    """Sets the peak of resident memory back to what is held now, and returns that, in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_kib()


def peak_kib() -> int:
    """Returns the most that this process has held since the last `fresh_peak_kib`, in KiB."""
    return proc_numbers(STATUS.read_text())["VmHWM"]


def busy_ticks(stat: str) -> int:
    """Returns the time in which the machine's CPUs were not idle, from the text of /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.split()[1:9])
    return user + nice + system + irq + softirq + steal


def cpu_clock(pid: int) -> int:
    """Returns the clock of a process's CPU time, user and system of all its threads, as Linux's
    clock_getcpuclockid(3) makes it: nanoseconds, where /proc/PID/stat has steps of 10 ms."""
    return (~pid << 3) | 2
