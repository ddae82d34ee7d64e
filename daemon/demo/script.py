"""What each process of the demo is told, as its one argument."""

from __future__ import annotations

import os

import msgspec

from daemon import config
from daemon.config import Settings
from daemon.demo.part import PartName
from daemon.demo.plan import Plan


class Script(msgspec.Struct, frozen=True):
    """The plan, and where each part is played."""

    plan: Plan
    environment: dict[PartName, dict[str, str]]
    """Each part's own ADAPTD_* variables; those in common are in the process's environment."""

    def settings_of(self, part: PartName) -> Settings:
        """As the part's worker reads them. Raises Misconfigured."""
        return config.load_settings(None, os.environ | self.environment[part])

    def to_json(self) -> str:
        """The argument."""
        return msgspec.json.encode(self).decode()


def read_script(argument: str) -> Script:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(argument, type=Script)
