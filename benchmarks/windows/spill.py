"""The kernel's hand in memory that is a mapping of a spill file: writes it out, takes it back."""

import ctypes
from pathlib import Path

_MS_SYNC = 4
_MADV_PAGEOUT = 21  # Linux 5.4: take these pages back now, as if memory were short


def write_to_disk(folder: Path) -> None:
    """Returns when this process's mappings of nameless files in a folder are on the disk.

    Raises OSError."""
    _of_every(folder, "msync", _MS_SYNC)


def give_back(folder: Path) -> None:
    """Has the kernel take their clean pages out of memory, as where it is short.

    Raises OSError where it does not do that when asked."""
    _of_every(folder, "madvise", _MADV_PAGEOUT)


def _of_every(folder: Path, call: str, flag: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for start, length in mappings(Path("/proc/self/maps").read_text(), folder):
        if getattr(libc, call)(ctypes.c_void_p(start), ctypes.c_size_t(length), flag):
            raise OSError(ctypes.get_errno(), f"{call}({flag}) of {length} bytes")


def mappings(maps: str, folder: Path) -> list[tuple[int, int]]:
    """Returns start and length of the mappings of a folder's nameless files, from the text of
    /proc/self/maps."""
    found = []
    for line in maps.splitlines():
        addresses, *_, path = line.split(maxsplit=5)
        if path.endswith("(deleted)") and Path(path).is_relative_to(folder.resolve()):
            first, last = (int(address, 16) for address in addresses.split("-"))
            found.append((first, last - first))
    return found
