"""A base image where no registry of images can be reached: Debian with Python, by debootstrap."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

STAND_IN = "localhost/adaptd-base:bookworm"
PACKAGES = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=30000:30000"]
[engine]
runtime = "runc"
"""
"""podman's settings on a machine whose own limits are lower than podman's defaults."""


class CannotTry(Exception):
    """A check cannot be made here; the message says why."""


class Wrong(Exception):
    """What is checked is not as it should be."""


def run(words: Sequence[str], cwd: Path | None = None) -> str:
    """Runs a command and returns what it printed. Raises CannotTry with the end of its errors."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(CONTAINERS_CONF)
        file.flush()
        environment = {"CONTAINERS_CONF": file.name} | dict(os.environ)
        done = subprocess.run(
            words, cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise CannotTry(f"{' '.join(words[:3])} ... ended with {done.returncode}:\n{said}")
    return done.stdout


def make_stand_in(engine: str) -> None:
    """Makes the base image unless it is there, which takes half a minute. Raises CannotTry.

    It trusts the certificate authorities that this machine trusts.
    """
    there = subprocess.run([engine, "image", "inspect", STAND_IN], capture_output=True, check=False)
    if there.returncode == 0:
        return
    if shutil.which("debootstrap") is None:
        raise CannotTry("no debootstrap on PATH: apt-get install debootstrap, or name a --base")
    with tempfile.TemporaryDirectory(prefix="adaptd-base-") as folder:
        root, archive = Path(folder) / "root", Path(folder) / "root.tar"
        words = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm"]
        run([*words, str(root)])
        shutil.copyfile(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        run(["tar", "-C", str(root), "--exclude=./var/cache/apt/*", "-cf", str(archive), "."])
        run([engine, "import", str(archive), STAND_IN])
