"""What a process takes of the machine's memory, as Linux tells it, and the kernel's hand in it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.worker.errors import BenchFailed

KIB = 1024
_MS_SYNC = 4
_MADV_PAGEOUT = 21
"""Linux 5.4: take these pages back now, as if memory were short."""
_FIELDS = ("VmRSS", "RssAnon", "RssFile", "RssShmem")


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes. `file` are pages of files: the kernel writes them out where memory is short, and
    reads them again when they are looked at. `anon` it can only swap."""

    all: int
    anon: int
    file: int
    shmem: int

    def __sub__(self, other: Self) -> Resident:
        return Resident(
            self.all - other.all,
            self.anon - other.anon,
            self.file - other.file,
            self.shmem - other.shmem,
        )


def resident() -> Resident:
    """Of this process. Raises BenchFailed where the kernel does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        raise BenchFailed("memory is read from /proc/self/status: Linux only")
    return parse_status(status.read_text())


def parse_status(status: str) -> Resident:
    """From the text of /proc/self/status."""
    kib = {name: int(value.split()[0]) for name, value in _lines(status) if name in _FIELDS}
    return Resident(*(kib[name] * KIB for name in _FIELDS))


def available_bytes(meminfo: str) -> int:
    """Memory that can be had without swapping, from the text of /proc/meminfo."""
    return next(int(v.split()[0]) for name, v in _lines(meminfo) if name == "MemAvailable") * KIB


def bytes_read(io: str) -> int:
    """Read from the disk for this process, from the text of /proc/self/io."""
    return next(int(value) for name, value in _lines(io) if name == "read_bytes")


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        yield name, value


def write_to_disk(folder: Path) -> None:
    """Return when this process's mappings of nameless files in a folder are on the disk.

    Raises OSError."""
    _of_every(folder, "msync", _MS_SYNC)


def give_back(folder: Path) -> None:
    """Have the kernel take their clean pages out of memory, as where it is short.

    Raises OSError where it does not do that when asked."""
    _of_every(folder, "madvise", _MADV_PAGEOUT)


def _of_every(folder: Path, call: str, flag: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for start, length in mappings(Path("/proc/self/maps").read_text(), folder):
        if getattr(libc, call)(ctypes.c_void_p(start), ctypes.c_size_t(length), flag):
            raise OSError(ctypes.get_errno(), f"{call}({flag}) of {length} bytes")


def mappings(maps: str, folder: Path) -> list[tuple[int, int]]:
    """Start and length of the mappings of a folder's nameless files, from /proc/self/maps."""
    found = []
    for line in maps.splitlines():
        words = line.split(maxsplit=5)
        if len(words) == 6 and words[5].endswith("(deleted)") and _inside(words[5], folder):
            first, last = (int(address, 16) for address in words[0].split("-"))
            found.append((first, last - first))
    return found


def _inside(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder.resolve())


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the straight line that fits best (least squares); 0 for a single place."""
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - x_mean) ** 2 for a in x)
    along = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return along / spread if spread else 0.0
