"""Tokens for OAUTHBEARER, for both Kafka clients: from a function that the settings name.

The function takes nothing and returns a token with the time until which it is valid, Unix time in
seconds. It is named as `module:function`, or by the name of an entry point in the group
`adaptd.token_providers`. `docs/operating.md` shows one, and says what it calls for Amazon MSK.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from threading import Lock
from typing import Any

from daemon.config import Settings
from daemon.errors import Misconfigured

ENTRY_POINTS = "adaptd.token_providers"
RENEW_BEFORE_S = 30.0
"""A token that is valid for less is not used any more."""

Provider = Callable[[], tuple[str, float]]


def token_provider(settings: Settings) -> Provider:
    """Returns the function that the settings name, which then remembers a token while it is valid.
    Raises Misconfigured when there is none."""
    named = settings.kafka_oauth_token_provider or ""
    try:
        found: Any = _found(named)
    except Exception as e:  # whatever the import of a foreign module raises
        raise Misconfigured(
            f"ADAPTD_KAFKA_OAUTH_TOKEN_PROVIDER = {named!r}: {type(e).__name__}: {e}"
        ) from e
    if not callable(found):
        raise Misconfigured(f"ADAPTD_KAFKA_OAUTH_TOKEN_PROVIDER = {named!r}: it cannot be called")
    return _Remembered(found)


def _found(named: str) -> Any:
    module, colon, function = named.partition(":")
    if colon:
        return getattr(import_module(module), function)
    (entry_point,) = entry_points(group=ENTRY_POINTS, name=named)
    return entry_point.load()


class _Remembered:
    """A provider that asks another one only when it needs a new token, from any thread."""

    def __init__(self, ask: Provider) -> None:
        self._ask, self._lock = ask, Lock()
        self._token, self._valid_until = "", 0.0

    def __call__(self) -> tuple[str, float]:
        with self._lock:
            if time.time() > self._valid_until - RENEW_BEFORE_S:
                self._token, self._valid_until = self._ask()
            return self._token, self._valid_until
