"""Removes from an environment what the image never runs: `python slim.py SITE_PACKAGES`.

That is C headers, static libraries, CUDA's libraries that torch does not link to, and the test
suites that numpy, sympy and networkx install. Where there is no C compiler, triton goes as well: it
builds a part of itself with one when a GPU is first used. The script prints how much was freed, and
the packages that take the most room afterwards.
"""

import shutil
import sys
from pathlib import Path

HEADERS = ("torch/include", "nvidia/*/include", "numpy/_core/include", "triton/_C/include")
CUDA_UNUSED = (
    "nvidia/*/lib/libcusolverMg.so*",  # several GPUs in one solver
    "nvidia/*/lib/libnvperf_*.so*",  # the profiler's counters
    "nvidia/nvshmem/lib/nvshmem_*.so*",  # transports between machines
    "nvidia/nvshmem/lib/*.bc",
    "nvidia/*/bin",
)
COMPILERS = ("cc", "gcc", "clang")
TRITON = ("triton", "triton-*.dist-info")
TESTS_OF = ("numpy", "sympy", "networkx", "mpmath")


def removable(site: Path) -> list[Path]:
    """Returns the folders and files under `site` that nothing at run time reads."""
    patterns = (*HEADERS, *CUDA_UNUSED, *(() if any(map(shutil.which, COMPILERS)) else TRITON))
    found = [path for pattern in patterns for path in site.glob(pattern)]
    found += [path for name in TESTS_OF for path in (site / name).rglob("tests") if path.is_dir()]
    return sorted({*found, *site.rglob("*.a")})


def size_bytes(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def main(site: Path) -> None:
    """Removes it, and prints what was freed and what is left."""
    freed = 0
    for path in removable(site):
        if not path.exists():  # inside a folder that went before
            continue
        freed += size_bytes(path)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(f"freed {freed / 2**20:.0f} MiB")  # noqa: T201 - a build's log
    left = sorted(((size_bytes(path), path.name) for path in site.iterdir()), reverse=True)
    for size, name in left[:12]:
        print(f"{size / 2**20:7.0f} MiB  {name}")  # noqa: T201 - a build's log


if __name__ == "__main__":
    main(Path(sys.argv[1]))
