"""Builds the checks' programs that are written in Go, from other projects' own code."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from deploy.check.base import CannotTry
from deploy.helm.tools import TOOLS


def go_program(source: Path, *flags: str) -> Path:
    """Returns the program that is built from a folder, which is built unless it is newer than its
    source. Raises CannotTry."""
    program = TOOLS / source.name
    newest = max(path.stat().st_mtime for path in source.iterdir())
    if program.exists() and program.stat().st_mtime >= newest:
        return program
    if shutil.which("go") is None:
        raise CannotTry(f"no go on PATH: it builds {source.name}")
    print(f"building {source.name} with Go", flush=True)  # noqa: T201
    program.parent.mkdir(parents=True, exist_ok=True)
    words = ["nice", "-n", "10", "go", "build", "-p", "2", *flags]
    if subprocess.run([*words, "-o", str(program), "."], cwd=source, check=False).returncode != 0:
        raise CannotTry(f"go could not build {source}")
    return program
