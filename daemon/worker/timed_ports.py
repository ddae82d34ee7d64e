"""Kafka's and Redis' calls as the worker makes them: how long each took, and whether it failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, cast

from daemon.errors import Refused, Service, Unavailable

CALLS: Mapping[Service, tuple[str, ...]] = {
    "kafka": ("poll", "bounds", "logs", "commit", "verify", "send"),
    "redis": (
        *("use_topic", "claim", "append", "shorten", "restore", "load", "streams", "begin_anew"),
        *("remember", "homes", "keep_homes", "mark", "verify"),
    ),
}
"""The calls of the ports that ask the service something. Of a commit only the request counts here:
its answer is awaited in the next turn."""
WAITS = frozenset({"poll"})
"""Calls that mostly wait for news: how long they take says nothing of the service."""


class CallMetrics(Protocol):
    """Who is told of calls."""

    def called(self, service: Service, call: str, seconds: float) -> None:
        """Counts a call that was answered."""

    def call_failed(self, service: Service, call: str) -> None:
        """Counts a call that was not."""


P = TypeVar("P")


def timed(port: P, service: Service, metrics: CallMetrics) -> P:
    """Returns the port, whose calls are counted. Everything else is the port's own."""
    return cast(P, _Timed(port, service, metrics))


class _Timed:
    """Stands for a port. The calls are wrapped once, here, and looked up as attributes of its
    own."""

    def __init__(self, port: object, service: Service, metrics: CallMetrics) -> None:
        self._port = port
        for name in CALLS[service]:
            if (call := getattr(port, name, None)) is not None:
                setattr(self, name, _counted(call, service, name, metrics))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)


def _counted(
    call: Callable[..., Any], service: Service, name: str, metrics: CallMetrics
) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            answer = call(*args, **kwargs)
        except (Unavailable, Refused):
            metrics.call_failed(service, name)
            raise
        if name not in WAITS:
            metrics.called(service, name, time.perf_counter() - start)
        return answer

    return counted
