"""What stands beside every figure: the machine it was measured on, and the spread of its runs."""

import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def machine(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Describe the hardware, as far as the kernel tells, and the versions of Python and of these
    packages; None for one that is not installed."""
    return {
        "cpu": cpu_model() or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
    }


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Return the first CPU's name; None where the kernel does not tell it."""
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else None


def spread(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum, to four digits."""
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
