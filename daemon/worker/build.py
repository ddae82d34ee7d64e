"""What this build of adaptd is made of, for `adaptd_build_info` and the log."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import msgspec

from daemon.config import KafkaClient

REVISION_VARIABLE = "SOURCE_REVISION"
"""Set it when an image is built of sources that carry no git folder."""
UNKNOWN = "unknown"


def build_facts(
    client: KafkaClient, environment: Mapping[str, str] = os.environ
) -> Mapping[str, str]:
    """Returns version, revision of the sources, torch, Kafka client and its version."""
    distributed = {"kafka-python": "kafka-python", "librdkafka": "confluent-kafka"}[client]
    return {
        "version": _version("adaptd"),
        "revision": environment.get(REVISION_VARIABLE) or _installed() or _checked_out() or UNKNOWN,
        "torch": _version("torch"),
        "client": f"{client} {_version(distributed)}",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return UNKNOWN


def _installed() -> str | None:
    """Returns the commit that pip installed, where it installed one."""
    told = distribution("adaptd").read_text("direct_url.json")
    found = msgspec.json.decode(told) if told else {}
    commit = found.get("vcs_info", {}).get("commit_id")
    return str(commit) if commit else None


def _checked_out() -> str | None:
    """Returns the commit of the git checkout that this file lies in."""
    git = Path(__file__).resolve().parents[2] / ".git"
    try:
        if git.is_file():  # a worktree: gitdir: PATH
            git = Path(git.read_text().removeprefix("gitdir:").strip())
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return head
        name = head.removeprefix("ref:").strip()
        shared = git / "commondir"
        main = (git / shared.read_text().strip()) if shared.exists() else git
        return _commit(main, name)
    except (OSError, UnicodeDecodeError):
        return None


def _commit(git: Path, name: str) -> str | None:
    """Returns the commit that a reference names, which lies in a file of its own or packed."""
    if (git / name).is_file():
        return (git / name).read_text().strip()
    for line in (git / "packed-refs").read_text().splitlines():
        commit, _, packed = line.partition(" ")
        if packed == name:
            return commit
    return None
